"""The rows of the proof of Kubernetes in which nothing breaks: what nodes, pods, kubectl and the internet reach."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import http_requests
import kubernetes_workload as workload
import nodes
import udp_requests
from commands import attempt
from http_requests import Source
from kubernetes_cluster import Cluster
from rows import Row, measure

_REQUESTS = 4
"""Requests from each source to each Service: kube-proxy chooses one of two backends for each."""


def prove(cluster: Cluster) -> Iterator[Row]:
    """Yield the rows."""
    yield measure("nodes Ready", lambda: _nodes_ready(cluster))
    yield measure("Deployment over all nodes, with probes", lambda: _crowd_everywhere(cluster))
    yield measure("pod to pod, on all ways", lambda: pod_to_pod(cluster))
    for what, sources in (("node", cluster.node_sources), ("pod", cluster.pods)):
        for where, on_same in (("the same node", True), ("other nodes", False)):
            subject = f"ClusterIP from every {what} to {where}"
            yield measure(subject, lambda sources=sources, on_same=on_same: _cluster_ip(cluster, sources, on_same))  # type: ignore[misc]
    for where, on_same in (("the same node", True), ("other nodes", False)):
        subject = f"ClusterIP by UDP from nodes and pods to {where}"
        yield measure(subject, lambda on_same=on_same: _cluster_ip_udp(cluster, on_same))  # type: ignore[misc]
    yield measure("NodePort of every node, from nodes and pods", lambda: _node_port(cluster))
    yield measure("NodePort from the internet", lambda: _from_internet(cluster))
    yield measure("hostPort, from nodes and pods", lambda: _host_port(cluster))
    yield measure("kubectl exec and logs, a pod of each node", lambda: _exec_and_logs(cluster))
    yield measure("kubectl port-forward, a pod of each node", lambda: _port_forward(cluster))
    row = Row("DNS", "no image of CoreDNS: Debian has no package of it", None)
    print(row.text, flush=True)
    yield row


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


def pod_to_pod(cluster: Cluster) -> tuple[str, bool]:
    """Let every pod of the web servers ask every other, and compare the addresses that they see."""

    def wanted(source: Source) -> list[tuple[Source, str]]:
        return [(pod, _client_url(f"{pod.address}:{workload.PORT}")) for pod in cluster.pods if pod != source]

    asked = right = 0

    def ask(source: Source) -> list[str | None]:
        return http_requests.ask(cluster.lab, source, [url for _pod, url in wanted(source)])

    asked = right = 0
    for source, answers in _from_each(cluster.pods, ask):
        for (pod, _url), answer in zip(wanted(source), answers, strict=True):
            asked += 1
            right += answer is not None and answer.split()[0] == pod.name and _client(answer) == source.address
    return f"{right} of {asked}, each from the pod's own address", right == asked > 0


def _cluster_ip(cluster: Cluster, sources: Sequence[Source], on_same: bool) -> tuple[str, bool]:
    """Let sources ask the Services of their own node, or those of the others."""

    def ask(source: Source) -> list[str | None]:
        chosen = [url for name, url in cluster.service_urls(workload.CLIENT_PATH) if (name == source.node) == on_same]
        return http_requests.ask(cluster.lab, source, chosen * _REQUESTS)

    return _from_services(_from_each(sources, ask), on_same)


def _cluster_ip_udp(cluster: Cluster, on_same: bool) -> tuple[str, bool]:
    """Let nodes and pods ask Services by UDP; each request is one packet, and its answer another."""

    def ask(source: Source) -> list[str | None]:
        chosen = [
            (cluster.services[workload.service(node.name)], workload.UDP_PORT)
            for node in cluster.nodes
            if (node.name == source.node) == on_same
        ]
        return udp_requests.ask(cluster.lab, source, chosen * _REQUESTS)

    with udp_requests.servers(cluster.lab, cluster.pods, workload.UDP_PORT):
        asked = _from_each([*cluster.node_sources, *cluster.pods], ask)
    return _from_services(asked, on_same)


def _from_services(asked: list[tuple[Source, list[str | None]]], on_same: bool) -> tuple[str, bool]:
    """Judge the answers of Services: all must have come, and a pod that answers another pod must see its address.

    kube-proxy hides the address of a pod that it sends to itself, and a node asks its own pods from their gateway.
    """
    answered = wanted = kept = of_others = hidden = 0
    for source, answers in asked:
        got = [answer for answer in answers if answer]
        wanted, answered = wanted + len(answers), answered + len(got)
        others = [answer for answer in got if answer.split()[0] != source.name]
        of_others += len(others)
        of_source = sum(_client(answer) == source.address for answer in others)
        kept += of_source
        if source.netns or not on_same:
            hidden += len(others) - of_source
    text = f"{answered} of {wanted} answered, the client's address was kept in {kept} of {of_others}"
    return text, answered == wanted > 0 and not hidden


def _node_port(cluster: Cluster) -> tuple[str, bool]:
    urls = [_client_url(f"{address}:{workload.NODE_PORT}") for address in cluster.host_addresses.values()]
    return _all_answer(cluster, [url for url in urls for _ in range(2)])


def _host_port(cluster: Cluster) -> tuple[str, bool]:
    address = cluster.host_addresses[cluster.nodes[-1].name]
    return _all_answer(cluster, [_client_url(f"{address}:{workload.HOST_PORT}")] * 2)


def _all_answer(cluster: Cluster, urls: list[str]) -> tuple[str, bool]:
    sources = [*cluster.node_sources, *cluster.pods]
    asked = _from_each(sources, lambda source: http_requests.ask(cluster.lab, source, urls))
    answers = [answer for _source, each in asked for answer in each]
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


def _from_each(
    sources: Sequence[Source], ask: Callable[[Source], list[str | None]]
) -> list[tuple[Source, list[str | None]]]:
    """Let all sources ask at the same time, and return each with its answers."""
    with ThreadPoolExecutor(max_workers=12) as workers:
        return list(zip(sources, workers.map(ask, sources), strict=True))


def _first_of_each_node(pods: Sequence[Source]) -> list[Source]:
    return list({pod.node: pod for pod in reversed(pods)}.values())[::-1]


def _client_url(authority: str) -> str:
    return f"http://{authority}{workload.CLIENT_PATH}"


def _client(answer: str) -> str:
    """Return the client's address in an answer; busybox writes an IPv4 address as [::ffff:10.0.0.1]."""
    address = ip_address(answer.split()[2].strip("[]"))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
