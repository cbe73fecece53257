"""The proof that the pod network works: ask pods, nodes and the wire, compare with what must be, list what differs.

Nothing is taken from what configured the lab: pods' answers are compared with calculated bodies, the internet host says
which addresses it saw, WireGuard says where its tunnels lead, and a capture of the public segment shows what was
readable there. proof_table.py prints it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import permutations

import internet
import pods
import probes
import services
import tunnels
from capture import Capture, CaptureFindings, Secret, inner_header
from commands import LabError
from pods import Pod
from probes import Answer, MtuCheck, ServiceAnswer, View
from state import Lab
from topology import Topology
from tunnels import Path


@dataclass(frozen=True)
class Check:
    """One thing that must hold: a claim in words, whether it holds, and the command to run next if it does not."""

    claim: str
    holds: bool
    next_step: str


@dataclass(frozen=True)
class Proof:
    """Everything that was seen, and what was expected.

    Pods were asked about the internet; where the internet has another IP version than pods, `nodes` were asked instead.
    `seen_as` has, for each pod or node that was asked, the addresses under which the internet saw it; `expected_as` has
    the one address under which the internet must see it. `services` has the answers of Services, each with one pod as
    its backend. `wire` is what was captured on the public segment.
    """

    views: tuple[View, ...]
    nodes: dict[str, Answer]
    services: tuple[ServiceAnswer, ...]
    seen_as: dict[str, tuple[str, ...]]
    expected_as: dict[str, str]
    paths: tuple[Path, ...]
    tunnel_mtus: dict[str, int]
    mtus: tuple[MtuCheck, ...]
    wire: CaptureFindings

    @property
    def checks(self) -> tuple[Check, ...]:
        """All that must hold."""
        return (*_reachability(self), *_services(self), *_masquerade(self), *_mtu(self), *_encryption(self))

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.holds)


def prove(lab: Lab) -> Proof:
    """Make the proof with the running pods. Raises LabError without pods on two nodes, or if a pod does not answer."""
    topology = lab.topology()
    running = pods.running(lab)
    first_pods = _first_of_each_node(running)
    if len(first_pods) < 2:
        raise LabError("the proof needs pods on two nodes: run lab/lab pods up")
    log_offset = lab.internet_log.stat().st_size
    capture = Capture(lab)
    with capture:
        views = probes.ask_all(lab, running)
        nodes = probes.ask_nodes(lab, topology) if topology.version != 4 else {}
        with services.translated(lab, running) as addresses:
            service_answers = probes.ask_services(lab, topology, running, addresses)
        mtus = _check_mtus(lab, views, first_pods)
    requests = internet.requests_since(lab.internet_log, log_offset)
    node_of = {name: name for name in nodes} or {pod.name: pod.node for pod in running}
    return Proof(
        views=views,
        nodes=nodes,
        services=service_answers,
        seen_as={name: _clients(requests, name) for name in node_of},
        expected_as={name: topology.public_address(topology.node(node)) for name, node in node_of.items()},
        paths=_paths(lab, topology, first_pods),
        tunnel_mtus={pod.node: tunnels.mtu(lab, topology.node(pod.node)) for pod in first_pods},
        mtus=mtus,
        wire=capture.search(_secrets(running), control=internet.MARKER),
    )


def as_json(proof: Proof) -> dict[str, object]:
    """Return what was seen, the number of checks, and the claims that do not hold."""
    seen = asdict(proof)
    seen["wire"]["encrypted_bytes"] = [
        {"source": source, "destination": destination, "bytes": count}
        for (source, destination), count in proof.wire.encrypted_bytes.items()
    ]
    return {**seen, "checks": len(proof.checks), "failures": [check.claim for check in proof.failures]}


def _first_of_each_node(running: Sequence[Pod]) -> list[Pod]:
    return list({pod.node: pod for pod in reversed(running)}.values())[::-1]


def _check_mtus(lab: Lab, views: Sequence[View], first_pods: Sequence[Pod]) -> tuple[MtuCheck, ...]:
    """Check from each node's first pod to the next node's, and from the last to the first."""
    mtu_of = {view.pod.name: view.mtu for view in views}
    targets = [*first_pods[1:], first_pods[0]]

    def check(source: Pod, target: Pod) -> MtuCheck:
        return probes.check_mtu(lab, source, target, mtu_of[source.name])

    with ThreadPoolExecutor(max_workers=16) as workers:
        return tuple(workers.map(check, first_pods, targets))


def _clients(requests: Sequence[dict[str, object]], name: str) -> tuple[str, ...]:
    path = probes.path_for(name)
    return tuple(sorted({str(request["client"]) for request in requests if request["path"] == path}))


def _paths(lab: Lab, topology: Topology, first_pods: Sequence[Pod]) -> tuple[Path, ...]:
    """Return the path from each node to each other; a pod's address stands for its node's subnet."""
    return tuple(
        tunnels.path(lab, topology, topology.node(source.node), topology.node(target.node), target.address)
        for source, target in permutations(first_pods, 2)
    )


def _secrets(running: Sequence[Pod]) -> Iterator[Secret]:
    for pod in running:
        yield Secret(f"what {pod.name} serves", pod.marker.encode())
        yield Secret(f"the address of {pod.name} in letters", pod.address.encode())
    for source, target in permutations(running, 2):
        yield Secret(f"a packet's header, {source.name} to {target.name}", inner_header(source.address, target.address))


def _reachability(proof: Proof) -> Iterator[Check]:
    node_of = {view.pod.name: view.pod.node for view in proof.views}
    for view in proof.views:
        pod = view.pod
        explain = f"lab/lab ssh {pod.node} /opt/cni/bin/evio explain {pod.address}"
        for answer in view.peers:
            tunnel = f"lab/lab ssh {pod.node} wg show {tunnels.INTERFACE}"
            yield from _answered(pod.name, answer, explain if node_of[answer.target] == pod.node else tunnel)
        if view.internet:
            yield from _answered(pod.name, view.internet, _show_masquerade(pod.node))
        yield Check(f"{pod.name} gets a ping back from its gateway", view.gateway.rtt_ms is not None, explain)
    for name, answer in proof.nodes.items():
        yield from _answered(name, answer, "lab/lab status")


def _services(proof: Proof) -> Iterator[Check]:
    address_of = {view.pod.name: view.pod.address for view in proof.views}
    for answer in proof.services:
        show = (
            f"lab/lab ssh {answer.node} ip route get {answer.address}"
            if answer.client == answer.node
            else f"lab/lab ssh {answer.node} /opt/cni/bin/evio explain {address_of[answer.client]}"
        )
        claim = f"{answer.client} gets 1 MiB unharmed from the Service of {answer.backend}, {answer.address}"
        yield Check(claim, answer.is_body_right, show)


def _answered(name: str, answer: Answer, next_step: str) -> Iterator[Check]:
    yield Check(f"{name} gets a ping back from {answer.target}", answer.rtt_ms is not None, next_step)
    yield Check(f"{name} gets 1 MiB unharmed from {answer.target}", answer.is_body_right, next_step)


def _masquerade(proof: Proof) -> Iterator[Check]:
    node_of = {view.pod.name: view.pod.node for view in proof.views}
    for name, seen in proof.seen_as.items():
        expected = proof.expected_as[name]
        claim = f"the internet sees {name} as {expected} (it saw {', '.join(seen) or 'no request'})"
        yield Check(claim, seen == (expected,), _show_masquerade(node_of.get(name, name)))


def _show_masquerade(node: str) -> str:
    return f"lab/lab ssh {node} nft list table inet evio_cni"


def _mtu(proof: Proof) -> Iterator[Check]:
    node_of = {view.pod.name: view.pod.node for view in proof.views}
    for check in proof.mtus:
        pair = f"from {check.source} to {check.target}"
        show = f"lab/lab ssh {node_of[check.source]} ip route get {_address(proof, check.target)}"
        yield Check(f"a packet of {check.mtu} bytes passes {pair}", check.passes, show)
        yield Check(f"a packet of {check.mtu + 1} bytes does not pass {pair}", not check.one_more_passes, show)
    for view in proof.views:
        tunnel, node = proof.tunnel_mtus[view.pod.node], view.pod.node
        claim = f"the MTU of {view.pod.name}, {view.mtu}, is its tunnel's, {tunnel}"
        yield Check(claim, view.mtu == tunnel, f"lab/lab ssh {node} grep mtu /etc/cni/net.d/10-evio.conflist")


def _address(proof: Proof, name: str) -> str:
    return next(view.pod.address for view in proof.views if view.pod.name == name)


def _encryption(proof: Proof) -> Iterator[Check]:
    wire = proof.wire
    readable, foreign = "; ".join(wire.readable[:3]), ", ".join(wire.foreign_addresses)
    show = "tcpdump -nr lab/.state/prove.pcap"
    yield Check("the capture can be read: what the internet served is in it", wire.is_control_found, show)
    yield Check(f"nothing of the pods is readable on the public segment (found: {readable})", not wire.readable, show)
    claim = f"only public addresses are on the public segment (found: {foreign})"
    yield Check(claim, not wire.foreign_addresses, show)
    claim = f"no packet on the public segment is a fragment (found: {wire.fragments})"
    yield Check(claim, not wire.fragments, show)
    pods_on = Counter(view.pod.node for view in proof.views)
    between_nodes = sum(count * (len(proof.views) - count) for count in pods_on.values())
    expected, seen = between_nodes * internet.BODY_BYTES, sum(wire.encrypted_bytes.values())
    claim = f"{expected} bytes that went from node to node were encrypted (found: {seen} encrypted bytes)"
    yield Check(claim, seen >= expected, show)
