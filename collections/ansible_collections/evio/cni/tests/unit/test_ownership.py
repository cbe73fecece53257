# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names and MACs that follow from what every DEL knows: always the same, never another's, and fit for the kernel."""

from __future__ import annotations

import hashlib
import ipaddress
import sys

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.spec import is_ifname
from ansible_collections.evio.cni.plugins.module_utils.names import bridge_mac, host_ifname, short_hash
from hypothesis import given
from hypothesis import strategies as st

IDS = st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,70}\Z")
IFNAMES = st.from_regex(r"\A[a-z][a-z0-9.]{0,14}\Z")


@given(IDS, IFNAMES)
def test_hosts_end_has_a_name_the_kernel_takes(container_id: str, ifname: str) -> None:
    name = host_ifname("evio", container_id, ifname)
    assert (len(name), name[:5], is_ifname(name)) == (15, "evpod", True)
    assert int(name[5:], 16) >= 0


@given(st.tuples(IDS, IDS, IFNAMES), st.tuples(IDS, IDS, IFNAMES))
def test_attachments_have_hosts_ends_of_their_own(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (host_ifname(*one) == host_ifname(*other)) == (one == other)


def test_hosts_end_is_the_one_that_nodes_have_now() -> None:
    # Another name, and a DEL whose journal has lost the entry would not find the veth of a pod of before an upgrade.
    assert host_ifname("evio", "0a1b", "eth0") == "evpod" + hashlib.sha1(b"evio/0a1b:eth0").hexdigest()[:10]


def test_hash_needs_no_private_module_of_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = short_hash("0a1b:eth0")
    monkeypatch.setitem(sys.modules, "_sha1", None)
    assert short_hash("0a1b:eth0") == quick


@given(st.ip_addresses())
def test_bridges_mac_follows_from_its_gateway(gateway: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mac = bytes.fromhex(bridge_mac(gateway.packed).replace(":", ""))
    assert len(mac) == 6
    assert mac[0] & 0b11 == 0b10, "of one interface, locally administered"
    assert mac[2:] == gateway.packed[-4:]


def test_bridges_mac_tells_the_families_apart() -> None:
    assert bridge_mac(ipaddress.ip_address("10.244.3.1").packed) == "0a:58:0a:f4:03:01"
    assert bridge_mac(ipaddress.ip_address("::10.244.3.1").packed) == "0a:56:0a:f4:03:01"
