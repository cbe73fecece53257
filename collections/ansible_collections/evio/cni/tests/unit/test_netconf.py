# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plugin's configuration: defaults, upstream's key names, and errors that name the key and its value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils import paths
from ansible_collections.evio.cni.plugins.module_utils.cni.netconf import NetConf, conf_for_removal, decode
from ansible_collections.evio.cni.plugins.module_utils.cni.spec import INVALID_CONFIG, UNDECODABLE, CniError

LEAST: dict[str, Any] = {"cniVersion": "1.0.0", "name": "evio", "type": "evio", "ipam": {"type": "host-local"}}


def conf(**changes: Any) -> NetConf:
    return NetConf(json.loads(json.dumps({**LEAST, **changes})))


def test_smallest_configuration_gets_the_defaults() -> None:
    least = conf()
    assert (least.name, least.cni_version, least.ipam_type) == ("evio", "1.0.0", "host-local")
    assert (least.bridge, least.gateways, least.cluster_cidrs, least.mtu) == ("br-evio", [], [], None)
    assert (least.is_default_gateway, least.ip_masq, least.port_security) == (False, False, True)
    # The datapath type is then the bridge's.
    assert (least.datapath_type, least.ovsdb, least.state_dir) == ("", paths.OVSDB, paths.STATE_DIR)
    assert (least.epoch, least.dns, least.mac, least.previous) == (0, {}, None, None)


def test_all_keys_are_kept_for_the_ipam_plugin() -> None:
    assert conf(ipam={"type": "host-local", "x": [1]}, other={"y": None}).raw == {
        **LEAST,
        "ipam": {"type": "host-local", "x": [1]},
        "other": {"y": None},
    }


def test_gateways_are_one_or_a_list() -> None:
    assert conf(gateway="10.244.3.1/24").gateways == ["10.244.3.1/24"]
    both = ["10.244.3.1/24", "fd00:10:244:3::1/64"]
    assert conf(gateway=both).gateways == both
    assert conf(gateway="").gateways == []


def test_upstreams_key_names_are_accepted_and_ours_override_them() -> None:
    upstream = conf(bridgeIPv4="10.244.3.1/24", isIPMasq=True)
    assert (upstream.gateways, upstream.ip_masq) == (["10.244.3.1/24"], True)
    ours = conf(bridgeIPv4="10.244.9.1/24", isIPMasq=True, gateway="10.244.3.1/24", ipMasq=False)
    assert (ours.gateways, ours.ip_masq) == (["10.244.3.1/24"], False)


@pytest.mark.parametrize("key", ["isGateway", "isDefaultGateway"])
def test_missing_gateway_is_the_one_of_host_local(key: str) -> None:
    ranges = [[{"subnet": "10.244.3.0/24"}], [{"subnet": "fd00:10:244:3::/64", "gateway": "fd00:10:244:3::fe"}]]
    told = ["10.244.3.1/24", "fd00:10:244:3::fe/64"]
    assert conf(ipam={"type": "host-local", "ranges": ranges}, **{key: True}).gateways == told
    assert conf(ipam={"type": "host-local", "subnet": "10.9.0.0/16"}, **{key: True}).gateways == ["10.9.0.1/16"]
    assert conf(ipam={"type": "host-local", "ranges": ranges}, **{key: False}).gateways == []


@pytest.mark.parametrize("ipam", [{"type": "dhcp"}, {"type": "host-local", "ranges": 5}, {"type": "x", "ranges": [[]]}])
def test_missing_gateway_without_ranges_is_an_error(ipam: dict[str, Any]) -> None:
    with pytest.raises(CniError, match="gateway: missing") as raised:
        conf(ipam=ipam, isGateway=True)
    assert raised.value.code == INVALID_CONFIG


def test_removal_ignores_invalid_keys_that_it_does_not_use() -> None:
    raw = {**LEAST, "mtu": "x", "gateway": 5, "dns": [], "prevResult": 7, "bridge": None}
    kept = conf_for_removal(raw)
    assert (kept.name, kept.ipam_type, kept.raw) == ("evio", "host-local", raw)


