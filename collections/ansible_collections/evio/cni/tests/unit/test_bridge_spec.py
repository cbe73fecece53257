# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wanted pod bridge: which specs are refused, what is derived from the gateway, and what counts as a difference."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.ovs.bridge_spec import (
    BridgeError,
    BridgeSpec,
    BridgeState,
    check_spec,
    compare,
)
from ansible_collections.evio.cni.plugins.module_utils.ovs.external_ids import BORROWED_ID, OWNER, OWNER_ID
from hypothesis import given
from hypothesis import strategies as st

SPEC = BridgeSpec("br-evio", ("10.244.3.1/24", "fd00:10:244:3::1/64"), mtu=1420, datapath_type="netdev")
STATE = BridgeState(
    datapath_type="netdev",
    mac="0a:58:0a:f4:03:01",
    mtu=1420,
    external_ids={OWNER_ID: OWNER, "somebody": "else"},
    fail_mode="secure",
    spanning_tree=False,
    addresses=frozenset(["10.244.3.1/24", "fd00:10:244:3::1/64"]),
    is_up=True,
    sysctls={
        "net/ipv4/ip_forward": "1",
        "net/ipv6/conf/all/forwarding": "1",
        "net/ipv6/conf/br-evio/accept_ra": "0",
        "net/ipv6/conf/br-evio/accept_dad": "0",
    },
    networks=frozenset(["10.244.3.0/24", "fd00:10:244:3::/64"]),
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "a-name-that-is-too-long"}, "a-name-that-is-too-long"),
        ({"name": ""}, "bridge name ''"),
        ({"name": "../etc"}, "../etc"),
        ({"name": "br-evio\n"}, "br-evio"),
        ({"datapath_type": "bogus"}, "datapath_type 'bogus' is none of system, netdev"),
        ({"mtu": 67}, "mtu 67"),
        ({"mtu": 1279}, "mtu 1279"),
        ({"mac": "01:00:00:00:00:00"}, "01:00:00:00:00:00"),
        ({"mac": "00:00:00:00:00:00"}, "00:00:00:00:00:00"),
        ({"mac": "0a:58:0a:f4:03"}, "0a:58:0a:f4:03"),
        ({"gateways": ("10.244.3.1/33",)}, "10.244.3.1/33"),
        ({"gateways": ("10.244.3.1",)}, "10.244.3.1"),
        ({"gateways": ("10.244.3.0/24",)}, "10.244.3.0/24"),
        ({"gateways": ("10.244.3.255/24",)}, "10.244.3.255/24"),
        ({"gateways": ("10.244.3.1/24", "10.244.4.1/24")}, "at most one gateway per IP version"),
    ],
)
def test_invalid_spec_is_refused_with_its_value(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BridgeError) as raised:
        check_spec(replace(SPEC, **change))
    assert words in str(raised.value)


def test_valid_spec_passes() -> None:
    check_spec(SPEC)
    check_spec(BridgeSpec("appPODOV", ()))


def fixed_mac(gateway: str) -> str:
    mac = BridgeSpec("br-evio", (gateway,)).fixed_mac
    assert mac is not None
    return mac


@given(st.integers(0, 2**32 - 1))
def test_mac_contains_the_ipv4_gateway_and_is_locally_administered(number: int) -> None:
    mac = fixed_mac(f"{IPv4Address(number)}/32")
    assert int(mac[:2], 16) & 0b11 == 0b10
    assert int(mac[6:].replace(":", ""), 16) == number


@given(st.integers(0, 2**128 - 1))
def test_mac_of_an_ipv6_gateway_has_another_prefix(number: int) -> None:
    mac = fixed_mac(f"{IPv6Address(number)}/128")
    assert mac.startswith("0a:56:")
    assert int(mac[6:].replace(":", ""), 16) == number & 0xFFFFFFFF


def test_mac_stays_when_an_ipv6_gateway_is_added() -> None:
    assert replace(SPEC, gateways=SPEC.gateways[:1]).fixed_mac == SPEC.fixed_mac


def test_bridge_that_matches_its_spec_has_no_difference() -> None:
    assert not compare(SPEC, STATE).changed


