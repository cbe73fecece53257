# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Derived names and MACs: the same at each call, different for each attachment, and valid for the kernel."""

from __future__ import annotations

import hashlib
import ipaddress
import sys

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.spec import is_ifname
from ansible_collections.evio.cni.plugins.module_utils.names import (
    bridge_mac,
    host_ifname,
    is_mac,
    is_node_name,
    short_hash,
)
from hypothesis import given
from hypothesis import strategies as st

IDS = st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,70}\Z")
IFNAMES = st.from_regex(r"\A[a-z][a-z0-9.]{0,14}\Z")


@given(IDS, IFNAMES)
def test_host_end_has_a_name_that_the_kernel_accepts(container_id: str, ifname: str) -> None:
    name = host_ifname("evio", container_id, ifname)
    assert (len(name), name[:5], is_ifname(name)) == (15, "evpod", True)
    assert int(name[5:], 16) >= 0


@given(st.tuples(IDS, IDS, IFNAMES), st.tuples(IDS, IDS, IFNAMES))
def test_two_attachments_have_two_host_ends(first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
    assert (host_ifname(*first) == host_ifname(*second)) == (first == second)


def test_host_end_has_the_name_that_installed_nodes_use() -> None:
    # With another name, a DEL after an upgrade would not find the veth of a pod whose journal entry is lost.
    assert host_ifname("evio", "0a1b", "eth0") == "evpod" + hashlib.sha1(b"evio/0a1b:eth0").hexdigest()[:10]


def test_hash_is_the_same_without_the_private_module_of_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = short_hash("0a1b:eth0")
    monkeypatch.setitem(sys.modules, "_sha1", None)
    assert short_hash("0a1b:eth0") == quick


@given(st.ip_addresses())
def test_bridge_mac_is_derived_from_the_gateway(gateway: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mac = bytes.fromhex(bridge_mac(gateway.packed).replace(":", ""))
    assert len(mac) == 6
    assert mac[0] & 0b11 == 0b10, "unicast, locally administered"
    assert mac[2:] == gateway.packed[-4:]


def test_bridge_macs_of_ipv4_and_ipv6_gateways_differ() -> None:
    assert bridge_mac(ipaddress.ip_address("10.244.3.1").packed) == "0a:58:0a:f4:03:01"
    assert bridge_mac(ipaddress.ip_address("::10.244.3.1").packed) == "0a:56:0a:f4:03:01"


@pytest.mark.parametrize(
    "text", [None, 7, "", "0a:58:0a:f4:03", "0A:58:0a:f4:03:01", "0a-58-0a-f4-03-01", "0g:58:0a:f4:03:01", " " * 17]
)
def test_text_that_is_no_mac_is_refused(text: object) -> None:
    assert is_mac("0a:58:0a:f4:03:01")
    assert not is_mac(text)


@pytest.mark.parametrize("text", [None, 7, "", "-node", "node-", "no de", "node\n", "knöten", "n" * 254])
def test_text_that_is_no_node_name_is_refused(text: object) -> None:
    assert all(is_node_name(name) for name in ("n", "node-3.example.org", "Node_3", "n" * 253))
    assert not is_node_name(text)
