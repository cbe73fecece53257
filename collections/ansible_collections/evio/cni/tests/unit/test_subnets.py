# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Subnet arithmetic: subnets never overlap, gateways and ranges have their places, bad input is named."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from ansible_collections.evio.cni.plugins.module_utils.subnets import (
    NodeSubnet,
    Pool,
    SubnetError,
    parse_pool,
    parse_pools,
    refuse_overlaps,
    reserved_places,
)
from hypothesis import given
from hypothesis import strategies as st


def test_documented_example() -> None:
    pool = parse_pool("10.244.0.0/16", 8)
    subnet = pool.subnet(3)
    assert (pool.size, pool.prefix_length) == (256, 24)
    assert subnet == NodeSubnet("10.244.3.0/24")
    assert (subnet.gateway, subnet.gateway_address) == ("10.244.3.1/24", "10.244.3.1")
    assert (subnet.range_start, subnet.range_end) == ("10.244.3.2", "10.244.3.254")


def test_ipv6_uses_the_same_arithmetic() -> None:
    subnet = parse_pool("fd00:10:244::/48", 16).subnet(3)
    assert subnet == NodeSubnet("fd00:10:244:3::/64")
    assert subnet.gateway == "fd00:10:244:3::1/64"
    assert subnet.range_end == "fd00:10:244:3:ffff:ffff:ffff:fffe"


def test_smallest_subnet_has_one_pod() -> None:
    subnet = parse_pool("10.244.0.0/16", 14).subnet(1)
    assert (subnet.gateway, subnet.range_start, subnet.range_end) == ("10.244.0.5/30", "10.244.0.6", "10.244.0.6")


def test_dual_stack() -> None:
    assert parse_pools("10.244.0.0/16, fd00:10:244::/48", "8,16") == (
        Pool("10.244.0.0/16", 8),
        Pool("fd00:10:244::/48", 16),
    )


pools = st.one_of(
    st.tuples(st.integers(8, 28), st.integers(0, 16))
    .filter(lambda p: 32 - sum(p) >= 2)
    .map(lambda p: Pool(f"10.0.0.0/{p[0]}", p[1])),
    st.tuples(st.integers(16, 112), st.integers(0, 16))
    .filter(lambda p: 128 - sum(p) >= 2)
    .map(lambda p: Pool(f"fd00::/{p[0]}", p[1])),
)


@given(pools, st.data())
def test_index_is_the_inverse_of_subnet(pool: Pool, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, pool.size - 1))
    subnet = pool.subnet(place)
    assert subnet.cidr in pool
    assert pool.index(subnet.cidr) == place
    assert ip_network(subnet.cidr).subnet_of(ip_network(pool.pod_cidr))  # type: ignore[arg-type]


@given(pools, st.data())
def test_subnets_never_overlap(pool: Pool, data: st.DataObject) -> None:
    one, other = data.draw(st.integers(0, pool.size - 1)), data.draw(st.integers(0, pool.size - 1))
    assert ip_network(pool.subnet(one).cidr).overlaps(ip_network(pool.subnet(other).cidr)) == (one == other)


@pytest.mark.parametrize("place", [-1, 256])
def test_index_outside_the_pool_is_refused(place: int) -> None:
    with pytest.raises(IndexError):
        parse_pool("10.244.0.0/16", 8).subnet(place)


@pytest.mark.parametrize("cidr", ["10.245.0.0/24", "10.244.3.0/25", "10.244.0.0/16", "fd00::/24", "nothing"])
def test_foreign_subnets_are_not_in_the_pool(cidr: str) -> None:
    pool = parse_pool("10.244.0.0/16", 8)
    assert cidr not in pool
    with pytest.raises(SubnetError):
        pool.index(cidr)


@pytest.mark.parametrize(
    ("pod_cidr", "node_bits", "words"),
    [
        ("10.244.0.0", 8, ["evio_pod_cidr", "10.244.0.0", "prefix length"]),
        ("", 8, ["evio_pod_cidr"]),
        ("10.244.0.16/16", 8, ["evio_pod_cidr", "10.244.0.16/16", "host bits"]),
        ("10.244.0.0/33", 8, ["evio_pod_cidr", "/33"]),
        ("10.244.0.0/16", 15, ["evio_node_bits", "15", "10.244.0.0/16", "fewer than 2"]),
        ("10.244.0.0/16", -1, ["evio_node_bits", "-1", "negative"]),
        ("10.244.0.0/31", 0, ["evio_node_bits"]),
        ("fd00::/48", 17, ["evio_node_bits", "17", "too many"]),
        ("10.244.0.0/16", "eight", ["evio_node_bits", "eight"]),
        ("10.244.0.0/16", "8,8", ["evio_node_bits", "8,8"]),
        ("10.244.0.0/16,10.245.0.0/16", 8, ["evio_pod_cidr", "one family"]),
    ],
)
def test_bad_input_is_named(pod_cidr: str, node_bits: int | str, words: list[str]) -> None:
    with pytest.raises(SubnetError) as raised:
        parse_pools(pod_cidr, node_bits)
    for word in words:
        assert word in str(raised.value)


def test_overlap_names_both_variables_and_values() -> None:
    with pytest.raises(
        SubnetError, match=r"evio_host_overlay_cidr 10\.244\.0\.0/15 and evio_pod_cidr 10\.244\.0\.0/16"
    ):
        refuse_overlaps({"evio_host_overlay_cidr": "10.244.0.0/15", "evio_pod_cidr": "10.244.0.0/16"})
    refuse_overlaps({"a": "10.10.0.0/16", "b": "10.244.0.0/16", "c": "fd00::/48"})


@pytest.mark.parametrize(
    ("reserved", "places"),
    [
        ("10.244.2.0/23", [range(2, 4)]),
        ("10.244.3.128/25", [range(3, 4)]),
        ("10.0.0.0/8", [range(256)]),
        ("10.96.0.0/12", []),
        ("fd00::/48", []),
    ],
)
def test_reserved_networks_take_every_subnet_that_they_overlap(reserved: str, places: list[range]) -> None:
    assert reserved_places(parse_pool("10.244.0.0/16", 8), [reserved]) == places
