"""The proof in at most 100 columns for a person: a table of who reaches whom, the other findings, what failed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from probes import Answer
from proof import Check, Proof
from tunnels import Path

_COLUMNS = 8
"""Columns of answers beside each other: six pods, the gateway and the internet fill the 100 columns of a line."""
_MOST_CLAIMS = 4
"""Failed claims that are listed for each next step; the others are counted."""


def render(proof: Proof) -> str:
    """Return the whole page; every line ends with a newline."""
    sections = (
        _reachability(proof),
        _services(proof),
        _internet(proof),
        _paths(proof),
        _mtu(proof),
        _wire(proof),
        _verdict(proof),
    )
    return "\n".join(sections)


def _reachability(proof: Proof) -> str:
    names = [view.pod.name for view in proof.views]
    columns = [*names, "gateway", *(["internet"] if not proof.nodes else [])]
    lines = ["Who reaches whom: a ping's round trip in ms; ok: 1 MiB over TCP arrived unharmed as well"]
    for first in range(0, len(columns), _COLUMNS):
        lines += ["", *_rows(proof, columns[first : first + _COLUMNS])]
    return "\n".join(lines) + "\n"


def _rows(proof: Proof, columns: list[str]) -> Iterator[str]:
    yield f"{'from':9} {'address':14}" + "".join(f"{name:>9}" for name in columns)
    for view in proof.views:
        answers = {answer.target: answer for answer in (*view.peers, view.gateway, view.internet) if answer}
        cells = "".join(f"{_cell(answers.get(name)):>9}" for name in columns)
        yield f"{view.pod.name:9} {view.pod.address:14}{cells}"


def _cell(answer: Answer | None) -> str:
    """Return eight characters at most."""
    if answer is None:
        return "·"
    if answer.target == "gateway":
        return "NO PING" if answer.rtt_ms is None else f"{answer.rtt_ms:.1f}"
    if answer.rtt_ms is None:
        return "NO PING" if answer.is_body_right else "NOTHING"
    return f"{answer.rtt_ms:.{1 if answer.rtt_ms < 1000 else 0}f} ok" if answer.is_body_right else "NO TCP"


def _services(proof: Proof) -> str:
    lines = ["Who reaches whom by a Service, an address that the client's node translates to the pod"]
    backends = [view.pod.name for view in proof.views]
    is_right = {(answer.client, answer.backend): answer.is_body_right for answer in proof.services}
    for first in range(0, len(backends), _COLUMNS):
        columns = backends[first : first + _COLUMNS]
        lines += ["", f"{'from':24}" + "".join(f"{name:>9}" for name in columns)]
        for client in dict.fromkeys(answer.client for answer in proof.services):
            cells = ("ok" if is_right[client, name] else "NOTHING" for name in columns)
            lines.append(f"{client:24}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines) + "\n"


def _internet(proof: Proof) -> str:
    if proof.nodes:
        lines = ["The internet saw nodes as (it has IPv6 and pods have not, so nodes asked it)"]
        for name, answer in proof.nodes.items():
            lines.append(f"  {name:9} {', '.join(proof.seen_as[name]) or 'no request':20} {_cell(answer):>9}")
        return "\n".join(lines) + "\n"
    lines = ["The internet saw pods as"]
    for view in proof.views:
        name = view.pod.name
        lines.append(f"  {name:9} {', '.join(proof.seen_as[name]) or 'no request':15} (site of {view.pod.node})")
    return "\n".join(lines) + "\n"


def _paths(proof: Proof) -> str:
    path_of = {(path.source, path.target): path for path in proof.paths}
    lines = ["Tunnels between nodes"]
    for one, other in combinations(sorted({path.source for path in proof.paths}), 2):
        there, back = path_of[one, other], path_of[other, one]
        lines.append(f"  {one} - {other}: {_describe(there)}; back: {_describe(back)}")
    return "\n".join(lines) + "\n"


def _describe(path: Path) -> str:
    return f"direct, to {path.endpoint}" if path.relay is None else f"relayed by {path.relay}"


def _mtu(proof: Proof) -> str:
    lines = ["Longest packet that passes without being fragmented"]
    for check in proof.mtus:
        passes = "passes" if check.passes else "DOES NOT PASS"
        more = "PASSES" if check.one_more_passes else "does not"
        lines.append(f"  {check.source} - {check.target}: {check.mtu} bytes {passes}, {check.mtu + 1} {more}")
    return "\n".join(lines) + "\n"


def _wire(proof: Proof) -> str:
    wire = proof.wire
    lines = [f"Captured meanwhile on the public segment: {wire.frames} frames ({wire.dropped} missed)"]
    for (source, destination), count in sorted(wire.encrypted_bytes.items()):
        lines.append(f"  {source} > {destination}: {count / (1 << 20):.1f} MiB encrypted")
    lines.append(f"  fragments: {wire.fragments or 'none'}")
    readable = [f"    {name}" for name in wire.readable]
    lines.append(f"  readable addresses, headers or contents of pods: {len(readable) or 'none'}")
    return "\n".join([*lines, *readable[:_MOST_CLAIMS]]) + "\n"


def _verdict(proof: Proof) -> str:
    """Say how many checks hold, and list those that failed, grouped by the command to run next."""
    checks, failures = len(proof.checks), proof.failures
    if not failures:
        return f"{checks} of {checks} checks hold\n"
    by_next_step: dict[str, list[Check]] = {}
    for check in failures:
        by_next_step.setdefault(check.next_step, []).append(check)
    lines = [f"{checks - len(failures)} of {checks} checks hold, {len(failures)} FAILED. These claims are not true:"]
    for next_step, failed in by_next_step.items():
        lines += [f"  FAILED: {check.claim}" for check in failed[:_MOST_CLAIMS]]
        if len(failed) > _MOST_CLAIMS:
            lines.append(f"  FAILED: {len(failed) - _MOST_CLAIMS} more like these")
        lines.append(f"    look at: {next_step}")
    lines.append("Is every node up, and every uplink? lab/lab status")
    return "\n".join(lines) + "\n"
