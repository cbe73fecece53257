# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the nodes of a run must know of each other, found out once for all of them."""

from __future__ import annotations

import json
from dataclasses import replace

from ansible_collections.evio.cni.plugins.module_utils.inventory.overlay import OverlayNode, describe_nodes
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import (
    PodRoutes,
    digest_of_pod_routes,
    render_pod_routes,
)

RELAY = OverlayNode("node1", "10.10.0.1", "198.51.100.11", has_told_key=True, public_key="key1", measured_mtu=1420)
CLAIMED = OverlayNode("node2", "10.10.0.2", has_told_key=True, public_key="key2", measured_mtu=1392, cidrs=("a", "b"))
OUTSIDE = OverlayNode("node3", "10.10.0.3", edgevpn_id="f" * 32)
NODES = (RELAY, CLAIMED, OUTSIDE)


def test_nodes_outside_of_the_run_are_members_that_stay_as_they_are() -> None:
    found = describe_nodes(NODES, ["node1", "node2"], {})
    assert json.loads(found["addresses"]) == {"node1": "10.10.0.1", "node2": "10.10.0.2", "node3": "10.10.0.3"}
    assert (found["outside"], found["unasked"], found["relays"]) == (["node3"], "node3", ["198.51.100.11"])
    assert json.loads(found["members"]) == [
        {"name": "node1", "address": "10.10.0.1", "public_key": "key1", "endpoint": "198.51.100.11"},
        {"name": "node2", "address": "10.10.0.2", "public_key": "key2", "endpoint": None},
    ]
    assert json.loads(found["edgevpn_ids"]) == {"node1": "", "node2": "", "node3": "f" * 32}


def test_key_that_check_mode_would_make_is_a_member_without_key() -> None:
    pending = OverlayNode("node4", "10.10.0.4", has_told_key=True)
    found = describe_nodes([pending], ["node4"], {})
    assert [member["public_key"] for member in json.loads(found["members"])] == [None]
    assert found["unasked"] == ""


def test_next_key_is_told_with_the_present_key() -> None:
    rotating = replace(CLAIMED, next_public_key="next2")
    members = json.loads(describe_nodes([RELAY, rotating], ["node1", "node2"], {})["members"])
    assert [member.get("next_public_key", "none") for member in members] == ["none", "next2"]


def test_lowest_measured_mtu_is_the_mtu_of_all() -> None:
    assert describe_nodes(NODES, [], {})["mtu"] == 1392
    assert describe_nodes([OUTSIDE], [], {})["mtu"] is None


def test_claims_of_this_run_are_added_to_those_of_other_nodes() -> None:
    found = describe_nodes(NODES, ["node1", "node2"], {"node3": ["c"], "node2": ["old"]})
    assert json.loads(found["pod_subnets"]) == {"node3": ["c"], "node2": ["a", "b"]}
    assert found["without_claim"] == "node1,node3"


def test_claim_is_new_until_the_node_is_configured_with_it() -> None:
    assert describe_nodes(NODES, [], {})["has_new_claims"]
    configured = OverlayNode("node2", "10.10.0.2", cidrs=("a", "b"), configured_cidrs=("a", "b"))
    assert not describe_nodes([RELAY, configured], [], {})["has_new_claims"]


def test_digest_of_pod_routes_is_known_once_all_claims_are() -> None:
    networks = {"pod_cidrs": ["10.244.0.0/16"], "service_cidrs": ["10.96.0.0/12"]}
    claimed = [replace(node, cidrs=(f"10.244.{number}.0/24",)) for number, node in enumerate(NODES)]
    text = render_pod_routes(
        PodRoutes(("10.244.0.0/16",), {node.name: node.cidrs or () for node in claimed}, ("10.96.0.0/12",))
    )
    assert describe_nodes(claimed, [], {}, **networks)["pod_routes_digest"] == digest_of_pod_routes(text)
    # A node outside of the run is in the claims of the others, and its own is not asked.
    assert describe_nodes([*claimed[:2], OUTSIDE], [], {}, **networks)["pod_routes_digest"] is None
    assert describe_nodes(claimed, [], {})["pod_routes_digest"] is None
