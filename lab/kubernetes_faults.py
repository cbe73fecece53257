"""The rows of the proof of Kubernetes in which something breaks or is exchanged while pods talk through Services.

Each counts the requests that are lost meanwhile. Pods whose node is not touched may lose none.
"""

from __future__ import annotations

import time
from calendar import timegm
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import faults
import http_requests
import kubernetes_churn
import kubernetes_cluster
import kubernetes_endpoints
import kubernetes_network
import kubernetes_workload as workload
import nodes
from commands import attempt, run
from http_requests import Streams
from kubectl import await_that
from kubernetes_cluster import Cluster
from rows import Row, measure
from state import Lab
from topology import Node

import playbooks

_SETTLE = 2.0
"""Seconds of requests before a fault, and after all is well again."""
_READY_SECONDS = 150.0
_LONGEST_SILENCE = 10.0
"""Seconds for which pods of a node may be cut off when its Open vSwitch is killed."""
_CONFLIST = "/etc/cni/net.d/10-evio.conflist"


def prove(cluster: Cluster) -> Iterator[Row]:
    """Yield the rows. The nodes have another version of the programs afterwards."""
    first, second, last = cluster.nodes[0], cluster.nodes[1], cluster.nodes[-1]
    yield measure("kubelet is killed", lambda: _kubelet_killed(cluster, second))
    for name, unit in (("containerd", "containerd"), ("the overlay's agent", "evio-overlay")):
        yield measure(f"{name} is killed", lambda unit=unit: _killed(cluster, second, unit, 0.0))  # type: ignore[misc]
    yield measure("ovs-vswitchd is killed", lambda: _killed(cluster, second, "ovs-vswitchd", _LONGEST_SILENCE))
    yield measure("the conflist is deleted, bootstrap.yml is run", lambda: _conflist_lost(cluster, second))
    yield measure("/var/lib/cni is wiped, pods come", lambda: _state_wiped(cluster, last))
    yield measure("a node is rebooted", lambda: _rebooted(cluster, last))
    cluster = kubernetes_cluster.whole_again(cluster)
    yield measure("the control plane's node is rebooted", lambda: _rebooted(cluster, first))
    cluster = kubernetes_cluster.whole_again(cluster)
    yield measure("Services after the reboots", lambda: _services_answer(cluster))
    yield measure("pod to pod after the reboots", lambda: kubernetes_network.pod_to_pod(cluster))
    yield measure("a node is removed by remove_node.yml", lambda: _removed(cluster, last))
    yield measure("it is added again by bootstrap.yml", lambda: _added(cluster, last))
    cluster = kubernetes_cluster.whole_again(cluster)
    yield measure("pod to pod with the added node", lambda: kubernetes_network.pod_to_pod(cluster))
    yield measure("the programs are upgraded while pods come and go", lambda: _upgraded(cluster))


def _killed(cluster: Cluster, node: Node, unit: str, longest_silence: float) -> tuple[str, bool]:
    """Kill all processes of a unit's main program, and wait until systemd has started it again."""
    before = _main_pid(cluster.lab, node, unit)
    with _streams(cluster, cluster.nodes) as measured:
        run(*nodes.command(cluster.lab, node, ["kill", "-KILL", before]))
        seconds = _await_start(cluster, node, unit, before)
        await_that(lambda: cluster.kubectl.nodes_ready()[node.name], f"{node.name} is Ready", timeout=60)
        time.sleep(_SETTLE)
    text = f"{as_text(measured)}, longest silence {measured.silence():.1f} s; it ran again after {seconds:.1f} s"
    return text, measured.silence() <= longest_silence


def _kubelet_killed(cluster: Cluster, node: Node) -> tuple[str, bool]:
    """Kill kubelet, and wait until the one that systemd starts has probed its pods.

    It counts them as not ready until then, so Kubernetes may withdraw all backends of a Service meanwhile, and refuse
    connections to it. The pods themselves must answer all the time, and so must Services that have a backend.
    """
    before = _main_pid(cluster.lab, node, "kubelet")
    pods = [
        f"http://{pod.address}:{workload.PORT}{workload.STATIC_PATH}" for pod in cluster.pods if pod.node == node.name
    ]
    with (
        kubernetes_endpoints.watched(cluster) as withdrawals,
        _streams(cluster, cluster.nodes, and_urls=pods) as measured,
    ):
        killed = time.time()
        run(*nodes.command(cluster.lab, node, ["kill", "-KILL", before]))
        seconds = _await_start(cluster, node, "kubelet", before)
        await_that(lambda: _lease_renewed(cluster, node) > killed, f"kubelet of {node.name} answers", timeout=60)
        time.sleep(_SETTLE + 2 * workload.PROBE_SECONDS)
        await_that(lambda: cluster.kubectl.nodes_ready()[node.name], f"{node.name} is Ready", timeout=60)
    refused = withdrawals.refused(measured, cluster.services)
    text = f"{as_text(measured)}, {refused} of these while Kubernetes had withdrawn the Service's backends"
    return f"{text}; it ran again after {seconds:.1f} s", measured.lost() == refused


