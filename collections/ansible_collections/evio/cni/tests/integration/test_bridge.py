# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod bridge on a real Open vSwitch: created, left alone when nothing differs, repaired property by property."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.errors import EvioError
from ansible_collections.evio.cni.plugins.module_utils.ovs.bridge import (
    compare_bridge,
    ensure_bridge,
    release_bridge,
    remove_bridge,
)
from ansible_collections.evio.cni.plugins.module_utils.ovs.bridge_spec import BridgeError, BridgeSpec
from ansible_collections.evio.cni.plugins.module_utils.ovs.datapath import probe_datapath
from ansible_collections.evio.cni.plugins.module_utils.ovs.external_ids import OWNER, OWNER_ID

from .ovs_daemons import DATAPATH, OTHER_DATAPATH, OpenVSwitch, in_namespace, inside_namespace

pytestmark = pytest.mark.root

COLLECTIONS = Path(__file__).resolve().parents[5]

SPEC = BridgeSpec(
    "br-evio",
    ("10.244.3.1/24",),
    mtu=1420,
    datapath_type=DATAPATH,
    external_ids={OWNER_ID: OWNER, "evio-epoch": "7"},
)


@pytest.fixture
def inside(ovs: OpenVSwitch) -> Iterator[None]:
    """Move the test's thread into the switch's network namespace, where the module would run."""
    with inside_namespace(ovs.netns):
        yield


def device(ovs: OpenVSwitch, name: str = "br-evio") -> dict[str, Any]:
    [link] = json.loads(in_namespace(ovs.netns, "ip", "-j", "address", "show", "dev", name).stdout)
    return dict(link)


def addresses(ovs: OpenVSwitch) -> list[str]:
    return sorted(
        f"{address['local']}/{address['prefixlen']}"
        for address in device(ovs)["addr_info"]
        if address["scope"] != "link"
    )


@pytest.mark.usefixtures("inside")
def test_bridge_is_created_with_gateway_mac_and_mtu(ovs: OpenVSwitch) -> None:
    differences = ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    assert differences.changed
    link = device(ovs)
    assert (link["mtu"], link["address"]) == (1420, "0a:58:0a:f4:03:01")
    assert "UP" in link["flags"]
    assert addresses(ovs) == ["10.244.3.1/24"]
    assert ovs.vsctl("get", "Bridge", "br-evio", "external_ids") == '{evio-epoch="7", evio-owner=evio.cni}'


@pytest.mark.usefixtures("inside")
def test_second_run_changes_nothing(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    before = ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg")
    assert not ensure_bridge(SPEC, ovsdb=ovs.ovsdb).changed
    assert ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg") == before


@pytest.mark.usefixtures("inside")
def test_comparing_predicts_and_changes_nothing(ovs: OpenVSwitch) -> None:
    predicted = compare_bridge(SPEC, ovsdb=ovs.ovsdb)
    assert ovs.vsctl("list-br") == ""
    assert predicted.diff() == ensure_bridge(SPEC, ovsdb=ovs.ovsdb).diff()


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (["ip", "address", "flush", "dev", "br-evio"], "gateways"),
        (["ip", "address", "add", "10.99.0.1/24", "dev", "br-evio"], "gateways"),
        (["ip", "link", "set", "br-evio", "down"], "up"),
        (["sysctl", "-qw", "net.ipv4.ip_forward=0"], "sysctl:net/ipv4/ip_forward"),
        (["sysctl", "-qw", "net.ipv6.conf.br-evio.accept_ra=1"], "sysctl:net/ipv6/conf/br-evio/accept_ra"),
    ],
)
def test_damage_to_the_device_is_repaired(ovs: OpenVSwitch, damage: list[str], name: str) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    in_namespace(ovs.netns, *damage)
    assert [difference.name for difference in compare_bridge(SPEC, ovsdb=ovs.ovsdb)] == [name]
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    assert not compare_bridge(SPEC, ovsdb=ovs.ovsdb).changed
    assert addresses(ovs) == ["10.244.3.1/24"]


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"mtu": 1280}, "mtu"),
        ({"mac": "02:00:00:00:00:07"}, "mac"),
        ({"external_ids": {OWNER_ID: OWNER, "evio-epoch": "8"}}, "external_ids:evio-epoch"),
        ({"gateways": ("10.244.9.1/24",), "mac": "0a:58:0a:f4:03:01"}, "gateways"),
    ],
)
def test_changed_property_of_the_spec_is_the_only_change(ovs: OpenVSwitch, change: dict[str, Any], name: str) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    changed = replace(SPEC, **change)
    assert [difference.name for difference in ensure_bridge(changed, ovsdb=ovs.ovsdb)] == [name]
    assert not compare_bridge(changed, ovsdb=ovs.ovsdb).changed


