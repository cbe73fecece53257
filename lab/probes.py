"""Probes from inside pods and nodes: pings, bodies of 1 MiB over TCP, and packets that must not be fragmented.

Pods have IPv4 addresses only; if the internet has IPv6, nodes probe it instead. proof.py says what the answers must be.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import internet
import nodes
import pods
from commands import LabError, attempt
from cri import ExecResult
from pods import Pod
from state import Lab
from topology import Node, Topology

_BODY_TIMEOUT = 20
"""Seconds for one body of 1 MiB, while all others are transferred at the same time."""
_IP_AND_ICMP_HEADERS = 28

_INTERNET_BODY_SHA256 = hashlib.sha256(internet.body(internet.MARKER)).hexdigest()

# Each prints a line for each target: its name, then the mean round trip in ms or the SHA-256 of the body, or - if there
# was no answer. Bodies are fetched after all pings, because transfers would lengthen the round trips.
_PING_SCRIPT = """\
ask() {{
    rtt=$(ping -c 3 -i 0.2 -W 2 -q "$2" | sed -n 's,^round-trip.*= [0-9.]*/\\([0-9.]*\\)/.*,\\1,p')
    echo "$1 ${{rtt:--}}"
}}
{ask_lines}
ask gateway "$(ip route | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p')" &
wait
echo "mtu $(cat /sys/class/net/eth0/mtu)"
"""
_BODY_SCRIPT = """\
ask() {{
    body=$(timeout {timeout} wget -q -O - "$2" | sha256sum | cut -c 1-64)
    echo "$1 ${{body:--}}"
}}
{ask_lines}
wait
"""

_FETCH = """\
import hashlib, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])) as answer:
    print(hashlib.sha256(answer.read()).hexdigest())
"""


@dataclass(frozen=True)
class Answer:
    """What one target answered: a ping's round trip in ms (None: no answer), and whether its 1 MiB came unharmed.

    A gateway serves no body.
    """

    target: str
    rtt_ms: float | None
    is_body_right: bool


@dataclass(frozen=True)
class View:
    """The answers that one pod got, and the MTU of its eth0 in bytes; `internet` is None if it was not probed."""

    pod: Pod
    peers: tuple[Answer, ...]
    gateway: Answer
    internet: Answer | None
    mtu: int


@dataclass(frozen=True)
class ServiceAnswer:
    """Whether `client`, a pod or a node, got 1 MiB unharmed from the Service at `address`, whose pod is `backend`."""

    client: str
    node: str
    """The client's node, or the client itself."""
    backend: str
    address: str
    is_body_right: bool


@dataclass(frozen=True)
class MtuCheck:
    """Whether unfragmented packets pass between two pods: packets of `mtu` bytes, and of one byte more."""

    source: str
    target: str
    mtu: int
    passes: bool
    one_more_passes: bool


def ask_all(lab: Lab, running: Sequence[Pod]) -> tuple[View, ...]:
    """Probe from every pod every other pod, the gateway, and an IPv4 internet; all pods do so at the same time."""
    topology = lab.topology()
    internet_address = topology.internet_address if topology.version == 4 else None
    with ThreadPoolExecutor(max_workers=32) as workers:
        pinged = list(workers.map(lambda pod: _ping(lab, pod, running, internet_address), running))
        fetched = list(workers.map(lambda pod: _fetch(lab, pod, running, internet_address), running))
    return tuple(_view(*seen, running) for seen in zip(running, pinged, fetched, strict=True))


def ask_nodes(lab: Lab, topology: Topology) -> dict[str, Answer]:
    """Probe the internet from every node; return the answers by the nodes' names."""
    with ThreadPoolExecutor(max_workers=16) as workers:
        answers = workers.map(lambda node: _ask_node(lab, node, topology.internet_address), topology.nodes)
        return {node.name: answer for node, answer in zip(topology.nodes, answers, strict=True)}


def ask_services(
    lab: Lab, topology: Topology, running: Sequence[Pod], services: Mapping[str, str]
) -> tuple[ServiceAnswer, ...]:
    """Ask from every pod and from every node the Service of every pod; `services` has addresses by the pods' names."""
    with ThreadPoolExecutor(max_workers=16) as workers:
        of_pods = workers.map(lambda pod: _ask_services_from_pod(lab, pod, running, services), running)
        of_nodes = workers.map(lambda node: _ask_services_from_node(lab, node, running, services), topology.nodes)
        return tuple(answer for answers in (*of_pods, *of_nodes) for answer in answers)


