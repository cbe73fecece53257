# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run of bootstrap.yml ends with one line a node."""

from __future__ import annotations

from typing import Any

from ansible_collections.evio.cni.plugins.filter.bootstrap_summary import bootstrap_summary


def host(name: str, *paths: str | None, **changes: Any) -> dict[str, Any]:
    peers = [{"name": str(number), "reachable": path is not None, "path": path} for number, path in enumerate(paths)]
    return {
        "inventory_hostname": name,
        "__evio_overlay_address": "10.10.0.1",
        "__evio_overlay_mtu": 1420,
        "__evio_node_subnet": {"cidrs": ["10.244.0.0/24"]},
        "__evio_reachability": {"peers": peers},
        **changes,
    }


def test_each_node_has_one_line() -> None:
    hosts = [
        host("node1", "direct", "direct"),
        host("edge-2", "direct", "node1"),
        host("edge3", "direct", None),
        host("signalling", __evio_node_subnet=None, __evio_reachability={}),
        {"inventory_hostname": "lost", "evio_host_overlay_address": "10.10.0.9"},
    ]
    assert bootstrap_summary(hosts, ["node1", "edge-2", "edge3", "signalling"]) == [
        "node1       10.10.0.1  pods 10.244.0.0/24, MTU 1420           reaches 2 of 2 nodes (2 direct)",
        "edge-2      10.10.0.1  pods 10.244.0.0/24, MTU 1420           reaches 2 of 2 nodes (1 direct, 1 by a relay)",
        "edge3       10.10.0.1  pods 10.244.0.0/24, MTU 1420           reaches 1 of 2 nodes (1 direct)",
        "signalling  10.10.0.1  no pod network",
        "lost        10.10.0.9  NOT FINISHED: look for its name above",
    ]


def test_run_without_hosts_has_no_line() -> None:
    assert bootstrap_summary([], []) == []
