# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Userspace TSO of an Open vSwitch that is not installed yet: predicted from the datapath type."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.ovs.jsonrpc import OvsdbError
from ansible_collections.evio.cni.plugins.module_utils.ovs.userspace_tso import predict_switch


def test_new_switch_is_predicted_from_its_datapath_type() -> None:
    assert predict_switch("netdev").is_restart_needed
    assert not predict_switch("system").differences.changed
    with pytest.raises(OvsdbError, match="datapath_type 'dpdk'"):
        predict_switch("dpdk")