@pytest.mark.parametrize("mtu", [68, 1420, 65535])
def test_mtus_of_an_ethernet_device_are_accepted(mtu: int) -> None:
    assert conf(mtu=mtu).mtu == mtu


@pytest.mark.parametrize("mtu", [65522, 65535])
def test_mtu_that_a_tap_device_cannot_have_is_refused(mtu: int) -> None:
    assert conf(mtu=65521, datapathType="netdev").mtu == 65521
    with pytest.raises(CniError, match=f"mtu: {mtu} is not between 68 and 65521 bytes"):
        conf(mtu=mtu, datapathType="netdev")


@pytest.mark.parametrize("mtu", [0, None])
def test_mtu_of_zero_or_null_means_the_mtu_of_the_bridge(mtu: int | None) -> None:
    assert conf(mtu=mtu).mtu is None


def test_mac_of_runtime_config_overrides_that_of_args() -> None:
    args = {"cni": {"mac": "02:00:00:00:00:01"}}
    assert conf(args=args).mac == "02:00:00:00:00:01"
    assert conf(args=args, runtimeConfig={"mac": "02:00:00:00:00:02"}).mac == "02:00:00:00:00:02"
    assert conf(args=args, runtimeConfig={"portMappings": []}).mac == "02:00:00:00:00:01"


def test_previous_result_is_kept() -> None:
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "dummy0"}],
        "ips": [{"address": "10.9.0.2/24", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["10.96.0.10"]},
    }
    assert conf(prevResult=previous).previous == previous


@pytest.mark.parametrize("previous", [{}, {"interfaces": None, "ips": None, "routes": None, "dns": None}])
def test_keys_of_a_previous_result_may_be_missing_or_null(previous: dict[str, Any]) -> None:
    assert conf(prevResult=previous).previous == previous


