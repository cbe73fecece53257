"""The addresses that the lab's plan gives to nodes and routers, and the plans that it refuses."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

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


def test_sites_of_an_ipv6_lab_have_prefixes_behind_firewalls() -> None:
    topology = plan(4, per_router=2, version=6)
    assert [(node.address, node.gateway) for node in topology.nodes] == [
        ("2001:db8::11/64", "2001:db8::254"),
        ("2001:db8:22::10/64", "fe80::1"),
        ("2001:db8:22::11/64", "fe80::1"),
        ("2001:db8:24::10/64", "fe80::1"),
    ]
    assert [(router.name, router.prefix, router.nat) for router in topology.routers] == [
        ("fw2", "2001:db8:22::/64", "none"),
        ("fw4", "2001:db8:24::/64", "none"),
    ]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("nodes", [1, 3, 9, 10, 50, 200])
@pytest.mark.parametrize("public", [1, 9])
@pytest.mark.parametrize("per_router", [1, 3])
def test_addresses_on_the_public_segment_are_unique(version: int, nodes: int, public: int, per_router: int) -> None:
    topology = plan(nodes, public=min(nodes, public), per_router=per_router, version=version)
    addresses = [node.host for node in topology.nodes if node.router is None]
    addresses += [router.wan_address for router in topology.routers]
    assert len({*addresses, topology.internet_address}) == len(addresses) + 1
    segment = ip_network(f"{topology.internet_address}/{topology.public_length}", strict=False)
    assert all(ip_address(address) in segment for address in addresses)


def test_nodes_of_one_router_share_its_public_address_and_have_their_own() -> None:
    topology = plan(5, per_router=2)
    assert [(node.router, node.address) for node in topology.nodes[1:]] == [
        ("nat2", "192.168.1.10/24"),
        ("nat2", "192.168.1.11/24"),
        ("nat4", "192.168.1.10/24"),
        ("nat4", "192.168.1.11/24"),
    ]
    assert topology.public_address(topology.nodes[1]) == topology.public_address(topology.nodes[2])


def test_internet_sees_an_ipv6_node_itself_until_its_router_translates() -> None:
    topology = plan(3, version=6)
    assert topology.public_address(topology.node("node3")) == "2001:db8:23::10"
    translating = topology.with_nat(topology.routers[1], "symmetric")
    assert translating.public_address(topology.node("node3")) == "2001:db8::23"
    assert translating.with_nat(translating.routers[1], "none") == topology


def test_ipv4_router_must_translate() -> None:
    topology = plan(3)
    with pytest.raises(LabError, match="nat2: all sites have the same private addresses"):
        topology.with_nat(topology.routers[0], "none")


def test_readdressed_site_gets_a_free_address_and_with_ipv6_another_prefix() -> None:
    moved = plan(3, per_router=2, version=6)
    for number in (1, 2):
        before, moved = moved, moved.with_other_address(moved.routers[0])
        assert moved.routers[0].prefix == f"2001:db8:{number}::/64" != before.routers[0].prefix
        assert [node.host for node in moved.nodes] == [
            "2001:db8::11", f"2001:db8:{number}::10", f"2001:db8:{number}::11"
        ]  # fmt: skip
    home = plan(3)
    moved = home.with_other_address(home.routers[0])
    assert moved.nodes == home.nodes
    assert moved.routers[0].wan_address not in [home.public_address(node) for node in home.nodes]


@pytest.mark.parametrize(
    ("nodes", "public", "per_router"), [(0, 1, 1), (3, 0, 1), (3, 4, 1), (20, 10, 1), (201, 1, 1), (3, 1, 0)]
)
def test_plan_that_does_not_fit_is_refused(nodes: int, public: int, per_router: int) -> None:
    with pytest.raises(LabError):
        plan(nodes, public=public, per_router=per_router)


@pytest.mark.parametrize("mtu", [1279, 1501])
def test_mtu_outside_the_limits_is_refused(mtu: int) -> None:
    with pytest.raises(LabError, match=f"--mtu {mtu}"):
        plan(3, mtu=mtu)


def test_nodes_run_the_releases_that_were_chosen_for_all_or_for_each() -> None:
    assert plan(3).releases == ("bookworm",)
    assert plan(3).with_releases(["trixie"]).releases == ("trixie",)
    mixed = plan(3).with_releases(["trixie", "node2=bookworm"])
    assert [node.release for node in mixed.nodes] == ["trixie", "bookworm", "trixie"]
    assert mixed.releases == ("bookworm", "trixie")
    assert mixed.with_other_address(mixed.routers[1]).node("node3").release == "trixie"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("buster", "--release buster: nodes run bookworm or trixie, not 'buster'"),
        ("node2=", "--release node2=: nodes run bookworm or trixie, not ''"),
        ("node4=trixie", "no node 'node4': the lab has node1, node2, node3"),
    ],
)
def test_unknown_release_or_node_of_a_release_is_refused(choice: str, message: str) -> None:
    with pytest.raises(LabError, match=re.escape(message)):
        plan(3).with_releases([choice])


def test_unknown_node_is_refused_with_the_names_of_all_nodes() -> None:
    with pytest.raises(LabError, match="no node 'node9': the lab has node1, node2"):
        plan(2).node("node9")


def test_topology_is_the_same_after_json() -> None:
    topology: Topology = plan(4, public=2, version=6, mtu=1280).with_releases(["node4=trixie"])
    assert from_dict(topology.as_dict()) == topology
    switched = topology.with_nat(topology.routers[0], "symmetric")
    assert [router.nat for router in switched.routers] == ["symmetric", "none"]