def check_mtu(lab: Lab, source: Pod, target: Pod, mtu: int) -> MtuCheck:
    """Ping from one pod to another with the don't-fragment bit (RFC 791).

    The node's ping is used, because the pod's busybox cannot set the bit.
    """
    node = lab.topology().node(source.node)

    def passes(size: int) -> bool:
        ping = ["ping", "-M", "do", "-c", "2", "-i", "0.2", "-W", "2", "-s", str(size - _IP_AND_ICMP_HEADERS)]
        in_pod = ["nsenter", f"--net=/proc/{source.pid}/ns/net", *ping, target.address]
        return attempt(*nodes.command(lab, node, in_pod)).returncode == 0

    return MtuCheck(source.name, target.name, mtu, passes(mtu), passes(mtu + 1))


def path_for(name: str) -> str:
    """Return the path that a pod or node requests from the internet, whose log then shows who requested it."""
    return f"/body?{name}"


def _ask_node(lab: Lab, node: Node, internet_address: str) -> Answer:
    ping = attempt(*nodes.command(lab, node, ["ping", "-c", "3", "-i", "0.2", "-W", "2", "-q", internet_address]))
    rtt = re.search(r" = [0-9.]+/([0-9.]+)/", ping.stdout)
    url = f"http://[{internet_address}]{path_for(node.name)}"
    fetch = attempt(*nodes.command(lab, node, ["python3", "-c", _FETCH, url, str(_BODY_TIMEOUT)]))
    return Answer("internet", float(rtt[1]) if rtt else None, fetch.stdout.strip() == _INTERNET_BODY_SHA256)


def _ask_services_from_pod(
    lab: Lab, pod: Pod, running: Sequence[Pod], services: Mapping[str, str]
) -> list[ServiceAnswer]:
    targets = {peer.name: f"http://{services[peer.name]}/body" for peer in running}
    done = _ask(lab, pod, _BODY_SCRIPT.format(ask_lines=_ask_lines(targets), timeout=_BODY_TIMEOUT))
    sums = _parse(pod, done, {*targets})
    return [
        ServiceAnswer(pod.name, pod.node, peer.name, services[peer.name], sums[peer.name] == peer.body_sha256)
        for peer in running
    ]


def _ask_services_from_node(
    lab: Lab, node: Node, running: Sequence[Pod], services: Mapping[str, str]
) -> list[ServiceAnswer]:
    answers = []
    for pod in running:
        url = f"http://{services[pod.name]}/body"
        fetch = attempt(*nodes.command(lab, node, ["python3", "-c", _FETCH, url, str(_BODY_TIMEOUT)]))
        is_right = fetch.stdout.strip() == pod.body_sha256
        answers.append(ServiceAnswer(node.name, node.name, pod.name, services[pod.name], is_right))
    return answers


def _ping(lab: Lab, pod: Pod, running: Sequence[Pod], internet_address: str | None) -> dict[str, str]:
    targets = {peer.name: peer.address for peer in running if peer != pod}
    if internet_address:
        targets["internet"] = internet_address
    done = _ask(lab, pod, _PING_SCRIPT.format(ask_lines=_ask_lines(targets)))
    return _parse(pod, done, {*targets, "gateway", "mtu"})


def _fetch(lab: Lab, pod: Pod, running: Sequence[Pod], internet_address: str | None) -> dict[str, str]:
    targets = {peer.name: f"http://{peer.address}:{pods.PORT}/body" for peer in running if peer != pod}
    if internet_address:
        targets["internet"] = f"http://{internet_address}{path_for(pod.name)}"
    done = _ask(lab, pod, _BODY_SCRIPT.format(ask_lines=_ask_lines(targets), timeout=_BODY_TIMEOUT))
    return _parse(pod, done, {*targets})


def _ask_lines(targets: dict[str, str]) -> str:
    return "\n".join(f"ask {name} '{target}' &" for name, target in targets.items())


def _ask(lab: Lab, pod: Pod, script: str) -> ExecResult:
    with pods.runtime(lab, lab.topology().node(pod.node)) as runtime:
        return runtime.execute(pod.container_id, ["/bin/sh", "-c", script], timeout=2 * _BODY_TIMEOUT)


def _parse(pod: Pod, done: ExecResult, targets: set[str]) -> dict[str, str]:
    """Return the answer of each target as the pod printed it. Raises LabError if one is missing."""
    answers = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    if answers.keys() != targets:
        raise LabError(f"{pod.name}: the probe in the pod failed (exit {done.exit_code}): {done.stderr.strip()}")
    return answers


def _view(pod: Pod, pinged: dict[str, str], fetched: dict[str, str], running: Sequence[Pod]) -> View:
    def answer(target: str, sha256: str) -> Answer:
        rtt = pinged[target]
        return Answer(target, None if rtt == "-" else float(rtt), fetched.get(target) == sha256)

    return View(
        pod=pod,
        peers=tuple(answer(peer.name, peer.body_sha256) for peer in running if peer != pod),
        gateway=answer("gateway", ""),
        internet=answer("internet", _INTERNET_BODY_SHA256) if "internet" in pinged else None,
        mtu=int(pinged["mtu"]),
    )
