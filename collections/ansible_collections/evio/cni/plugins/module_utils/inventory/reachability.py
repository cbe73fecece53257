# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the nodes of a run reach each other, from what each of them has measured: a table, and whether the run may go on.

Pure. The measurements are results of the module overlay_ready_info, by the nodes' names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_IN_TABLE = 16
"""Nodes of a run whose pairs are all shown. The table of more nodes has one line for each node and silent pair."""

_DIRECT = "direct"

Measurement = Mapping[str, Any]
"""A result of overlay_ready_info, or the failure of that task: then it may have no ``peers``."""


def reachability_table(measured: Mapping[str, Measurement]) -> list[str]:
    """Return one line for each pair: source, target, path, round trip; "not measured" if no node has measured.

    With more than MOST_IN_TABLE nodes, there is a line for each node, and for each pair that does not work.
    """
    is_short = len(measured) > MOST_IN_TABLE or any(map(_is_limited, measured.values()))
    pairs = [
        (name, peer["name"], _path(peer), _answer(peer))
        for name, result in measured.items()
        for peer in result.get("peers") or ()
        if not (is_short and peer["reachable"])
    ]
    lines = [f"{name}: {_summary(result)}" for name, result in measured.items() if is_short and "answered" in result]
    if not pairs:
        return lines or ["not measured"]
    widths = [max(len(pair[column]) for pair in pairs) for column in range(4)]
    return lines + [
        f"{source:{widths[0]}} -> {target:{widths[1]}}  {path:{widths[2]}}  {answer:>{widths[3]}}"
        for source, target, path, answer in pairs
    ]


def failures(measured: Mapping[str, Measurement], alone: Mapping[str, bool]) -> dict[str, str]:
    """Return why the run may not go on, by the names of the nodes that say so.

    A node of the run that does not answer another node of the run is such a reason, and so is a node that reaches no
    other node at all, unless ``alone`` allows that. ``measured`` has the nodes that Ansible has not lost.
    """
    return {
        name: str(result.get("msg") or "the overlay was not measured")
        for name, result in measured.items()
        if "peers" not in result or _is_cut_off(result, measured, alone.get(name, False))
    }


def was_measured(result: Measurement) -> bool:
    """Whether the node has pinged at all; if not, the module itself has failed."""
    return "peers" in result


def nodes_without_outside(measured: Mapping[str, Measurement]) -> list[str]:
    """Return the nodes that reach no node outside of the run."""
    return [name for name, result in measured.items() if not result.get("reached_others")]


def _is_limited(result: Measurement) -> bool:
    """Whether the module has left out the nodes that have answered."""
    listed = sum(1 for peer in result.get("peers") or () if peer["reachable"])
    answered: Mapping[str, int] = result.get("answered") or {}
    return listed < sum(answered.values())


def _is_cut_off(result: Measurement, measured: Mapping[str, Measurement], alone: bool) -> bool:
    silent = [peer["name"] for peer in result["peers"] if not peer["reachable"]]
    reached = sum(result["answered"].values())
    return any(name in measured for name in silent) or (bool(silent) and not reached and not alone)


def _summary(result: Measurement) -> str:
    answered: Mapping[str, int] = result["answered"]
    silent = sum(1 for peer in result["peers"] if not peer["reachable"])
    ways = ", ".join(_ways(answered))
    return f"reaches {sum(answered.values())} of {sum(answered.values()) + silent}" + (f": {ways}" if ways else "")


def _ways(answered: Mapping[str, int]) -> Iterator[str]:
    for path, count in answered.items():
        if path:
            yield f"{count} {_DIRECT}" if path == _DIRECT else f"{count} by relay {path}"


def _path(peer: Mapping[str, Any]) -> str:
    if peer["path"] is None:
        return "reached" if peer["reachable"] else "no way"
    return _DIRECT if peer["path"] == _DIRECT else f"by relay {peer['path']}"


def _answer(peer: Mapping[str, Any]) -> str:
    if peer["reachable"]:
        return f"{peer['rtt_ms']:.1f} ms"
    return "NO ANSWER TO LARGE PACKETS" if peer["small_only"] else "NO ANSWER"