@pytest.mark.parametrize(
    "key",
    [
        *("bridge", "clusterCIDRs", "datapathType", "epoch", "gateway", "ipMasq", "isGateway", "mtu", "ovsdb"),
        *("portSecurity", "stateDir", "args", "dns", "prevResult", "runtimeConfig"),
    ],
)
def test_null_value_counts_as_missing(key: str) -> None:
    null, least = conf(**{key: None}), conf()
    slots = [slot for slot in NetConf.__slots__ if slot != "raw"]
    assert [getattr(null, slot) for slot in slots] == [getattr(least, slot) for slot in slots]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", 7),
        ("name", "../up"),
        ("bridge", ""),
        ("bridge", "sixteen-letters-"),
        ("bridge", "a/b"),
        ("bridge", "a b"),
        ("bridge", ".."),
        ("bridge", "\ud800"),
        ("bridge", ["br-evio"]),
        ("bridge", 'br"evio'),
        ("gateway", "10.244.3.1"),
        ("gateway", "10.244.3/24"),
        ("gateway", "10.244.3.1/33"),
        ("gateway", "10.244.3.1/-1"),
        ("gateway", "10.244.3.1/ 8"),
        ("gateway", "fd00::1/129"),
        ("gateway", "fd00::g/64"),
        ("gateway", "10.244.3.1\0/24"),
        ("gateway", "here/24"),
        ("gateway", "10.244.3.0/24"),
        ("gateway", "fd00::/64"),
        ("gateway", 7),
        ("gateway", False),
        ("gateway", {}),
        ("gateway", [7]),
        ("bridgeIPv4", "10.244.3.1"),
        ("clusterCIDRs", "10.10.0.0"),
        ("clusterCIDRs", [None]),
        ("isGateway", "yes"),
        ("isDefaultGateway", 1),
        ("isIPMasq", "true"),
        ("portSecurity", 0),
        ("mtu", 67),
        ("mtu", 65536),
        ("mtu", -5),
        ("mtu", "1420"),
        ("mtu", 1420.5),
        ("mtu", True),
        ("mtu", False),
        ("mtu", ""),
        ("datapathType", "dpdk"),
        ("ovsdb", 6640),
        ("ovsdb", "/run/openvswitch/db.sock"),
        ("stateDir", "relative"),
        ("stateDir", ""),
        ("stateDir", []),
        ("epoch", "7"),
        ("epoch", True),
        ("dns", "10.96.0.10"),
        ("runtimeConfig", []),
        ("args", "K=V"),
        ("prevResult", []),
        ("prevResult", "{}"),
    ],
)
def test_bad_value_is_named_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(CniError) as raised:
        conf(**{key: value})
    assert raised.value.code == INVALID_CONFIG
    assert raised.value.msg.startswith(f"{key}: ")
    [*_rest, shown] = value if isinstance(value, list) and value and key == "gateway" else [value]
    assert repr(shown) in raised.value.msg or key == "name"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtimeConfig": {"mac": 7}}, "mac: 7"),
        ({"args": {"cni": ["mac"]}}, "cni: ['mac']"),
        ({"prevResult": {"interfaces": {}, "ips": "10.9.0.2"}}, "prevResult.ips: '10.9.0.2'"),
        ({"prevResult": {"interfaces": ["eth0"]}}, "prevResult.interfaces: ['eth0']"),
        ({"prevResult": {"ips": [{"gateway": "10.9.0.1"}]}}, "a list of objects, each with its address"),
        ({"prevResult": {"ips": [{"address": 7}]}}, "address: 7"),
        ({"prevResult": {"routes": [{"gw": "10.9.0.1"}]}}, "prevResult.routes"),
        ({"prevResult": {"dns": ["10.96.0.10"]}}, "dns: ['10.96.0.10']"),
        ({"ipam": None}, "ipam.type: None"),
        ({"ipam": []}, "ipam.type: None"),
        ({"ipam": {}}, "ipam.type: None"),
        ({"ipam": {"type": ""}}, "ipam.type: ''"),
        ({"ipam": {"type": "../host-local"}}, "ipam.type: '../host-local'"),
        ({"ipam": {"type": 7}}, "ipam.type: 7"),
    ],
)
def test_bad_nested_value_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CniError) as raised:
        conf(**changes)
    assert raised.value.code == INVALID_CONFIG
    assert words in raised.value.msg


@pytest.mark.parametrize("text", ["", " ", "{", "[]", "null", "7", '"evio"', '{"name": "evio"} {}', "[" * 100_000])
def test_input_that_is_no_json_object_is_undecodable(text: str) -> None:
    with pytest.raises(CniError) as raised:
        decode(text.encode())
    assert raised.value.code == UNDECODABLE


def test_configuration_without_a_version_has_the_first_version() -> None:
    assert NetConf({key: value for key, value in LEAST.items() if key != "cniVersion"}).cni_version == "0.1.0"


def test_bridge_has_at_most_one_gateway_of_each_family() -> None:
    assert conf(gateway=["10.244.3.1/24", "fd00::1/64"]).gateways == ["10.244.3.1/24", "fd00::1/64"]
    with pytest.raises(CniError, match=r"gateway: .* more than one of a family"):
        conf(gateway=["10.244.3.1/24", "10.244.4.1/24"])


@pytest.mark.parametrize(
    ("key", "one"),
    [
        ("interfaces", {"name": "eth0", "mac": 5}),
        ("ips", {"address": "10.244.3.2"}),
        ("ips", {"address": "10.244.3.2/24", "gateway": 5}),
        ("routes", {"dst": "x/y"}),
        ("routes", {"dst": "0.0.0.0/0", "gw": []}),
    ],
)
def test_invalid_previous_result_is_refused(key: str, one: dict[str, Any]) -> None:
    with pytest.raises(CniError) as raised:
        conf(prevResult={key: [one]})
    assert raised.value.code == INVALID_CONFIG