def _await_start(cluster: Cluster, node: Node, unit: str, before: str) -> float:
    """Wait until systemd has started a unit again, and return the seconds; ``before`` is its former main process."""
    return await_that(lambda: _main_pid(cluster.lab, node, unit) not in ("0", before), f"{unit} runs again", timeout=60)


def _lease_renewed(cluster: Cluster, node: Node) -> float:
    """Return when the node's kubelet last renewed its lease (time.time)."""
    lease = ["get", "lease", node.name, "--namespace=kube-node-lease", "--output=jsonpath={.spec.renewTime}"]
    return datetime.fromisoformat(cluster.kubectl(*lease).replace("Z", "+00:00")).timestamp()


def _conflist_lost(cluster: Cluster, node: Node) -> tuple[str, bool]:
    with _streams(cluster, cluster.nodes) as measured:
        run(*nodes.command(cluster.lab, node, ["rm", _CONFLIST]))
        noticed = await_that(
            lambda: not cluster.kubectl.nodes_ready()[node.name], f"{node.name} is not Ready", timeout=120
        )
        began = time.monotonic()
        playbooks.run(cluster.lab, "bootstrap.yml", f"--limit={node.name}")
        await_that(lambda: cluster.kubectl.nodes_ready()[node.name], f"{node.name} is Ready", timeout=_READY_SECONDS)
        seconds = time.monotonic() - began
    text = f"not Ready after {noticed:.0f} s, Ready {seconds:.0f} s after the playbook's start; {as_text(measured)}"
    return text, measured.lost() == 0


def _state_wiped(cluster: Cluster, node: Node) -> tuple[str, bool]:
    """Delete host-local's reservations under running pods, as `kubeadm reset` does: no address may be given twice."""
    run(*nodes.command(cluster.lab, node, ["rm", "-rf", "/var/lib/cni"]))
    kubernetes_cluster.set_crowd(cluster, 4 * len(cluster.nodes))
    addresses = Counter(
        pod["status"]["podIP"]
        for pod in cluster.kubectl.get("pods", "--all-namespaces", f"--field-selector=spec.nodeName={node.name}")
        if not pod["spec"].get("hostNetwork")
    )
    kubernetes_cluster.dismiss_crowd(cluster)
    twice = [address for address, count in addresses.items() if count > 1]
    return f"{len(addresses)} pods on {node.name}, addresses twice: {twice or 'none'}", not twice


def _rebooted(cluster: Cluster, node: Node) -> tuple[str, bool]:
    lab = cluster.lab
    with _streams(cluster, _without(cluster, node)) as measured:
        began, since = time.monotonic(), time.time()
        faults.reboot(lab, lab.topology(), node)
        booted = time.monotonic() - began
        # Of the control plane's node, kubelet first starts the API server.
        await_that(lambda: bool(cluster.kubectl.nodes_ready()), "the API server answers", timeout=_READY_SECONDS)
        answers = time.monotonic() - began

        def runs_again() -> bool:
            pods = cluster.kubectl.get("pods", f"--selector=web={workload.service(node.name)}")
            return len(pods) == workload.PER_NODE and all(_runs_since(pod, since) for pod in pods)

        await_that(runs_again, f"the pods of {node.name} run again", timeout=_READY_SECONDS)
        seconds = time.monotonic() - began
        time.sleep(_SETTLE)
    text = f"up after {booted:.0f} s, API after {answers:.0f} s, its pods Ready after {seconds:.0f} s"
    text += f"; other nodes: {as_text(measured)}"
    return text, measured.lost() == 0


def _services_answer(cluster: Cluster) -> tuple[str, bool]:
    """Wait until the nodes lead Services to the pods there are, and let pods of all nodes request all Services.

    After a reboot of the control plane's node, kube-proxy waits for news on connections that are dead, until TCP's
    keepalive finds that; meanwhile it sends to addresses that pods had before. Nothing is requested in that time: the
    kernel remembers for two minutes where it has sent a connection's first packet, and would send a later connection
    from the same port there, too.
    """
    listed = cluster.kubectl.get("pods", "--field-selector=status.phase=Running")
    present = {pod["status"]["podIP"] for pod in listed if not pod["metadata"].get("deletionTimestamp")}
    web = {pod.address for pod in cluster.pods}

    def leads_to_present_pods(node: Node) -> bool:
        return web <= kubernetes_endpoints.backends(cluster.lab, node) <= present

    seconds = await_that(
        lambda: all(map(leads_to_present_pods, cluster.nodes)),
        "all nodes lead Services to the pods there are",
        timeout=_READY_SECONDS,
        interval=1,
    )
    with _streams(cluster, cluster.nodes) as measured:
        pass
    text = f"all nodes lead to the present pods {seconds:.0f} s after these are Ready; {as_text(measured)}"
    return text, measured.lost() == 0


