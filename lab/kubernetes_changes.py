"""The rows of the proof of Kubernetes in which nodes are drained, because all get another MTU and then other subnets.

Meanwhile each node requests the Service of all web servers. These end and come back, so requests may be lost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address, ip_network

import http_requests
import kubernetes_cluster
import kubernetes_network
import kubernetes_workload as workload
import nodes
from commands import attempt
from kubernetes_cluster import Cluster
from kubernetes_faults import as_text
from rows import Row, measure

import playbooks

_MTU = 1380
_POOL = "10.60.0.0/16"
_CROWD = 9
_AS_ORDINARY_PODS = json.dumps(
    [{"op": "remove", "path": f"/spec/template/spec/{key}"} for key in ("tolerations", "topologySpreadConstraints")]
)
"""A patch of the crowd: its pods tolerate no cordon any more, and may run anywhere."""


def prove(cluster: Cluster) -> Iterator[Row]:
    """Yield the rows. The nodes have another MTU and another pool afterwards."""
    cluster.kubectl("patch", f"deployment/{workload.CROWD}", "--type=json", f"--patch={_AS_ORDINARY_PODS}")
    kubernetes_cluster.set_crowd(cluster, _CROWD)
    for subject, playbook, variable, pods_without in (
        ("a smaller MTU, for which nodes are drained", "change_mtu.yml", f"evio_mtu={_MTU}", _pods_without_mtu),
        ("another pool, for which nodes are drained", "change_pool.yml", f"evio_pod_cidr={_POOL}", _pods_outside_pool),
    ):
        arguments = ("--extra-vars=evio_drain=true", f"--extra-vars={variable}")
        yield measure(subject, partial(_changed, cluster, playbook, arguments, pods_without))
        cluster = kubernetes_cluster.whole_again(cluster)
        yield measure("pod to pod afterwards", partial(kubernetes_network.pod_to_pod, cluster))


def _changed(
    cluster: Cluster, playbook: str, arguments: Sequence[str], pods_without: Callable[[Cluster], list[str]]
) -> tuple[str, bool]:
    """Run the playbook twice; it must change all pods, uncordon all nodes, and change nothing the second time."""
    url = f"http://{cluster.services['web']}{workload.STATIC_PATH}"
    with http_requests.streams(cluster.lab, [(source, [url]) for source in cluster.node_sources]) as measured:
        began = time.monotonic()
        playbooks.run(cluster.lab, playbook, *arguments, timeout=1200)
        seconds = time.monotonic() - began
        kubernetes_cluster.whole_again(cluster)
    cordoned = [node["metadata"]["name"] for node in cluster.kubectl.get("nodes") if node["spec"].get("unschedulable")]
    if cordoned:
        return f"left cordoned: {', '.join(cordoned)}", False
    cluster.kubectl.await_rollout(workload.CROWD, timeout=120)
    without = pods_without(cluster)
    again = playbooks.changes(playbooks.run(cluster.lab, playbook, *arguments))
    text = f"{seconds:.0f} s, {again} changes in a second run; pods as before: {', '.join(without) or 'none'}; "
    text += f"of the Service of all web servers {as_text(measured)}, longest silence {measured.silence():.1f} s"
    return text, not without and not again


def _pods_without_mtu(cluster: Cluster) -> list[str]:
    command = ["/opt/cni/bin/evio", "status", "--json"]
    # It exits with 1 while it finds something wrong.
    told = [json.loads(attempt(*nodes.command(cluster.lab, node, command)).stdout) for node in cluster.nodes]
    pods = [pod for status in told for network in status["networks"] for pod in network["pods"]]
    return [pod["name"] or pod["container_id"] for pod in pods if pod["state"] != "gone" and pod["mtu"] != _MTU]


def _pods_outside_pool(cluster: Cluster) -> list[str]:
    pods = cluster.kubectl.get("pods", "--all-namespaces")
    return [
        pod["metadata"]["name"]
        for pod in pods
        if not pod["spec"].get("hostNetwork") and ip_address(pod["status"]["podIP"]) not in ip_network(_POOL)
    ]
