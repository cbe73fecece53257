"""The proof that a Kubernetes cluster works on the lab's pod network: a table of what was done and measured.

The cluster is what playbooks/bootstrap.yml has made. Each row is measured with kubectl and with requests from inside
nodes and pods; kubernetes_faults.py adds the rows in which something breaks meanwhile.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address

import http_requests
import kubernetes_pods
import kubernetes_workload as workload
import nodes
from commands import LabError, attempt
from http_requests import Source
from kubectl import Kubectl, await_that
from kubernetes_pods import OnNode
from state import Lab
from topology import Node

_READY_SECONDS = 120.0
_REQUESTS = 4
"""Requests from each source to each Service: kube-proxy chooses one of two backends for each."""
CROWD = 60
"""Pods of the crowd at its largest."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was proven, what was measured, and whether it holds; None: it was not run."""

    subject: str
    measured: str
    holds: bool | None

    @property
    def text(self) -> str:
        """The row as a line."""
        verdict = {True: "ok", False: "FAILED", None: "not run"}[self.holds]
        return f"{self.subject:52} {verdict:8} {self.measured}"


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


def measure(subject: str, check: Callable[[], tuple[str, bool]]) -> Row:
    """Return the row of one check; one that could not be made fails, with the reason."""
    started = time.monotonic()
    try:
        measured, holds = check()
    except LabError as error:
        measured, holds = f"{error}"[:300], False
    row = Row(subject, f"{measured}  [{time.monotonic() - started:.0f} s]", holds)
    print(row.text, flush=True)
    return row


def start(lab: Lab) -> Cluster:
    """Start the proof's pods and Services, and return when all are Ready. Raises LabError."""
    kubectl = Kubectl(lab, workload.NAMESPACE)
    lab_nodes = lab.topology().nodes
    kubectl.apply(workload.manifests(lab_nodes))
    kubectl.await_rollout(*workload.deployments(lab_nodes), workload.CROWD, timeout=_READY_SECONDS)
    return look(lab)


def look(lab: Lab) -> Cluster:
    """Return the cluster as it is now: pods have other addresses and namespaces after a fault."""
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


def prove_network(cluster: Cluster) -> Iterator[Row]:
    """Yield the rows in which nothing breaks and nothing is scaled."""
    yield measure("nodes Ready", lambda: _nodes_ready(cluster))
    yield measure("Deployment over all nodes, with probes", lambda: _crowd_everywhere(cluster))
    yield measure("pod to pod, on all ways", lambda: _pod_to_pod(cluster))
    for what, sources in (("node", cluster.node_sources), ("pod", cluster.pods)):
        for where, on_same in (("the same node", True), ("other nodes", False)):
            subject = f"ClusterIP from every {what} to {where}"
            yield measure(subject, lambda sources=sources, on_same=on_same: _cluster_ip(cluster, sources, on_same))  # type: ignore[misc]
    yield measure("NodePort of every node, from nodes and pods", lambda: _node_port(cluster))
    yield measure("NodePort from the internet", lambda: _from_internet(cluster))
    yield measure("hostPort, from nodes and pods", lambda: _host_port(cluster))
    yield measure("kubectl exec and logs, a pod of each node", lambda: _exec_and_logs(cluster))
    yield measure("kubectl port-forward, a pod of each node", lambda: _port_forward(cluster))
    row = Row("DNS", "no image of CoreDNS: Debian has no package of it", None)
    print(row.text, flush=True)
    yield row


def prove_scaling(cluster: Cluster) -> Iterator[Row]:
    """Yield the rows in which the crowd grows and goes: nothing may be left of it on the nodes."""
    set_crowd(cluster, 0)
    before = kubernetes_pods.read_all(cluster.lab, cluster.nodes)
    yield measure(f"scale from 0 to {CROWD}", lambda: _scale_up(cluster))
    yield measure(f"scale from {CROWD} to 0", lambda: (f"all gone after {set_crowd(cluster, 0):.1f} s", True))
    yield measure("nothing left of them on any node", lambda: nothing_left(cluster, before))