@pytest.mark.usefixtures("inside")
def test_ports_and_external_ids_of_others_stay(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    ovs.vsctl(
        "add-port", "br-evio", "vx0", "--", "set", "Interface", "vx0", "type=vxlan", "options:remote_ip=127.0.0.1"
    )
    ovs.vsctl("set", "Bridge", "br-evio", "external_ids:other=kept")
    ensure_bridge(replace(SPEC, mtu=1400), ovsdb=ovs.ovsdb)
    assert ovs.vsctl("list-ports", "br-evio") == "vx0"
    assert ovs.vsctl("get", "Bridge", "br-evio", "external_ids:other") == "kept"


@pytest.mark.usefixtures("inside")
def test_bridge_is_created_again_after_its_database_was_lost(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    ovs.stop()
    ovs.empty_database()
    ovs.start()
    assert ensure_bridge(SPEC, ovsdb=ovs.ovsdb).changed
    assert addresses(ovs) == ["10.244.3.1/24"]


@pytest.mark.skipif(probe_datapath() == "system", reason="this kernel has Open vSwitch's module")
@pytest.mark.usefixtures("inside")
def test_datapath_that_the_kernel_lacks_is_an_error_and_leaves_no_bridge(ovs: OpenVSwitch) -> None:
    with pytest.raises(EvioError, match="take datapath_type netdev"):
        ensure_bridge(replace(SPEC, datapath_type="system"), ovsdb=ovs.ovsdb, timeout=2)
    assert ovs.vsctl("list-br") == ""


@pytest.mark.usefixtures("inside")
def test_linux_bridge_of_the_same_name_is_refused(ovs: OpenVSwitch) -> None:
    in_namespace(ovs.netns, "ip", "link", "add", "br-evio", "type", "bridge")
    with pytest.raises(EvioError, match="a network interface br-evio is there that is no Open vSwitch bridge"):
        ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    assert ovs.vsctl("list-br") == ""


@pytest.mark.usefixtures("inside")
def test_only_our_own_bridge_is_removed(ovs: OpenVSwitch) -> None:
    ovs.vsctl("add-br", "br-other", "--", "set", "Bridge", "br-other", f"datapath_type={DATAPATH}")
    with pytest.raises(EvioError, match="left alone"):
        remove_bridge("br-other", ovsdb=ovs.ovsdb)
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    assert remove_bridge("br-evio", ovsdb=ovs.ovsdb, dry_run=True)
    assert remove_bridge("br-evio", ovsdb=ovs.ovsdb)
    assert not remove_bridge("br-evio", ovsdb=ovs.ovsdb)
    assert ovs.vsctl("list-br") == "br-other"
    assert remove_bridge("br-other", ovsdb=ovs.ovsdb, only_ours=False)
    assert ovs.vsctl("list-br") == ""


def everything(ovs: OpenVSwitch, name: str) -> tuple[object, ...]:
    """All of a bridge: its rows in OVSDB without what vswitchd counts, its device, and its flows."""
    rows = [
        ovs.vsctl("--columns=" + columns, "list", table, name)
        for table, columns in (
            ("Bridge", "datapath_type,fail_mode,stp_enable,rstp_enable,other_config,external_ids,ports,controller"),
            ("Port", "tag,trunks,other_config,external_ids"),
            ("Interface", "mtu,mtu_request,mac_in_use,other_config,external_ids,options"),
        )
    ]
    link = device(ovs, name)
    target = f"unix:{ovs.directory}/{name}.mgmt"
    flows = in_namespace(ovs.netns, "ovs-ofctl", "-OOpenFlow13", "--no-stats", "dump-flows", target).stdout
    # A device that was up once may keep a link-local address with other times; who is up, with which addresses, counts.
    told = sorted((one["local"], one["prefixlen"]) for one in link["addr_info"] if one["scope"] != "link")
    return (*rows, link["mtu"], link["address"], "UP" in link["flags"], told, flows)


def foreign_bridge(ovs: OpenVSwitch, *, is_up: bool) -> None:
    settings = [f"datapath_type={DATAPATH}", "stp_enable=true", "fail_mode=secure", "external_ids:owner=site"]
    ovs.vsctl("add-br", "br-site", "--", "set", "Bridge", "br-site", *settings)
    ovs.vsctl("add-port", "br-site", "uplink", "--", "set", "Interface", "uplink", "type=internal")
    in_namespace(ovs.netns, "ip", "address", "add", "192.0.2.1/24", "dev", "br-site")
    if is_up:
        in_namespace(ovs.netns, "ip", "link", "set", "br-site", "up")


FOREIGN_SPEC = replace(
    SPEC,
    name="br-site",
    gateways=("10.244.3.1/24", "fd00:10:244:3::1/64"),
    mtu=None,
    service_cidrs=("10.96.0.0/12", "fd00:10:96::/108"),
)


def routes(ovs: OpenVSwitch, name: str) -> dict[str, str]:
    """Our routes by the bridge's device: source addresses by network."""
    listed = [
        json.loads(in_namespace(ovs.netns, "ip", "-j", family, "route", "show", "proto", "225", "dev", name).stdout)
        for family in ("-4", "-6")
    ]
    return {one["dst"]: one["prefsrc"] for some in listed for one in some}


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("is_up", [True, False])
def test_bridge_of_somebody_else_is_given_our_gateway_alone_and_given_back_as_it_was(
    ovs: OpenVSwitch, is_up: bool
) -> None:
    foreign_bridge(ovs, is_up=is_up)
    before = everything(ovs, "br-site")
    assert not release_bridge("br-site", ovsdb=ovs.ovsdb)
    assert ensure_bridge(FOREIGN_SPEC, ovsdb=ovs.ovsdb).changed
    assert not ensure_bridge(FOREIGN_SPEC, ovsdb=ovs.ovsdb).changed
    lent = device(ovs, "br-site")
    told = {f"{one['local']}/{one['prefixlen']}" for one in lent["addr_info"] if one["scope"] != "link"}
    assert told == {"192.0.2.1/24", "10.244.3.1/24", "fd00:10:244:3::1/64"}
    assert routes(ovs, "br-site") == {"10.96.0.0/12": "10.244.3.1", "fd00:10:96::/108": "fd00:10:244:3::1"}
    for table, column in (("fail_mode", "secure"), ("stp_enable", "true")):
        assert ovs.vsctl("get", "Bridge", "br-site", table) == column
    assert "evio-owner" not in ovs.vsctl("get", "Bridge", "br-site", "external_ids")
    assert release_bridge("br-site", ovsdb=ovs.ovsdb, dry_run=True)
    assert release_bridge("br-site", ovsdb=ovs.ovsdb)
    assert not release_bridge("br-site", ovsdb=ovs.ovsdb)
    assert everything(ovs, "br-site") == before
    assert routes(ovs, "br-site") == {}


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("version", ["-4", "-6"])
def test_flushed_routes_to_the_pods_are_back_as_they_were(ovs: OpenVSwitch, version: str) -> None:
    spec = replace(SPEC, gateways=("10.244.3.1/24", "fd00:10:244:3::1/64"))
    ensure_bridge(spec, ovsdb=ovs.ovsdb)

    def shown() -> list[dict[str, object]]:
        return sorted(
            json.loads(in_namespace(ovs.netns, "ip", "-j", version, "route", "show", "dev", spec.name).stdout),
            key=lambda route: str(route["dst"]),
        )

    before = [route for route in shown() if route["dst"] != "fe80::/64"]
    assert before
    in_namespace(ovs.netns, "ip", version, "route", "flush", "dev", spec.name)
    assert [one.name for one in ensure_bridge(spec, ovsdb=ovs.ovsdb)] == ["networks"]
    assert shown() == before
    assert not ensure_bridge(spec, ovsdb=ovs.ovsdb).changed


@pytest.mark.usefixtures("inside")
def test_routes_to_services_follow_the_gateway_and_the_networks(ovs: OpenVSwitch) -> None:
    spec = replace(SPEC, service_cidrs=("10.96.0.0/12",))
    ensure_bridge(spec, ovsdb=ovs.ovsdb)
    in_namespace(ovs.netns, "ip", "route", "delete", "10.96.0.0/12")
    assert [one.name for one in ensure_bridge(spec, ovsdb=ovs.ovsdb)] == ["routes"]
    gateway = spec.gateways[0].partition("/")[0]
    assert routes(ovs, spec.name) == {"10.96.0.0/12": gateway}
    ensure_bridge(replace(spec, service_cidrs=("10.32.0.0/16",)), ovsdb=ovs.ovsdb)
    assert routes(ovs, spec.name) == {"10.32.0.0/16": gateway}
    ensure_bridge(replace(spec, service_cidrs=()), ovsdb=ovs.ovsdb)
    assert routes(ovs, spec.name) == {}
    with pytest.raises(BridgeError, match=r"service network '10.96/12' is not a network"):
        ensure_bridge(replace(spec, service_cidrs=("10.96/12",)), ovsdb=ovs.ovsdb)


@pytest.mark.usefixtures("inside")
def test_gateway_that_the_bridge_had_of_its_own_stays_with_it(ovs: OpenVSwitch) -> None:
    foreign_bridge(ovs, is_up=True)
    in_namespace(ovs.netns, "ip", "address", "add", "10.244.3.1/24", "dev", "br-site")
    before = everything(ovs, "br-site")
    ensure_bridge(FOREIGN_SPEC, ovsdb=ovs.ovsdb)
    ensure_bridge(replace(FOREIGN_SPEC, gateways=("10.244.9.1/24",)), ovsdb=ovs.ovsdb)
    shown = in_namespace(ovs.netns, "ip", "-o", "address", "show", "dev", "br-site").stdout
    assert all(address in shown for address in ("192.0.2.1/24", "10.244.3.1/24", "10.244.9.1/24"))
    assert "fd00:10:244:3::1" not in shown
    release_bridge("br-site", ovsdb=ovs.ovsdb)
    assert everything(ovs, "br-site") == before


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"mtu": 1420}, "mtu is 1500, asked for is 1420"),
        ({"mac": "02:00:00:00:00:07"}, "asked for is 02:00:00:00:00:07"),
        ({"datapath_type": OTHER_DATAPATH}, f"datapath_type is {DATAPATH}, asked for is {OTHER_DATAPATH}"),
    ],
)
def test_more_than_a_gateway_is_refused_on_a_bridge_of_somebody_else(
    ovs: OpenVSwitch, asked: dict[str, Any], words: str
) -> None:
    foreign_bridge(ovs, is_up=False)
    before = everything(ovs, "br-site")
    with pytest.raises(EvioError, match=words):
        ensure_bridge(replace(FOREIGN_SPEC, **asked), ovsdb=ovs.ovsdb)
    assert everything(ovs, "br-site") == before