def test_gateways_are_compared_as_addresses_not_as_text() -> None:
    spec = replace(SPEC, gateways=("10.244.3.1/255.255.255.0", "FD00:10:244:3:0:0:0:1/64"))
    assert not compare(spec, STATE).changed


def test_missing_bridge_differs_in_every_wanted_property() -> None:
    assert compare(SPEC, None).diff()["before"] == {}
    assert compare(SPEC, None).diff()["after"] == compare(SPEC, STATE).diff()["after"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"datapath_type": "system"}, "datapath_type"),
        ({"mac": "02:00:00:00:00:01"}, "mac"),
        ({"mac": None}, "mac"),
        ({"mtu": 1500}, "mtu"),
        ({"fail_mode": "standalone"}, "fail_mode"),
        ({"spanning_tree": True}, "spanning_tree"),
        ({"addresses": STATE.addresses | {"10.244.9.1/24"}}, "gateways"),
        ({"addresses": frozenset()}, "gateways"),
        ({"is_up": False}, "up"),
        ({"sysctls": {**STATE.sysctls, "net/ipv4/ip_forward": "0"}}, "sysctl:net/ipv4/ip_forward"),
    ],
)
def test_each_property_that_does_not_match_is_one_difference(change: dict[str, Any], name: str) -> None:
    assert [difference.name for difference in compare(SPEC, replace(STATE, **change))] == [name]


FOREIGN = replace(
    STATE,
    mac="02:00:00:00:00:01",
    external_ids={"owner": "site"},
    fail_mode="standalone",
    spanning_tree=True,
    addresses=STATE.addresses | {"192.0.2.1/24"},
)


def test_bridge_without_our_mark_is_given_our_gateways_alone() -> None:
    assert not compare(SPEC, FOREIGN).changed
    bare = replace(FOREIGN, addresses=frozenset(["192.0.2.1/24"]))
    assert [difference.name for difference in compare(SPEC, bare)] == ["gateways"]
    assert not compare(BridgeSpec("br-site", (), datapath_type="netdev"), bare).changed


def test_gateway_that_we_had_added_before_is_a_difference() -> None:
    old = replace(FOREIGN, addresses=FOREIGN.addresses | {"10.9.0.1/24"}, external_ids={BORROWED_ID: "10.9.0.1/24"})
    assert [difference.name for difference in compare(SPEC, old)] == ["gateways"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(SPEC, mtu=1400), "mtu is 1420, asked for is 1400"),
        (replace(SPEC, datapath_type="system"), "datapath_type is netdev, asked for is system"),
        (replace(SPEC, mac="02:00:00:00:00:02"), "mac is 02:00:00:00:00:01, asked for is 02:00:00:00:00:02"),
    ],
)
def test_other_change_of_a_bridge_without_our_mark_is_refused(spec: BridgeSpec, words: str) -> None:
    with pytest.raises(BridgeError) as raised:
        compare(spec, FOREIGN)
    assert words in str(raised.value)
    assert "is not evio.cni's" in str(raised.value)


def test_bridge_that_may_be_adopted_is_compared_in_full() -> None:
    names = {difference.name for difference in compare(replace(SPEC, may_adopt=True), FOREIGN)}
    assert names == {"mac", "fail_mode", "spanning_tree", "gateways", f"external_ids:{OWNER_ID}"}


def test_mark_of_an_earlier_version_does_not_make_a_borrowed_bridge_ours() -> None:
    marked = replace(FOREIGN, external_ids={OWNER_ID: OWNER})
    names = [difference.name for difference in compare(replace(SPEC, is_borrowed=True), marked)]
    assert names == [f"external_ids:{OWNER_ID}"]


def test_properties_that_the_spec_leaves_open_are_not_compared() -> None:
    spec = BridgeSpec("br-evio", (), datapath_type="netdev")
    other = replace(STATE, mtu=9000, mac="02:00:00:00:00:01", addresses=frozenset(["192.0.2.1/24"]))
    assert not compare(spec, other).changed


def test_ip_version_without_a_gateway_is_not_forwarded() -> None:
    assert BridgeSpec("br-evio", ("10.244.3.1/24",)).node_sysctls == {"net/ipv4/ip_forward": "1"}
    assert BridgeSpec("br-evio", ()).node_sysctls == {}
