"""The proof that the pod network is what it should be: asked of pods, nodes and wire, then judged.

Nothing of it trusts what configured the lab: bodies are compared with what they must be, the internet says whom it saw,
tunnels say where they lead, and a capture of the public segment says what could be read there. Shown: proof_table.py.
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
import tunnels
from capture import Capture, Secret, Sighting, inner_header
from commands import LabError
from pods import Pod
from probes import Answer, MtuCheck, View
from state import Lab
from topology import Topology
from tunnels import Path


@dataclass(frozen=True)
class Check:
    """One thing that must hold: a sentence that says it, and whether it does."""

    claim: str
    holds: bool


@dataclass(frozen=True)
class Proof:
    """Everything that was seen, and what it had to be.

    Pods were asked about the internet or, where that is of another IP version than they are, `nodes` were. `seen_as`
    has, for each of those, the addresses the internet saw it under; `expected_as` the one that it shall be.
    """

    views: tuple[View, ...]
    nodes: dict[str, Answer]
    seen_as: dict[str, tuple[str, ...]]
    expected_as: dict[str, str]
    paths: tuple[Path, ...]
    tunnel_mtus: dict[str, int]
    mtus: tuple[MtuCheck, ...]
    wire: Sighting

    @property
    def checks(self) -> tuple[Check, ...]:
        """All that must hold."""
        return (*_reach(self), *_masquerade(self), *_mtu(self), *_wire(self))

    @property
    def failures(self) -> tuple[str, ...]:
        """The claims that do not hold."""
        return tuple(check.claim for check in self.checks if not check.holds)


def prove(lab: Lab) -> Proof:
    """Make the proof with the pods that run. Raises LabError if they are too few, or something cannot be asked."""
    topology = lab.topology()
    running = pods.running(lab)
    first_pods = _first_of_each_node(running)
    if len(first_pods) < 2:
        raise LabError("there are no pods on two nodes that could talk: run lab/lab pods up")
    log_offset = lab.internet_log.stat().st_size
    capture = Capture(lab)
    with capture:
        views = probes.ask_all(lab, running)
        nodes = probes.ask_nodes(lab, topology) if topology.version != 4 else {}
        mtus = _check_mtus(lab, views, first_pods)
    requests = internet.requests_since(lab.internet_log, log_offset)
    node_of = {name: name for name in nodes} or {pod.name: pod.node for pod in running}
    return Proof(
        views=views,
        nodes=nodes,
        seen_as={name: _clients(requests, name) for name in node_of},
        expected_as={name: topology.public_address(topology.node(node)) for name, node in node_of.items()},
        paths=_paths(lab, topology, first_pods),
        tunnel_mtus={pod.node: tunnels.mtu(lab, topology.node(pod.node)) for pod in first_pods},
        mtus=mtus,
        wire=capture.search(_secrets(running), control=internet.MARKER),
    )


def as_json(proof: Proof) -> dict[str, object]:
    """For programs."""
    seen = asdict(proof)
    seen["wire"]["encrypted_bytes"] = [
        {"source": source, "destination": destination, "bytes": count}
        for (source, destination), count in proof.wire.encrypted_bytes.items()
    ]
    return {**seen, "checks": len(proof.checks), "failures": proof.failures}


def _first_of_each_node(running: Sequence[Pod]) -> list[Pod]:
    return list({pod.node: pod for pod in reversed(running)}.values())[::-1]


def _check_mtus(lab: Lab, views: Sequence[View], first_pods: Sequence[Pod]) -> tuple[MtuCheck, ...]:
    """Each node's first pod to the next node's, round the ring."""
    mtu_of = {view.pod.name: view.mtu for view in views}
    ring = [*first_pods[1:], first_pods[0]]

    def check(source: Pod, target: Pod) -> MtuCheck:
        return probes.check_mtu(lab, source, target, mtu_of[source.name])

    with ThreadPoolExecutor(max_workers=16) as workers:
        return tuple(workers.map(check, first_pods, ring))


def _clients(requests: Sequence[dict[str, object]], name: str) -> tuple[str, ...]:
    return tuple(sorted({str(one["client"]) for one in requests if one["path"] == probes.path_for(name)}))


def _paths(lab: Lab, topology: Topology, first_pods: Sequence[Pod]) -> tuple[Path, ...]:
    """From each node to each other one; the pods' addresses stand for their nodes' subnets."""
    return tuple(
        tunnels.path(lab, topology, topology.node(source.node), topology.node(target.node), target.address)
        for source, target in permutations(first_pods, 2)
    )


def _secrets(running: Sequence[Pod]) -> Iterator[Secret]:
    for pod in running:
        yield Secret(f"what {pod.name} says", pod.marker.encode())
        yield Secret(f"the address of {pod.name} in letters", pod.address.encode())
    for source, target in permutations(running, 2):
        yield Secret(f"a packet's header, {source.name} to {target.name}", inner_header(source.address, target.address))


def _reach(proof: Proof) -> Iterator[Check]:
    asked = [(view.pod.name, answer) for view in proof.views for answer in (*view.peers, view.internet) if answer]
    for name, answer in (*asked, *proof.nodes.items()):
        yield Check(f"{name} gets a ping back from {answer.target}", answer.rtt_ms is not None)
        yield Check(f"{name} gets 1 MiB unharmed from {answer.target}", answer.is_body_right)
    for view in proof.views:
        yield Check(f"{view.pod.name} gets a ping back from its gateway", view.gateway.rtt_ms is not None)


def _masquerade(proof: Proof) -> Iterator[Check]:
    for name, seen in proof.seen_as.items():
        expected = proof.expected_as[name]
        found = ", ".join(seen) or "nobody"
        yield Check(f"the internet sees {name} as {expected} (it saw {found})", seen == (expected,))


def _mtu(proof: Proof) -> Iterator[Check]:
    for check in proof.mtus:
        way = f"from {check.source} to {check.target}"
        yield Check(f"a packet of {check.mtu} bytes passes {way}", check.passes)
        yield Check(f"a packet of {check.mtu + 1} bytes does not pass {way}", not check.one_more_passes)
    for view in proof.views:
        tunnel = proof.tunnel_mtus[view.pod.node]
        yield Check(f"the MTU of {view.pod.name}, {view.mtu}, is its tunnel's, {tunnel}", view.mtu == tunnel)


def _wire(proof: Proof) -> Iterator[Check]:
    wire = proof.wire
    read = "; ".join(wire.read[:3])
    strangers = ", ".join(wire.strangers)
    yield Check("the capture can be read: what the internet served is in it", wire.control_read)
    yield Check(f"nothing of the pods is readable on the public segment (found: {read})", not wire.read)
    yield Check(f"only public addresses are on the public segment (found: {strangers})", not wire.strangers)
    yield Check(f"no packet on the public segment had to be taken apart ({wire.fragments} were)", not wire.fragments)
    nodes_of = Counter(view.pod.node for view in proof.views)
    between_nodes = sum(count * (len(proof.views) - count) for count in nodes_of.values())
    expected, seen = between_nodes * internet.BODY_BYTES, sum(wire.encrypted_bytes.values())
    yield Check(f"{expected} bytes went from node to node, and {seen} encrypted ones were captured", seen >= expected)
