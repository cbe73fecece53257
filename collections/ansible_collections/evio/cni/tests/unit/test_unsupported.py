# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys of other plugins that isolate or shape pods are carried out, or refused in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni import unsupported
from ansible_collections.evio.cni.plugins.module_utils.cni.netconf import NetConf
from ansible_collections.evio.cni.plugins.module_utils.cni.spec import INVALID_CONFIG, CniError
from ansible_collections.evio.cni.plugins.module_utils.ovs.ports import Segment, segment_of

LEAST: dict[str, Any] = {"cniVersion": "1.0.0", "name": "evio", "type": "evio", "ipam": {"type": "host-local"}}

DOCUMENTED_BY_OTHERS = (
    *("bridge", "isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "mtu", "hairpinMode", "ipam", "promiscMode"),
    *("vlan", "preserveDefaultVlan", "vlanTrunk", "macspoofchk", "enabledad", "disableContainerInterface"),
    *("portIsolation", "trunk", "ofport_request", "deviceID", "interface_type", "configuration_path", "socket_file"),
    "mirrors",
)
"""Keys of the plugins bridge and ovs-cni."""


def conf(**changes: Any) -> NetConf:
    found = NetConf({**LEAST, **changes})
    unsupported.refuse_unsupported(found)
    return found


REFUSED: list[dict[str, Any]] = [
    {"hairpinMode": True},
    {"promiscMode": True},
    {"enabledad": True},
    {"disableContainerInterface": True},
    {"deviceID": "0000:03:02.0"},
    {"ofport_request": 5},
    {"interface_type": "dpdk"},
    {"configuration_path": "/etc/ovs.conf"},
    {"socket_file": "/run/db.sock"},
    {"mirrors": [{"name": "all"}]},
    {"bandwidth": {"ingressRate": 1}},
    {"runtimeConfig": {"bandwidth": {"egressRate": 1}}},
    {"runtimeConfig": {"portMappings": [{"hostPort": 1}]}},
    {"runtimeConfig": {"deviceID": "0000:03:02.0"}},
    {"runtimeConfig": {"infinibandGUID": "c2:11"}},
    {"Vlan": 100},
    {"portisolation": True},
    {"MacSpoofChk": True},
    {"macspoofchk": True, "portSecurity": False},
    {"macspoofchk": "yes"},
    {"vlan": 100, "gateway": "10.0.0.1/24"},
    {"vlan": 100, "isGateway": True, "ipam": {"type": "host-local", "subnet": "10.0.0.0/24"}},
    {"vlan": 100, "vlanTrunk": [{"id": 5}], "portSecurity": False},
    {"vlan": 100, "preserveDefaultVlan": True},
    {"vlanTrunk": [{"id": 5}]},
    {"trunk": [{"id": 5}]},
    {"vlan": 4095},
    {"vlan": -1},
    {"vlan": "100"},
    {"vlan": True},
    {"vlan": 1.5},
    {"vlanTrunk": {"id": 5}},
    {"vlanTrunk": [5]},
    {"vlanTrunk": [{}]},
    {"vlanTrunk": [{"id": 0}]},
    {"vlanTrunk": [{"minID": 5}]},
    {"vlanTrunk": [{"minID": 9, "maxID": 5}]},
    {"vlanTrunk": [{"minID": 5, "maxID": 10**12}]},
    {"vlanTrunk": [{"id": 5}], "trunk": [{"id": 6}], "portSecurity": False},
    {"portIsolation": 1},
]


@pytest.mark.parametrize("changes", REFUSED, ids=str)
def test_what_is_not_carried_out_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    with pytest.raises(CniError) as refused:
        conf(**changes)
    assert refused.value.code == INVALID_CONFIG
    key = next(iter(changes))
    assert refused.value.msg.startswith((key, *changes))


@pytest.mark.parametrize(
    "changes",
    [
        dict.fromkeys(("hairpinMode", "promiscMode", "enabledad", "disableContainerInterface"), False),
        {"deviceID": "", "ofport_request": 0, "mirrors": [], "trunk": [], "vlanTrunk": None, "vlan": 0},
        {"forceAddress": True, "macspoofchk": True, "preserveDefaultVlan": True, "portIsolation": True},
        {"link_state_check_retries": 5, "link_state_check_interval": 1000, "X": 1, "runtimeConfig": {"ips": []}},
    ],
    ids=str,
)
def test_what_asks_for_nothing_or_is_carried_out_is_accepted(changes: dict[str, Any]) -> None:
    conf(**changes)


def test_ports_without_a_vlan_carry_untagged_frames_alone() -> None:
    assert segment_of(conf()).to_row() == {"trunks": ["set", [0]], "vlan_mode": "trunk"}


def test_vlan_is_the_ports_tag_and_isolation_its_protection() -> None:
    row = segment_of(conf(vlan=100, portIsolation=True)).to_row()
    assert row == {"tag": 100, "vlan_mode": "access", "protected": True}


@pytest.mark.parametrize("key", ["vlanTrunk", "trunk"])
def test_trunk_carries_its_vlans_and_untagged_frames_unless_told_otherwise(key: str) -> None:
    vlans = {key: [{"id": 42}, {"minID": 1000, "maxID": 1002}], "portSecurity": False}
    assert segment_of(conf(**vlans)).trunks == (0, 42, 1000, 1001, 1002)
    assert segment_of(conf(**vlans, preserveDefaultVlan=False)).trunks == (42, 1000, 1001, 1002)


def test_port_of_an_older_version_is_as_it_should_be() -> None:
    assert Segment().difference(segment_of(conf())) is None
    assert Segment().difference(segment_of(conf(vlan=100))) == "is in no VLAN, not in VLAN 100"
    assert Segment(5).difference(segment_of(conf())) == "has been put into VLAN 5"
    assert Segment(trunks=(0, 7)).difference(segment_of(conf())) is not None
    assert Segment().difference(segment_of(conf(portIsolation=True))) is not None
    assert Segment(is_isolated=True).difference(segment_of(conf())) is not None


def test_documentation_has_every_key_of_bridge_and_ovs_cni() -> None:
    page = Path(__file__).parents[6] / "docs/configuration.md"
    documented = set(re.findall(r"`([A-Za-z_]+)`", page.read_text()))
    assert documented >= {*DOCUMENTED_BY_OTHERS, *unsupported._REFUSED, *unsupported._RUNTIME_CONFIG}
