"""The pods and Services that the proof of Kubernetes starts, as manifests.

On each node a Deployment of two web servers; a Service for each of these, and one for all with a NodePort, which have a
UDP port that nothing in the containers answers; a web server
with a hostPort on the last node; and a crowd, a Deployment over all nodes that the proof scales. All have probes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import images
from topology import Node

NAMESPACE = "evio-proof"
PORT = 8080
UDP_PORT = 8080
NODE_PORT = 30080
HOST_PORT = 8081
PER_NODE = 2
PROBE_SECONDS = 2
"""Between two probes of a pod's readiness."""
CROWD = "crowd"

CLIENT_PATH = "/cgi-bin/client"
"""Answered with the names of the pod and its node, and the address that the pod sees as its client."""
STATIC_PATH = "/"
"""Answered from a file."""

_SERVE = f"""\
mkdir /srv/cgi-bin
echo "$POD" >/srv/index.html
cat >/srv/cgi-bin/client <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n%s %s %s\\n' "$POD" "$NODE" "$REMOTE_ADDR"
END
chmod 755 /srv/cgi-bin/client
exec httpd -f -p {PORT} -h /srv
"""


def manifests(nodes: Sequence[Node]) -> dict[str, Any]:
    """Return everything as one list for `kubectl apply`."""
    return {"apiVersion": "v1", "kind": "List", "items": [_namespace(), *_items(nodes)]}


def service(node: str) -> str:
    """Return the name of the Service of a node's web servers, which is that of their Deployment too."""
    return f"web-{node}"


def deployments(nodes: Sequence[Node]) -> list[str]:
    """Return the names of all Deployments except the crowd."""
    return [*(service(node.name) for node in nodes), "host-port"]


def _namespace() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def _items(nodes: Sequence[Node]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        name = service(node.name)
        yield _deployment(name, {"app": "web", "web": name}, PER_NODE, _on(node.name))
        yield _service(name, {"web": name})
    yield _service("web", {"app": "web"}, type="NodePort", node_port=NODE_PORT)
    yield _deployment("host-port", {"app": "host-port"}, 1, _on(nodes[-1].name), host_port=HOST_PORT)
    spread = {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": CROWD}},
            }
        ]
    }
    yield _deployment(CROWD, {"app": CROWD}, PER_NODE * len(nodes), spread)


def _on(node: str) -> dict[str, Any]:
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


def _deployment(
    name: str, labels: dict[str, str], replicas: int, placement: dict[str, Any], host_port: int | None = None
) -> dict[str, Any]:
    port = {"containerPort": PORT, **({"hostPort": host_port} if host_port else {})}
    probe = {"httpGet": {"path": STATIC_PATH, "port": PORT}, "timeoutSeconds": 3}
    container = {
        "name": "web",
        "image": images.BUSYBOX,
        "command": ["/bin/sh", "-c", _SERVE],
        "env": [_field("POD", "metadata.name"), _field("NODE", "spec.nodeName")],
        "ports": [port],
        "readinessProbe": {**probe, "periodSeconds": PROBE_SECONDS},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
    }
    pod = {
        "tolerations": [{"operator": "Exists"}],
        # busybox's web server does not end by SIGTERM: as process 1 it ignores the signal.
        "terminationGracePeriodSeconds": 1,
        # No pod asks the API server: without a token kubelet has no volume to mount and to remove for each.
        "automountServiceAccountToken": False,
        "containers": [container],
        **placement,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _service(
    name: str, selector: dict[str, str], *, type: str = "ClusterIP", node_port: int | None = None
) -> dict[str, Any]:
    port = {"name": "http", "port": 80, "targetPort": PORT, **({"nodePort": node_port} if node_port else {})}
    udp = {"name": "udp", "port": UDP_PORT, "protocol": "UDP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"type": type, "selector": selector, "ports": [port, udp]},
    }
