"""Where the lab's plan puts nodes, and what it refuses."""

from __future__ import annotations

import pytest
from commands import LabError
from topology import Topology, from_dict, plan


def test_default_lab_has_one_public_node_and_two_with_the_same_private_address() -> None:
    topology = plan(3)
    assert [(node.name, node.address, node.router) for node in topology.nodes] == [
        ("node1", "198.51.100.11/24", None),
        ("node2", "192.168.1.10/24", "nat2"),
        ("node3", "192.168.1.10/24", "nat3"),
    ]
    assert [topology.public_address(node) for node in topology.nodes] == [
        "198.51.100.11",
        "198.51.100.22",
        "198.51.100.23",
    ]


@pytest.mark.parametrize("nodes", [1, 3, 9, 10, 50, 200])
@pytest.mark.parametrize("public", [1, 9])
@pytest.mark.parametrize("per_router", [1, 3])
def test_nobody_shares_an_address_on_the_public_segment(nodes: int, public: int, per_router: int) -> None:
    topology = plan(nodes, public=min(nodes, public), per_router=per_router)
    addresses = [node.address.split("/")[0] for node in topology.nodes if node.router is None]
    addresses += [router.wan_address for router in topology.routers]
    assert len({*addresses}) == len(addresses)
    assert all(10 < int(address.rsplit(".", 1)[1]) < 254 for address in addresses)


def test_nodes_of_one_router_share_its_address_and_not_their_own() -> None:
    topology = plan(5, per_router=2)
    assert [(node.router, node.address) for node in topology.nodes[1:]] == [
        ("nat2", "192.168.1.10/24"),
        ("nat2", "192.168.1.11/24"),
        ("nat4", "192.168.1.10/24"),
        ("nat4", "192.168.1.11/24"),
    ]
    assert topology.public_address(topology.nodes[1]) == topology.public_address(topology.nodes[2])


@pytest.mark.parametrize(
    ("nodes", "public", "per_router"), [(0, 1, 1), (3, 0, 1), (3, 4, 1), (20, 10, 1), (201, 1, 1), (3, 1, 0)]
)
def test_what_does_not_fit_is_refused(nodes: int, public: int, per_router: int) -> None:
    with pytest.raises(LabError):
        plan(nodes, public=public, per_router=per_router)


def test_a_node_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(LabError, match="no node 'node9': the lab has node1, node2"):
        plan(2).node("node9")


def test_description_survives_its_file() -> None:
    topology: Topology = plan(4, public=2)
    assert from_dict(topology.as_dict()) == topology
    switched = topology.with_nat(topology.routers[0], "symmetric")
    assert [router.nat for router in switched.routers] == ["symmetric", "preserving"]