@pytest.mark.usefixtures("inside")
def test_bridge_that_an_earlier_version_marked_as_ours_is_given_back(ovs: OpenVSwitch) -> None:
    foreign_bridge(ovs, is_up=True)
    ovs.vsctl("set", "Bridge", "br-site", "external_ids:evio-owner=evio.cni", "external_ids:evio-epoch=7")
    in_namespace(ovs.netns, "ip", "address", "add", "10.244.3.1/24", "dev", "br-site")
    ensure_bridge(replace(FOREIGN_SPEC, is_borrowed=True), ovsdb=ovs.ovsdb)
    assert ovs.vsctl("get", "Bridge", "br-site", "stp_enable") == "true"
    assert release_bridge("br-site", ovsdb=ovs.ovsdb)
    assert ovs.vsctl("get", "Bridge", "br-site", "external_ids") == "{owner=site}"
    assert ovs.vsctl("list-ports", "br-site") == "uplink"
    shown = in_namespace(ovs.netns, "ip", "-o", "address", "show", "dev", "br-site").stdout
    assert "10.244.3.1" not in shown
    assert "192.0.2.1/24" in shown


@pytest.mark.usefixtures("inside")
def test_our_bridge_has_the_fail_mode_secure_and_forwards(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    assert ovs.vsctl("get", "Bridge", "br-evio", "fail_mode") == "secure"
    target = f"unix:{ovs.directory}/br-evio.mgmt"
    flows = in_namespace(ovs.netns, "ovs-ofctl", "-OOpenFlow13", "--no-stats", "dump-flows", target).stdout
    assert flows.strip() == "priority=0 actions=NORMAL"
    in_namespace(ovs.netns, "ovs-ofctl", "-OOpenFlow13", "del-flows", target)
    assert [difference.name for difference in ensure_bridge(SPEC, ovsdb=ovs.ovsdb)] == ["flow"]
    assert not compare_bridge(SPEC, ovsdb=ovs.ovsdb).changed


@pytest.mark.usefixtures("inside")
def test_stopped_vswitchd_is_an_error_within_the_timeout(ovs: OpenVSwitch) -> None:
    ovs.kill_vswitchd()
    with pytest.raises(EvioError, match="is ovs-vswitchd running"):
        ensure_bridge(SPEC, ovsdb=ovs.ovsdb, timeout=1)


def test_stopped_ovsdb_server_is_an_error_that_names_its_socket() -> None:
    with pytest.raises(EvioError, match=r"unix:/nowhere/db\.sock does not answer"):
        compare_bridge(SPEC, ovsdb="unix:/nowhere/db.sock", timeout=1)


def test_invalid_spec_is_refused_before_ovsdb_is_asked() -> None:
    with pytest.raises(EvioError, match="datapath_type 'bogus'"):
        ensure_bridge(replace(SPEC, datapath_type="bogus"), ovsdb="unix:/nowhere/db.sock", timeout=1)


@pytest.mark.usefixtures("inside")
def test_bridge_of_a_slow_vswitchd_is_completed_by_the_next_run(ovs: OpenVSwitch) -> None:
    with ovs.paused_vswitchd():
        with pytest.raises(EvioError, match="has not taken up the change"):
            ensure_bridge(SPEC, ovsdb=ovs.ovsdb, timeout=1)
        row = ovs.vsctl("--no-wait", "get", "Bridge", "br-evio", "_uuid")
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    assert not compare_bridge(SPEC, ovsdb=ovs.ovsdb).changed
    assert ovs.vsctl("get", "Bridge", "br-evio", "_uuid") == row


@pytest.mark.usefixtures("inside")
def test_new_bridge_that_vswitchd_cannot_make_is_deleted(ovs: OpenVSwitch) -> None:
    in_namespace(ovs.netns, "ip", "tuntap", "add", "br-evio", "mode", "tun")
    with pytest.raises(EvioError, match=r"cannot make the bridge br-evio|has not made the device"):
        ensure_bridge(SPEC, ovsdb=ovs.ovsdb, timeout=2)
    assert ovs.vsctl("--no-wait", "list-br") == ""


@pytest.mark.usefixtures("inside")
def test_existing_bridge_stays_when_vswitchd_does_not_change_it(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    ovs.kill_vswitchd()
    with pytest.raises(EvioError):
        ensure_bridge(replace(SPEC, mtu=1400), ovsdb=ovs.ovsdb, timeout=1)
    assert ovs.vsctl("--no-wait", "list-br") == "br-evio"


@pytest.mark.usefixtures("inside")
def test_link_local_and_leased_addresses_stay(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    for address in ("169.254.7.7/16", "fe80::7/64"):
        in_namespace(ovs.netns, "ip", "address", "add", address, "dev", "br-evio")
    leased = ["2001:db8::7/64", "dev", "br-evio", "valid_lft", "600", "preferred_lft", "600"]
    in_namespace(ovs.netns, "ip", "address", "add", *leased)
    assert not ensure_bridge(SPEC, ovsdb=ovs.ovsdb).changed
    ensure_bridge(replace(SPEC, gateways=("10.244.9.1/24",), mac=SPEC.fixed_mac), ovsdb=ovs.ovsdb)
    shown = in_namespace(ovs.netns, "ip", "-o", "address", "show", "dev", "br-evio").stdout
    assert all(address in shown for address in ("169.254.7.7/16", "fe80::7/64", "2001:db8::7/64", "10.244.9.1/24"))
    assert "10.244.3.1/24" not in shown


@pytest.mark.usefixtures("inside")
def test_spec_without_gateways_leaves_addresses_alone(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    ensure_bridge(replace(SPEC, gateways=(), mtu=1400), ovsdb=ovs.ovsdb)
    assert (device(ovs)["mtu"], addresses(ovs)) == (1400, ["10.244.3.1/24"])


@pytest.mark.usefixtures("inside")
def test_bridge_with_an_mtu_below_ipv6_ignores_routers_once_its_mtu_grows(ovs: OpenVSwitch) -> None:
    narrow = replace(SPEC, mtu=1200)
    assert ensure_bridge(narrow, ovsdb=ovs.ovsdb).changed
    assert (device(ovs)["mtu"], addresses(ovs)) == (1200, ["10.244.3.1/24"])
    assert not compare_bridge(narrow, ovsdb=ovs.ovsdb).changed
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    assert in_namespace(ovs.netns, "sysctl", "-n", "net.ipv6.conf.br-evio.accept_ra").stdout == "0\n"
    assert not compare_bridge(SPEC, ovsdb=ovs.ovsdb).changed


@pytest.mark.usefixtures("inside")
def test_added_ipv6_gateway_is_set_and_forwarded(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    dual_stack = replace(SPEC, gateways=("10.244.3.1/24", "fd00:10:244:3::1/64"))
    names = [difference.name for difference in ensure_bridge(dual_stack, ovsdb=ovs.ovsdb)]
    assert names == ["gateways", "sysctl:net/ipv6/conf/all/forwarding"]
    assert addresses(ovs) == ["10.244.3.1/24", "fd00:10:244:3::1/64"]
    assert not compare_bridge(dual_stack, ovsdb=ovs.ovsdb).changed


@pytest.mark.usefixtures("inside")
def test_lost_local_port_is_created_again(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    [port] = ovs.vsctl("get", "Port", "br-evio", "_uuid").splitlines()
    ovs.vsctl("remove", "Bridge", "br-evio", "ports", port, "--", "set", "Bridge", "br-evio", "stp_enable=true")
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    assert not compare_bridge(SPEC, ovsdb=ovs.ovsdb).changed
    assert ovs.vsctl("get", "Interface", "br-evio", "mtu_request") == "1420"


@pytest.mark.usefixtures("inside")
def test_iptables_with_policy_drop_forwards_packets_of_pods(ovs: OpenVSwitch) -> None:
    ensure_bridge(SPEC, ovsdb=ovs.ovsdb)
    in_namespace(ovs.netns, "iptables", "-P", "FORWARD", "DROP")
    assert [difference.name for difference in compare_bridge(SPEC, ovsdb=ovs.ovsdb)] == ["forwarding"]
    assert [difference.name for difference in ensure_bridge(SPEC, ovsdb=ovs.ovsdb)] == ["forwarding"]
    rules = in_namespace(ovs.netns, "iptables", "-S", "FORWARD").stdout.splitlines()
    assert rules[0] == "-P FORWARD DROP"
    matches = sorted(rule.removeprefix("-A FORWARD ").partition(" -m ")[0] for rule in rules[1:])
    assert matches == ["-i br-evio", "-i br-evio -o br-evio", "-o br-evio"]
    assert not ensure_bridge(SPEC, ovsdb=ovs.ovsdb).changed
    remove_bridge("br-evio", ovsdb=ovs.ovsdb)
    assert in_namespace(ovs.netns, "iptables", "-S", "FORWARD").stdout.splitlines() == ["-P FORWARD DROP"]


def test_eight_concurrent_runs_create_one_bridge(ovs: OpenVSwitch) -> None:
    code = (
        "import sys\n"
        "from ansible_collections.evio.cni.plugins.module_utils.ovs.bridge import ensure_bridge\n"
        "from ansible_collections.evio.cni.plugins.module_utils.ovs.bridge_spec import BridgeSpec\n"
        "spec = BridgeSpec('br-evio', ('10.244.3.1/24', 'fd00:10:244:3::1/64'), mtu=1420, datapath_type=sys.argv[2])\n"
        "ensure_bridge(spec, ovsdb=sys.argv[1])\n"
    )
    command = ["nsenter", f"--net=/run/netns/{ovs.netns}", sys.executable, "-c", code, ovs.ovsdb, DATAPATH]
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    runs = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _run in range(8)]
    errors = [run.communicate(timeout=30)[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 8, errors
    assert ovs.vsctl("list-br") == "br-evio"
    assert addresses(ovs) == ["10.244.3.1/24", "fd00:10:244:3::1/64"]
