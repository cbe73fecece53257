# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules ovs_bridge and ovs_userspace_tso: each change in check mode, for real, and again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .ansible_module import check_do_again, run_module
from .ovs_daemons import DATAPATH, OpenVSwitch, in_namespace

pytestmark = pytest.mark.root


@pytest.fixture
def bridge(ovs: OpenVSwitch, tmp_path: Path) -> dict[str, Any]:
    return {
        "netns": ovs.netns,
        "name": "br-evio",
        "gateways": ["10.244.3.1/24", "fd00:10:244:3::1/64"],
        "mtu": 1420,
        "datapath_type": DATAPATH,
        "external_ids": {"evio-epoch": 7},
        "sysctl_file": str(tmp_path / "sysctl.d/60-evio.conf"),
        "ovsdb": ovs.ovsdb,
    }


def test_bridge_is_created_and_forwarding_enabled_for_the_next_boot(ovs: OpenVSwitch, bridge: dict[str, Any]) -> None:
    done = check_do_again("ovs_bridge", **bridge)[1]
    assert done["mac"] == "0a:58:0a:f4:03:01"
    assert ovs.vsctl("get", "Bridge", "br-evio", "external_ids:evio-epoch") == '"7"'
    assert Path(bridge["sysctl_file"]).read_text().splitlines()[1:] == [
        "net.ipv4.ip_forward = 1",
        "net.ipv6.conf.all.forwarding = 1",
    ]


def test_changed_mtu_is_the_only_change(bridge: dict[str, Any]) -> None:
    run_module("ovs_bridge", **bridge)
    done = check_do_again("ovs_bridge", **{**bridge, "mtu": 1380})[1]
    assert done["changes"] == ["mtu"]


def test_bridge_is_removed_with_its_sysctl_file(ovs: OpenVSwitch, bridge: dict[str, Any]) -> None:
    run_module("ovs_bridge", **bridge)
    check_do_again("ovs_bridge", **{**bridge, "state": "absent"})
    assert ovs.vsctl("list-br") == ""
    assert not Path(bridge["sysctl_file"]).exists()


def test_missing_bridge_that_must_exist_is_not_created(ovs: OpenVSwitch, bridge: dict[str, Any]) -> None:
    for check_mode in (True, False):
        refused = run_module("ovs_bridge", check_mode=check_mode, **bridge, must_exist=True)
        assert "there is no bridge br-evio, which must exist already" in refused["msg"]
    assert ovs.vsctl("list-br") == ""
    ovs.vsctl("add-br", "br-evio", "--", "set", "Bridge", "br-evio", f"datapath_type={DATAPATH}")
    refused = run_module("ovs_bridge", **bridge, must_exist=True)
    assert "the bridge br-evio is not evio.cni's" in refused["msg"]
    assert "mtu is 1500, asked for is 1420" in refused["msg"]
    ovs.vsctl("set", "Interface", "br-evio", "mtu_request=1420")
    check_do_again("ovs_bridge", **bridge, must_exist=True)
    assert "evio-owner" not in ovs.vsctl("get", "Bridge", "br-evio", "external_ids")


def test_bridge_is_released_and_its_sysctl_file_removed(ovs: OpenVSwitch, bridge: dict[str, Any]) -> None:
    run_module("ovs_bridge", **bridge)
    check_do_again("ovs_bridge", **{**bridge, "state": "released"})
    assert ovs.vsctl("list-br") == "br-evio"
    assert not Path(bridge["sysctl_file"]).exists()


def test_check_mode_predicts_the_bridge_of_a_node_without_open_vswitch(
    ovs: OpenVSwitch, bridge: dict[str, Any]
) -> None:
    ovs.stop()
    predicted = run_module("ovs_bridge", check_mode=True, **bridge)
    assert predicted["changed"]
    assert "is ovsdb-server running?" in str(predicted["warnings"])
    assert run_module("ovs_bridge", **bridge)["failed"]
    ovs.empty_database()
    ovs.start()
    assert run_module("ovs_bridge", **bridge)["diff"] == predicted["diff"]


def test_invalid_gateway_is_refused_by_value(bridge: dict[str, Any]) -> None:
    failed = run_module("ovs_bridge", **{**bridge, "gateways": ["10.244.3.1"]})
    assert failed["failed"]
    assert "gateway '10.244.3.1'" in failed["msg"]


def test_second_run_writes_nothing_to_ovsdb(ovs: OpenVSwitch, bridge: dict[str, Any]) -> None:
    run_module("ovs_bridge", **bridge)
    before = ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg")
    run_module("ovs_bridge", **bridge)
    assert ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg") == before


def test_offload_needs_a_restart_until_vswitchd_was_restarted(ovs: OpenVSwitch) -> None:
    switch = {"netns": ovs.netns, "datapath_type": "netdev", "ovsdb": ovs.ovsdb}
    results = check_do_again("ovs_userspace_tso", **switch)
    assert [result["restart_needed"] for result in results] == [True, True, True]
    ovs.kill_vswitchd()
    ovs.start_vswitchd()
    again = run_module("ovs_userspace_tso", **switch)
    assert (again["changed"], again["restart_needed"]) == (False, False)
    assert again["datapath_type"] == "netdev"


def test_check_mode_predicts_the_switch_of_a_node_without_open_vswitch(netns: str, tmp_path: Path) -> None:
    switch = {"netns": netns, "datapath_type": "netdev", "ovsdb": f"unix:{tmp_path}/none.sock"}
    predicted = run_module("ovs_userspace_tso", check_mode=True, **switch)
    assert (predicted["changed"], predicted["restart_needed"]) == (True, True)
    assert run_module("ovs_userspace_tso", **switch)["failed"]


def test_pod_cannot_become_the_router_of_its_node(ovs: OpenVSwitch, bridge: dict[str, Any]) -> None:
    run_module("ovs_bridge", **bridge)
    assert in_namespace(ovs.netns, "sysctl", "-n", "net.ipv6.conf.br-evio.accept_ra").stdout.strip() == "0"
    assert json.loads(in_namespace(ovs.netns, "ip", "-j", "-6", "route", "show", "default").stdout) == []
