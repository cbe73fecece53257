# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node with a sample of each metric, for tests; nothing in it is measured."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.evio.cni.plugins.module_utils.node.certificates import Certificate
from ansible_collections.evio.cni.plugins.module_utils.node.counters import Calls, Counters, PeerBytes
from ansible_collections.evio.cni.plugins.module_utils.node.exposition import Family
from ansible_collections.evio.cni.plugins.module_utils.node.metrics import families_of
from ansible_collections.evio.cni.plugins.module_utils.node.model import Claim, NodeStatus, Overlay, Peer, Versions
from ansible_collections.evio.cni.plugins.module_utils.node.report import NetworkStatus, PodStatus, Room
from ansible_collections.evio.cni.plugins.module_utils.node.services import Service

NOW = 1_790_000_000.0


def node_status(**changes: object) -> NodeStatus:
    """Return a node in order with one pod and three peers, and ``changes`` of its fields."""
    pod = PodStatus("0" * 64, "eth0", ("10.244.3.2/24",), "plugged in", 1420, "shop", "web-0")
    room = (Room("10.244.3.0/24", 253, 1),)
    network = NetworkStatus(
        "evio", "br-evio", ("10.244.3.1/24",), 7, None, 1, (pod,), 1420, room=room, rules="installed"
    )
    status = NodeStatus(
        time=NOW,
        hostname="node3",
        node="node3",
        cluster="kubernetes",
        versions=Versions("evio-0123", "3.11.2", "6.1.0", "3.1.0", ("1.0.0",)),
        services=(Service("evio-overlay.service", "active", True, 0),),
        overlay=overlay(
            Peer("cloud1", "10.10.0.1", "direct", "direct", 4.5, "198.51.100.1:51820", True, 12.5, 1000, 2000),
            Peer("edge1", "10.10.0.4", "relayed", "cloud1", None, None, False, 90.0, 10, 20),
            Peer("edge2", "10.10.0.5", "idle", "cloud1", None, None),
        ),
        overlay_fault=None,
        claim=Claim(("10.244.3.0/24",), 7, None),
        has_rules=True,
        networks=(network,),
        networks_fault=None,
        runtime_fault=None,
        certificates=(Certificate("/etc/evio-etcd/server.crt", "etcd", NOW - 1000, NOW + 1000),),
        errors=(),
    )
    return replace(status, **changes)  # type: ignore[arg-type]


def overlay(*peers: Peer) -> Overlay:
    return Overlay("evio0", "kernel", "10.10.0.3", 1420, False, None, 51820, 1.5, None, (), "", peers)


def counters() -> Counters:
    """Return sums of two calls, one of which failed, and the bytes of a peer."""
    calls = {verb: Calls() for verb in ("ADD", "DEL")}
    calls["ADD"] = Calls([0, 0, 1, *[0] * 10, 1, 0], 35_000_000, {"11": 1, "4711": 1})
    return Counters(calls, {"plugged": 2, "fence": 1}, {"cloud1": PeerBytes(1000, 2000, 1000, 2000)})


def example_families() -> list[Family]:
    """Return the families of this node."""
    return families_of(node_status(), counters(), 0)
