# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Userspace TSO is set before vswitchd starts, and only with datapath ``netdev``."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.ovs.external_ids import USERSPACE_TSO
from ansible_collections.evio.cni.plugins.module_utils.ovs.userspace_tso import ensure_switch

from .ovs_daemons import OpenVSwitch

pytestmark = pytest.mark.root


def test_offload_is_set_while_vswitchd_is_not_running(ovs: OpenVSwitch) -> None:
    ovs.kill_vswitchd()
    assert ensure_switch("netdev", ovsdb=ovs.ovsdb, timeout=2, dry_run=True).differences.changed
    assert ensure_switch("netdev", ovsdb=ovs.ovsdb, timeout=2).differences.changed
    assert ovs.vsctl("--no-wait", "get", "Open_vSwitch", ".", f"other_config:{USERSPACE_TSO}") == '"true"'
    assert not ensure_switch("netdev", ovsdb=ovs.ovsdb, timeout=2).differences.changed


def test_kernel_datapath_without_the_setting_needs_no_change(ovs: OpenVSwitch) -> None:
    assert not ensure_switch("system", ovsdb=ovs.ovsdb).differences.changed
    ensure_switch("netdev", ovsdb=ovs.ovsdb)
    assert ensure_switch("system", ovsdb=ovs.ovsdb).differences.changed


def test_other_settings_stay(ovs: OpenVSwitch) -> None:
    ovs.vsctl("set", "Open_vSwitch", ".", "other_config:n-revalidator-threads=1")
    ensure_switch("netdev", ovsdb=ovs.ovsdb)
    assert ovs.vsctl("get", "Open_vSwitch", ".", "other_config:n-revalidator-threads") == '"1"'
