"""The DaemonSet on the lab's cluster of Kubernetes: the rows of the proof that use deploy/daemonset.

The cluster is what playbooks/bootstrap.yml has made. One node is stripped of what Ansible has installed there for pods;
the DaemonSet brings it back. Afterwards all nodes have the DaemonSet.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import images
import kubernetes_churn
import kubernetes_cluster
import kubernetes_network
import nodes
from commands import LabError, run
from kubectl import Kubectl, await_that
from kubernetes_cluster import Cluster
from rows import Row, measure
from state import REPOSITORY, Lab
from topology import Node

import playbooks

NAMESPACE = "kube-system"
NAME = "daemonset/evio-cni"
_SECRET = "/etc/evio/etcd-client-secret.yaml"
_DEPLOY = REPOSITORY / "deploy/daemonset"
_IMAGE = "evio.cni/node"
_STRIPPED = (
    *("/etc/cni/net.d/10-evio.conflist", "/opt/cni/bin/evio", "/opt/cni/bin/evio-config-gen", "/opt/cni/lib"),
    *("/opt/cni/bin/host-local", "/opt/cni/bin/portmap", "/opt/cni/bin/bandwidth"),
)
_READY_SECONDS = 240.0


def prove(cluster: Cluster, built: Future[Path]) -> Iterator[Row]:
    """Yield the rows; ``built`` has the archive of build_images().

    The nodes have the DaemonSet, and etcd's authentication is enabled, afterwards.
    """
    lab = cluster.lab
    yield measure("DaemonSet: images for all nodes", lambda: _bring_images(lab, built))
    yield measure("DaemonSet: etcd lets its user reach the claims only", lambda: _limit_etcd_user(cluster))
    yield measure("DaemonSet: a bare node becomes Ready", lambda: _bare_node(cluster, cluster.nodes[-1]))
    cluster = kubernetes_cluster.whole_again(cluster)
    yield measure("DaemonSet: pod to pod, on all ways", lambda: kubernetes_network.pod_to_pod(cluster))
    yield measure("DaemonSet: rolling update while pods come and go", lambda: _rolling_update(cluster))
    yield measure("DaemonSet: a second rollout changes no file", lambda: _unchanged(cluster))


def remove(lab: Lab) -> None:
    """Remove the DaemonSet. The nodes keep what it has installed."""
    Kubectl(lab, NAMESPACE)("delete", NAME, "configmap/evio-cni", "secret/evio-etcd-client", "--ignore-not-found")


def build_images(lab: Lab) -> Path:
    """Return the archive of two images, :1 and :2, that differ in the version of the programs.

    It is built, a minute of a quiet core, if the programs or the images' definition have changed. Raises LabError.
    """
    definition = (_DEPLOY / "build-image", _DEPLOY / "Containerfile")
    other_programs = kubernetes_churn.other_version(lab)
    archive = lab.cache / f"daemonset-{_digest(kubernetes_churn.PROGRAMS, *definition)}.tar"
    if archive.exists():
        return archive
    packages = lab.cache / f"daemonset-packages-{_digest(*definition)}"
    for outdated in set(lab.cache.glob("daemonset-*")) - {packages}:
        shutil.rmtree(outdated) if outdated.is_dir() else outdated.unlink()
    built = []
    for tag, programs in (("1", kubernetes_churn.PROGRAMS), ("2", other_programs)):
        built.append(lab.cache / f"daemonset-{tag}.tar")
        options = [f"--name={_IMAGE}:{tag}", f"--programs={programs}", f"--keep={packages}"]
        run(str(_DEPLOY / "build-image"), str(built[-1]), *options, timeout=600)
    images.merge(built, archive)
    for part in built:
        part.unlink()
    return archive


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


def _bring_images(lab: Lab, built: Future[Path]) -> tuple[str, bool]:
    """Import both images on each node, when they are built."""
    archive = built.result()
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=4) as workers:
        list(workers.map(lambda node: _import(lab, node, archive), lab.topology().nodes))
    megabytes = archive.stat().st_size / 1e6
    return f"two images, {megabytes:.0f} MB, imported in {time.monotonic() - began:.0f} s", True


def _import(lab: Lab, node: Node, archive: Path) -> None:
    """Import an image into a node's runtime, through a pipe because the node cannot see the lab's files."""
    importing = nodes.command(lab, node, ["ctr", "--namespace=k8s.io", "images", "import", "-"])
    with archive.open("rb") as content:
        done = subprocess.run(importing, stdin=content, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise LabError(f"{node.name}: importing {archive.name} failed: {done.stderr.strip()}")


def _limit_etcd_user(cluster: Cluster) -> tuple[str, bool]:
    """Run playbooks/daemonset.yml, and try what its certificate reaches in the etcd of the running cluster."""
    playbooks.run(cluster.lab, "daemonset.yml", "--extra-vars=evio_etcd_authentication=true")
    again = playbooks.run(cluster.lab, "daemonset.yml", "--extra-vars=evio_etcd_authentication=true")
    first = cluster.nodes[0]
    pki = "/etc/kubernetes/pki"
    certificate = [f"--cacert={pki}/etcd/ca.crt", f"--cert={pki}/evio-cni-etcd-client.crt"]
    certificate += [f"--key={pki}/evio-cni-etcd-client.key", "--endpoints=https://127.0.0.1:2379"]
    reached = {}
    for key in ("/evio/kubernetes/pool", "/registry/namespaces/default"):
        etcdctl = ["env", "ETCDCTL_API=3", "etcdctl", *certificate, "get", key]
        done = subprocess.run(
            nodes.command(cluster.lab, first, etcdctl), capture_output=True, text=True, timeout=30, check=False
        )
        reached[key] = "read" if done.returncode == 0 and done.stdout else done.stderr.strip().splitlines()[-1]
    holds = (
        reached["/evio/kubernetes/pool"] == "read" and "permission denied" in reached["/registry/namespaces/default"]
    )
    is_unchanged = "changed=0" in again
    cluster.kubectl("get", "namespaces")
    words = ", ".join(f"{key}: {result}" for key, result in reached.items())
    return f"{words}; second run changed=0: {is_unchanged}", holds and is_unchanged


def _bare_node(cluster: Cluster, node: Node) -> tuple[str, bool]:
    """Strip a node of the programs and the configuration, and let the DaemonSet bring both back."""
    lab = cluster.lab
    run(*nodes.command(lab, node, ["rm", "-rf", *_STRIPPED]))
    await_that(lambda: not cluster.kubectl.nodes_ready()[node.name], f"{node.name} is not Ready", timeout=120)
    kubectl = Kubectl(lab, NAMESPACE)
    run(*kubectl.command("apply", f"--filename={_SECRET}"))
    kubectl("apply", "--filename=-", stdin=(_DEPLOY / "evio-cni.yaml").read_text())
    seconds = await_that(
        lambda: cluster.kubectl.nodes_ready()[node.name], f"{node.name} is Ready", timeout=_READY_SECONDS
    )
    _await_rollout(kubectl)
    return f"{node.name} Ready {seconds:.0f} s after kubectl apply", True


def _rolling_update(cluster: Cluster) -> tuple[str, bool]:
    """Exchange the image, node by node, while pods come and go: no ADD may fail."""
    kubectl = Kubectl(cluster.lab, NAMESPACE)
    began = time.time()
    with kubernetes_churn.churning(cluster) as churn:
        await_that(lambda: churn.pods > 0 or bool(churn.failure), "pods come", timeout=90)
        other = [f"{name}={_IMAGE}:2" for name in ("install-programs", "configure", "watch")]
        kubectl("set", "image", NAME, *other)
        _await_rollout(kubectl)
    failed = kubernetes_cluster.failed_adds(cluster, began)
    versions = {
        run(*nodes.command(cluster.lab, node, ["/opt/cni/bin/evio", "version"])).split(",")[0] for node in cluster.nodes
    }
    text = f"{churn.pods} pods came, {failed} failed ADDs, {len(versions)} version on all nodes"
    return f"{text}{churn.failure and f'; {churn.failure}'}", not failed and not churn.failure and len(versions) == 1


def _unchanged(cluster: Cluster) -> tuple[str, bool]:
    """Start all pods of the DaemonSet anew, at the same time: they find everything in place."""
    kubectl = Kubectl(cluster.lab, NAMESPACE)
    before = _files(cluster)
    at_once = {"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}}}}
    kubectl("patch", NAME, f"--patch={json.dumps(at_once)}")
    kubectl("rollout", "restart", NAME)
    _await_rollout(kubectl)
    changed = sorted(name for name, files in _files(cluster).items() if files != before[name])
    return f"changed: {', '.join(changed) or 'none'}", not changed


def _await_rollout(kubectl: Kubectl) -> None:
    """Wait until the DaemonSet's pods of all nodes are Ready."""
    kubectl("rollout", "status", NAME, f"--timeout={_READY_SECONDS:.0f}s", timeout=_READY_SECONDS + 10)


def _files(cluster: Cluster) -> dict[str, str]:
    listing = ["find", "/opt/cni", "/etc/cni/net.d", "-printf", "%p %i %T@\\n"]
    return {node.name: run(*nodes.command(cluster.lab, node, listing)) for node in cluster.nodes}
