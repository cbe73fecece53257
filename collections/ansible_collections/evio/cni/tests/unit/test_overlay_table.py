# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The table of who reaches whom: which pair failed, and which way it goes."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.evio.cni.plugins.filter.overlay_table import overlay_table


def host(name: str, *peers: dict[str, Any]) -> dict[str, Any]:
    return {"inventory_hostname": name, "__evio_reachability": {"peers": list(peers)}}


def peer(name: str, path: str | None, rtt_ms: float | None, *, small_only: bool = False) -> dict[str, Any]:
    return {"name": name, "path": path, "rtt_ms": rtt_ms, "reachable": rtt_ms is not None, "small_only": small_only}


def test_pairs_that_fail_stand_beside_those_that_do_not_with_their_ways() -> None:
    hosts = [
        host("node1", peer("node2", "direct", 0.84), peer("node10", "node3", 12.0)),
        host("node2", peer("node1", "direct", None, small_only=True), peer("node10", "node3", None)),
        host("node10", peer("node1", None, 3.5), peer("node2", None, None)),
    ]
    assert [re.split(r" *-> | {2,}", line) for line in overlay_table(hosts)] == [
        ["node1", "node2", "direct", "0.8 ms"],
        ["node1", "node10", "by relay node3", "12.0 ms"],
        ["node2", "node1", "direct", "NO ANSWER TO LARGE PACKETS"],
        ["node2", "node10", "by relay node3", "NO ANSWER"],
        ["node10", "node1", "reached", "3.5 ms"],
        ["node10", "node2", "no way", "NO ANSWER"],
    ]


def test_nothing_was_measured_where_there_is_no_overlay_yet() -> None:
    assert overlay_table([host("node1"), {"inventory_hostname": "node2"}]) == ["not measured"]