def set_crowd(cluster: Cluster, replicas: int) -> float:
    """Scale the crowd, and return the seconds until all of its pods are Ready, or none is there."""
    cluster.kubectl("scale", f"deployment/{workload.CROWD}", f"--replicas={replicas}")

    def is_so() -> bool:
        names = cluster.kubectl("get", "pods", f"--selector=app={workload.CROWD}", "--output=name").split()
        if len(names) != replicas:
            return False
        template = "--output=jsonpath={.status.readyReplicas}"
        ready = cluster.kubectl("get", f"deployment/{workload.CROWD}", template)
        return int(ready or 0) == replicas

    return await_that(is_so, f"the crowd has {replicas} pods", timeout=180)


def failed_adds(cluster: Cluster, since: float) -> int:
    """Return how many sandboxes the nodes' containerd could not give a network since a time."""

    def on(node: Node) -> int:
        journal = ["journalctl", "--unit=containerd", f"--since=@{since:.0f}", "--output=cat", "--no-pager"]
        printed = attempt(*nodes.command(cluster.lab, node, journal), timeout=60).stdout
        return printed.count("failed to setup network for sandbox")

    with ThreadPoolExecutor(max_workers=8) as workers:
        return sum(workers.map(on, cluster.nodes))


def nothing_left(cluster: Cluster, before: dict[str, OnNode]) -> tuple[str, bool]:
    """Compare what the nodes have with what they had; containerd may need some seconds to remove the last sandbox."""

    def now() -> dict[str, dict[str, int]]:
        found = kubernetes_pods.read_all(cluster.lab, cluster.nodes)
        return {name: each.counts() for name, each in found.items()}

    expected = {name: each.counts() for name, each in before.items()}
    try:
        await_that(lambda: now() == expected, "nothing left", timeout=30, interval=2)
    except LabError:
        return f"had {expected}, has {now()}", False
    return "namespaces, OVS ports, veths, addresses, journal, sandboxes as before", True


def _nodes_ready(cluster: Cluster) -> tuple[str, bool]:
    ready = cluster.kubectl.nodes_ready()
    return ", ".join(f"{name}{'' if is_ready else ' NOT'}" for name, is_ready in ready.items()), all(
        ready.get(node.name) for node in cluster.lab.topology().nodes
    )


