# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a switch that is yet to be installed will want, by its datapath."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.ovs import userspace_tso as ovs_switch


def test_new_switch_is_foretold_by_its_datapath() -> None:
    assert ovs_switch.predict_switch("netdev").is_restart_needed
    assert not ovs_switch.predict_switch("system").differences.changed
    with pytest.raises(ovs_switch.OvsdbError, match="datapath_type 'dpdk'"):
        ovs_switch.predict_switch("dpdk")
