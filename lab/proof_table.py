"""The proof as a person reads it: one table of who reaches whom, then a few lines for each other thing."""

from __future__ import annotations

from itertools import combinations

from probes import Answer
from proof import Proof
from tunnels import Path


def render(proof: Proof) -> str:
    """The whole page; every line ends with a newline."""
    sections = (_table(proof), _internet(proof), _paths(proof), _mtu(proof), _wire(proof), _verdict(proof))
    return "\n".join(sections)


def _table(proof: Proof) -> str:
    names = [view.pod.name for view in proof.views]
    columns = [*names, "gateway", *(["internet"] if not proof.nodes else [])]
    lines = ["Every pod to every pod: ms of a ping's round trip, and +1M if 1 MiB over TCP came unharmed", ""]
    lines.append(f"{'from':10} {'address':14}" + "".join(f"{name:>13}" for name in columns))
    for view in proof.views:
        answers = {answer.target: answer for answer in (*view.peers, view.gateway, view.internet) if answer}
        cells = "".join(f"{_cell(answers.get(name)):>13}" for name in columns)
        lines.append(f"{view.pod.name:10} {view.pod.address:14}{cells}")
    return "\n".join(lines) + "\n"


def _cell(answer: Answer | None) -> str:
    if answer is None:
        return "·"
    rtt = "NO PING" if answer.rtt_ms is None else f"{answer.rtt_ms:.1f}"
    if answer.target == "gateway":
        return rtt
    return f"{rtt} +1M" if answer.is_body_right else f"{rtt} NO TCP"


def _internet(proof: Proof) -> str:
    if proof.nodes:
        lines = ["The internet saw nodes as (pods have no IPv6 address): ms of a ping's round trip, +1M as above"]
        for name, answer in proof.nodes.items():
            lines.append(f"  {name:10} {', '.join(proof.seen_as[name]) or 'nobody':20} {_cell(answer):>10}")
        return "\n".join(lines) + "\n"
    lines = ["The internet saw pods as"]
    for view in proof.views:
        name = view.pod.name
        lines.append(f"  {name:10} {', '.join(proof.seen_as[name]) or 'nobody':15} (of {view.pod.node}'s site)")
    return "\n".join(lines) + "\n"


def _paths(proof: Proof) -> str:
    there = {(path.source, path.target): path for path in proof.paths}
    lines = ["Tunnels between nodes"]
    for one, other in combinations(sorted({path.source for path in proof.paths}), 2):
        lines.append(f"  {one} - {other}: {_way(there[one, other])}; back: {_way(there[other, one])}")
    return "\n".join(lines) + "\n"


def _way(path: Path) -> str:
    return f"direct, to {path.endpoint}" if path.relay is None else f"relayed by {path.relay}"


def _mtu(proof: Proof) -> str:
    lines = ["Longest packet that nobody may fragment"]
    for check in proof.mtus:
        passes = "passes" if check.passes else "DOES NOT PASS"
        more = "PASSES" if check.one_more_passes else "does not"
        lines.append(f"  {check.source} - {check.target}: {check.mtu} bytes {passes}, {check.mtu + 1} {more}")
    return "\n".join(lines) + "\n"


def _wire(proof: Proof) -> str:
    wire = proof.wire
    lines = [f"On the public segment, {wire.frames} frames meanwhile ({wire.dropped} missed)"]
    for (source, destination), count in sorted(wire.encrypted_bytes.items()):
        lines.append(f"  {source} > {destination}: {count / (1 << 20):.1f} MiB encrypted")
    lines.append(f"  packets that had to be taken apart: {wire.fragments or 'none'}")
    lines.append(f"  pods' addresses, headers or contents readable: {'; '.join(wire.read) or 'none'}")
    return "\n".join(lines) + "\n"


def _verdict(proof: Proof) -> str:
    failed = [f"  NOT SO: {claim}\n" for claim in proof.failures]
    return f"{len(proof.checks) - len(failed)} of {len(proof.checks)} checks hold\n" + "".join(failed)
