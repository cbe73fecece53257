"""A Kubernetes cluster in the lab with the proof's pods and Services, and the rows of the proof's table.

kubernetes_proof.py and kubernetes_faults.py measure the rows.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import kubernetes_pods
import kubernetes_workload as workload
import nodes
from commands import LabError, attempt
from http_requests import Source
from kubectl import Kubectl, await_that
from state import Lab
from topology import Node

_READY_SECONDS = 120.0
_SCALE_SECONDS = 180.0


@dataclass(frozen=True)
class Cluster:
    """A cluster with the proof's workload running: its lab, its nodes, its web servers, and its Services' addresses."""

    lab: Lab
    kubectl: Kubectl
    nodes: tuple[Node, ...]
    host_addresses: dict[str, str]
    pods: list[Source]
    services: dict[str, str]

    @property
    def node_sources(self) -> list[Source]:
        """The nodes as sources of requests."""
        return [Source(node.name, node.name, self.host_addresses[node.name]) for node in self.nodes]

    def service_urls(self, path: str) -> list[tuple[str, str]]:
        """Return the URL of each node's Service, with the node's name."""
        return [(node.name, f"http://{self.services[workload.service(node.name)]}{path}") for node in self.nodes]


def start(lab: Lab) -> Cluster:
    """Start the proof's pods and Services, and return when all are Ready. Raises LabError."""
    kubectl = Kubectl(lab, workload.NAMESPACE)
    await_that(lambda: not _unready(lab), "kubeadm's pods are Ready", timeout=_READY_SECONDS, interval=2)
    lab_nodes = lab.topology().nodes
    kubectl.apply(workload.manifests(lab_nodes))
    kubectl.await_rollout(*workload.deployments(lab_nodes), workload.CROWD, timeout=_READY_SECONDS)
    return _look(lab)


def _unready(lab: Lab) -> list[str]:
    """Return kubeadm's pods that are not Ready: the control plane, and kube-proxy, without which no Service works.

    Raises LabError with the last line that a failed container has printed.
    """
    unready = []
    kubectl = Kubectl(lab, "kube-system")
    for pod in kubectl.get("pods"):
        for status in pod["status"].get("containerStatuses", []):
            if "terminated" in status["lastState"] and not status["ready"]:
                printed = kubectl("logs", pod["metadata"]["name"], "--previous")
                raise LabError(f"{pod['metadata']['name']} on {pod['spec']['nodeName']} fails: {printed[:200]}")
            if not status["ready"]:
                unready.append(pod["metadata"]["name"])
    return unready


def whole_again(cluster: Cluster) -> Cluster:
    """Return the cluster when all web servers are Ready after a fault: they have other addresses and namespaces.

    Raises LabError if they do not become Ready.
    """
    deployments = workload.deployments(cluster.lab.topology().nodes)
    cluster.kubectl.await_rollout(*deployments, timeout=_READY_SECONDS)
    return _look(cluster.lab)


def _look(lab: Lab) -> Cluster:
    kubectl = Kubectl(lab, workload.NAMESPACE)
    addresses = {
        node["metadata"]["name"]: next(
            each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"
        )
        for node in kubectl.get("nodes")
    }
    services = {each["metadata"]["name"]: each["spec"]["clusterIP"] for each in kubectl.get("services")}
    lab_nodes = tuple(node for node in lab.topology().nodes if node.name in addresses)
    return Cluster(lab, kubectl, lab_nodes, addresses, kubernetes_pods.sources(lab, kubectl, "app=web"), services)


def stop(lab: Lab) -> None:
    """Remove all that the proof has started."""
    Kubectl(lab, workload.NAMESPACE)("delete", "namespace", workload.NAMESPACE, "--ignore-not-found", timeout=180)


def set_crowd(cluster: Cluster, replicas: int) -> float:
    """Scale the crowd, and return the seconds until all of its pods are Ready, or none is there.

    kubectl watches until it is so: to ask again and again would take the CPU time that the pods need.
    """
    began = time.monotonic()
    _scale_crowd(cluster, replicas)
    if replicas:
        cluster.kubectl.await_rollout(workload.CROWD, timeout=_SCALE_SECONDS)
    else:
        cluster.kubectl.await_no_pod(f"app={workload.CROWD}", timeout=_SCALE_SECONDS)
    return time.monotonic() - began


def dismiss_crowd(cluster: Cluster) -> None:
    """Let the crowd go, and do not wait for it.

    Its pods end within seconds, but kubelet 1.20 leaves most of them in the API until its collector of dead sandboxes
    comes by, once a minute.
    """
    _scale_crowd(cluster, 0)


def _scale_crowd(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl("scale", f"deployment/{workload.CROWD}", f"--replicas={replicas}")


def failed_adds(cluster: Cluster, since: float) -> int:
    """Return how many sandboxes the nodes' containerd could not give a network since a time."""

    def on(node: Node) -> int:
        journal = ["journalctl", "--unit=containerd", f"--since=@{since:.0f}", "--output=cat", "--no-pager"]
        printed = attempt(*nodes.command(cluster.lab, node, journal), timeout=60).stdout
        return printed.count("failed to setup network for sandbox")

    with ThreadPoolExecutor(max_workers=8) as workers:
        return sum(workers.map(on, cluster.nodes))