def _removed(cluster: Cluster, node: Node) -> tuple[str, bool]:
    with _streams(cluster, _without(cluster, node)) as measured:
        began = time.monotonic()
        playbooks.run(cluster.lab, "remove_node.yml", f"--extra-vars=evio_leaving_nodes={node.name}")
        seconds = time.monotonic() - began
        time.sleep(_SETTLE)
    is_gone = node.name not in cluster.kubectl.nodes_ready()
    left = _left_on(cluster.lab, node)
    text = f"{seconds:.0f} s, left on it: {left or 'nothing'}; other nodes: {as_text(measured)}"
    return text, is_gone and not left and measured.lost() == 0


def _left_on(lab: Lab, node: Node) -> str:
    """Return what a removed node still has of the pod network."""
    look = "ls -d /etc/evio/* /var/lib/evio-cni/* /etc/cni/net.d/* /run/netns/* /etc/kubernetes/*.conf 2>/dev/null;"
    look += "ovs-vsctl list-br 2>/dev/null; nft list tables 2>/dev/null | grep evio;"
    look += "ls /sys/class/net | grep -Ev '^(lo|eth0|ovs-netdev|ovs-system)$'"
    return " ".join(attempt(*nodes.command(lab, node, ["sh", "-c", look])).stdout.split())


def _added(cluster: Cluster, node: Node) -> tuple[str, bool]:
    with _streams(cluster, _without(cluster, node)) as measured:
        began = time.monotonic()
        playbooks.run(cluster.lab, "bootstrap.yml", f"--limit={node.name}")
        ready = time.monotonic() - began
        kubernetes_cluster.whole_again(cluster)
        seconds = time.monotonic() - began
        time.sleep(_SETTLE)
    text = f"Ready after {ready:.0f} s, its pods after {seconds:.0f} s; other nodes: {as_text(measured)}"
    return text, measured.lost() == 0


def _upgraded(cluster: Cluster) -> tuple[str, bool]:
    archive = kubernetes_churn.other_version(cluster.lab)
    began = time.time()
    with _streams(cluster, cluster.nodes) as measured, kubernetes_churn.churning(cluster) as churn:
        await_that(lambda: churn.pods > 0 or bool(churn.failure), "pods come", timeout=60)
        playbooks.run(cluster.lab, "bootstrap.yml", f"--extra-vars=evio_programs_archive={archive}")
    failed = kubernetes_cluster.failed_adds(cluster, began)
    text = f"{churn.pods} pods came, {failed} failed ADDs; {as_text(measured)}"
    return f"{text}{churn.failure and f'; {churn.failure}'}", not failed and not churn.failure and not measured.lost()


@contextmanager
def _streams(cluster: Cluster, between: Sequence[Node], and_urls: Sequence[str] = ()) -> Iterator[Streams]:
    """Let a pod of each of these nodes request the Services of all of them; the first seconds show that they answer.

    The pods also request ``and_urls``.
    """
    names = {node.name for node in between}
    urls = [url for name, url in cluster.service_urls(workload.STATIC_PATH) if name in names]
    first = {pod.node: pod for pod in reversed(cluster.pods) if pod.node in names}
    with http_requests.streams(cluster.lab, [(pod, [*urls, *and_urls]) for pod in first.values()]) as measured:
        time.sleep(_SETTLE)
        yield measured


def _without(cluster: Cluster, node: Node) -> list[Node]:
    return [each for each in cluster.nodes if each != node]


def as_text(measured: Streams) -> str:
    worst = max(measured, key=lambda stream: stream.lost)
    where = f" (most, {worst.lost}, from {worst.source} to {worst.url}: {worst.losses[0].text})" if worst.lost else ""
    return f"{measured.lost()} of {measured.requests()} requests lost{where}"


def _runs_since(pod: dict[str, Any], since: float) -> bool:
    """Return whether a pod is Ready, and all of its containers were started after a time."""
    started = [each["state"].get("running", {}).get("startedAt") for each in pod["status"]["containerStatuses"]]
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"]["conditions"])
    return is_ready and all(at and timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ")) >= since for at in started)


def _main_pid(lab: Lab, node: Node, unit: str) -> str:
    return run(*nodes.command(lab, node, ["systemctl", "show", "--property=MainPID", "--value", unit])).strip()