def _crowd_everywhere(cluster: Cluster) -> tuple[str, bool]:
    pods = cluster.kubectl.get("pods", f"--selector=app={workload.CROWD}")
    on = Counter(pod["spec"]["nodeName"] for pod in pods)
    restarts = sum(status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"])
    return f"{len(pods)} Ready on {len(on)} nodes, {restarts} restarts", len(on) == len(cluster.nodes) and not restarts


def _pod_to_pod(cluster: Cluster) -> tuple[str, bool]:
    def wanted(source: Source) -> list[tuple[Source, str]]:
        return [(pod, _client_url(f"{pod.address}:{workload.PORT}")) for pod in cluster.pods if pod != source]

    asked = right = 0
    for source, answers in _from_each(cluster, cluster.pods, lambda source: [url for _pod, url in wanted(source)]):
        for (pod, _url), answer in zip(wanted(source), answers, strict=True):
            asked += 1
            right += answer is not None and answer.split()[0] == pod.name and _client(answer) == source.address
    return f"{right} of {asked}, each from the pod's own address", right == asked > 0


def _cluster_ip(cluster: Cluster, sources: Sequence[Source], on_same: bool) -> tuple[str, bool]:
    def urls(source: Source) -> list[str]:
        chosen = [url for name, url in cluster.service_urls(workload.CLIENT_PATH) if (name == source.node) == on_same]
        return chosen * _REQUESTS

    answered = asked = own = 0
    for source, answers in _from_each(cluster, sources, urls):
        asked += len(answers)
        got = [answer for answer in answers if answer]
        answered += len(got)
        own += sum(_client(answer) == source.address for answer in got)
    return f"{answered} of {asked} answered, {own} of them saw the client's own address", answered == asked > 0


def _node_port(cluster: Cluster) -> tuple[str, bool]:
    urls = [_client_url(f"{address}:{workload.NODE_PORT}") for address in cluster.host_addresses.values()]
    return _all_answer(cluster, [url for url in urls for _ in range(2)])


def _host_port(cluster: Cluster) -> tuple[str, bool]:
    address = cluster.host_addresses[cluster.nodes[-1].name]
    return _all_answer(cluster, [_client_url(f"{address}:{workload.HOST_PORT}")] * 2)


def _all_answer(cluster: Cluster, urls: list[str]) -> tuple[str, bool]:
    sources = [*cluster.node_sources, *cluster.pods]
    answers = [answer for _source, each in _from_each(cluster, sources, lambda _source: urls) for answer in each]
    answered = sum(answer is not None for answer in answers)
    return f"{answered} of {len(answers)} answered", answered == len(answers) > 0


def _from_internet(cluster: Cluster) -> tuple[str, bool]:
    public = next(node for node in cluster.nodes if node.router is None)
    asked = [_client_url(f"{public.host}:{workload.NODE_PORT}")] * (4 * len(cluster.pods))
    answers = http_requests.ask_from_internet(cluster.lab, asked)
    backends = Counter(answer.split()[1] for answer in answers if answer)
    shares = ", ".join(f"{name}: {count}" for name, count in sorted(backends.items()))
    answered = sum(backends.values())
    everywhere = len(backends) == len(cluster.nodes)
    return f"{answered} of {len(asked)} answered, by pods of {shares}", answered == len(asked) and everywhere


def _exec_and_logs(cluster: Cluster) -> tuple[str, bool]:
    measured, holds = [], True
    for pod in _first_of_each_node(cluster.pods):
        began = time.monotonic()
        said = cluster.kubectl("exec", pod.name, "--", "cat", "/srv/index.html")
        executed = time.monotonic()
        cluster.kubectl("logs", pod.name)
        measured.append(f"{pod.node} {(executed - began) * 1000:.0f} and {(time.monotonic() - executed) * 1000:.0f} ms")
        holds = holds and said.strip() == pod.name
    return ", ".join(measured), holds


def _port_forward(cluster: Cluster) -> tuple[str, bool]:
    measured, holds = [], True
    for pod in _first_of_each_node(cluster.pods):
        began = time.monotonic()
        command = cluster.kubectl.command("port-forward", f"pod/{pod.name}", f":{workload.PORT}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as forwarding:
            assert forwarding.stdout is not None
            port = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
            source = Source("node", cluster.nodes[0].name, "127.0.0.1")
            url = f"http://127.0.0.1:{port[1] if port else 0}{workload.STATIC_PATH}"
            (answer,) = http_requests.ask(cluster.lab, source, [url])
            _end_port_forward(cluster, pod)
            forwarding.terminate()
        measured.append(f"{pod.node} {(time.monotonic() - began) * 1000:.0f} ms")
        holds = holds and answer is not None and answer.strip() == pod.name
    return ", ".join(measured), holds


def _end_port_forward(cluster: Cluster, pod: Source) -> None:
    """End kubectl in the node: nsenter, which waits for it, does not pass signals on."""
    end = ["pkill", "--full", f"port-forward pod/{pod.name} "]
    attempt(*nodes.command(cluster.lab, cluster.nodes[0], end))


def _scale_up(cluster: Cluster) -> tuple[str, bool]:
    began = time.time()
    seconds = set_crowd(cluster, CROWD)
    failed = failed_adds(cluster, began)
    pods = cluster.kubectl.get("pods", f"--selector=app={workload.CROWD}")
    addresses = Counter(pod["status"]["podIP"] for pod in pods)
    twice = [address for address, count in addresses.items() if count > 1]
    return f"all Ready after {seconds:.1f} s, {failed} failed ADDs, addresses twice: {twice or 'none'}", not twice


def _from_each(
    cluster: Cluster, sources: Sequence[Source], urls: Callable[[Source], list[str]]
) -> list[tuple[Source, list[str | None]]]:
    """Request URLs from all sources at the same time, and return each source with its answers."""
    with ThreadPoolExecutor(max_workers=12) as workers:
        answers = workers.map(lambda source: http_requests.ask(cluster.lab, source, urls(source)), sources)
        return list(zip(sources, answers, strict=True))


def _first_of_each_node(pods: Sequence[Source]) -> list[Source]:
    return list({pod.node: pod for pod in reversed(pods)}.values())[::-1]


def _client_url(authority: str) -> str:
    return f"http://{authority}{workload.CLIENT_PATH}"


def _client(answer: str) -> str:
    """Return the client's address in an answer; busybox writes an IPv4 address as [::ffff:10.0.0.1]."""
    address = ip_address(answer.split()[2].strip("[]"))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
