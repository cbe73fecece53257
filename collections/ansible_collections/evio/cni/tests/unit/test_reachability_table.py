# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who reaches whom: which pair failed, which way it goes, and which failures end the run."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.evio.cni.plugins.module_utils.inventory.reachability import (
    MOST_IN_TABLE,
    failures,
    nodes_without_outside,
    reachability_table,
)


def result(*peers: dict[str, Any], answered: dict[str, int] | None = None, msg: str = "") -> dict[str, Any]:
    reached = sum(peer["reachable"] for peer in peers)
    return {"peers": list(peers), "answered": answered if answered is not None else {"direct": reached}, "msg": msg}


def peer(name: str, path: str | None, rtt_ms: float | None, *, small_only: bool = False) -> dict[str, Any]:
    return {"name": name, "path": path, "rtt_ms": rtt_ms, "reachable": rtt_ms is not None, "small_only": small_only}


def test_pairs_that_fail_stand_beside_those_that_do_not_with_their_ways() -> None:
    measured = {
        "node1": result(peer("node2", "direct", 0.84), peer("node10", "node3", 12.0)),
        "node2": result(peer("node1", "direct", None, small_only=True), peer("node10", "node3", None)),
        "node10": result(peer("node1", None, 3.5), peer("node2", None, None)),
    }
    assert [re.split(r" *-> | {2,}", line) for line in reachability_table(measured)] == [
        ["node1", "node2", "direct", "0.8 ms"],
        ["node1", "node10", "by relay node3", "12.0 ms"],
        ["node2", "node1", "direct", "NO ANSWER TO LARGE PACKETS"],
        ["node2", "node10", "by relay node3", "NO ANSWER"],
        ["node10", "node1", "reached", "3.5 ms"],
        ["node10", "node2", "no way", "NO ANSWER"],
    ]


def test_nothing_was_measured_where_there_is_no_overlay_yet() -> None:
    assert reachability_table({"node1": result(), "node2": {}}) == ["not measured"]


def test_many_nodes_get_a_line_each_and_a_line_for_each_silent_pair() -> None:
    names = [f"node{number}" for number in range(MOST_IN_TABLE + 1)]
    measured = {name: result(answered={"direct": 12, "node3": 4}) for name in names}
    measured["node5"] = result(peer("node9", None, None), answered={"": 15})
    table = reachability_table(measured)
    assert len(table) == len(names) + 1
    assert table[0] == "node0: reaches 16 of 16: 12 direct, 4 by relay node3"
    assert table[5] == "node5: reaches 15 of 16"
    assert table[-1].split() == ["node5", "->", "node9", "no", "way", "NO", "ANSWER"]


def test_nodes_that_the_module_has_left_out_are_counted() -> None:
    assert reachability_table({"node1": result(answered={"direct": 799})}) == ["node1: reaches 799 of 799: 799 direct"]


def test_only_nodes_of_the_run_end_it_and_a_node_that_reaches_nobody() -> None:
    silent, heard = peer("node2", None, None), peer("node3", "direct", 1.0)
    outside = {"node1": result(silent, heard, msg="node2 is silent")}
    assert failures(outside, {}) == {}
    assert failures({**outside, "node2": result(heard)}, {}) == {"node1": "node2 is silent"}
    nobody = {"node1": result(silent, msg="node1 reaches none")}
    assert failures(nobody, {}) == {"node1": "node1 reaches none"}
    assert failures(nobody, {"node1": True}) == {}
    assert failures({"node1": result()}, {}) == {}


def test_node_that_could_not_measure_ends_the_run_with_its_error() -> None:
    assert failures({"node1": {"msg": "no such device"}, "node2": {}}, {}) == {
        "node1": "no such device",
        "node2": "the overlay was not measured",
    }


def test_new_nodes_are_those_that_reach_nobody_outside() -> None:
    assert nodes_without_outside({"a": {"reached_others": 0}, "b": {"reached_others": 2}, "c": {}}) == ["a", "c"]
