#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that chooses the datapath and sets segmentation offload for it; ovs/userspace_tso does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_userspace_tso
short_description: Choose the datapath of a node's Open vSwitch, and set segmentation offload for it
version_added: 0.1.0
description:
  - Finds out which datapath the node can have, and sets segmentation offload in user space as that datapath needs it.
  - Before that, it keeps O(files) and O(units), so that it can write settings and start Open vSwitch first.
  - C(ovs-vswitchd) reads this setting only when it starts. RV(restart_needed) says whether it has to be restarted.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.ovsdb
  - evio.cni.ovsdb.timeout
  - evio.cni.units
attributes:
  check_mode:
    support: full
    details: If Open vSwitch is not installed or not started yet, the module predicts for an empty one and warns.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - python3-openvswitch
options:
  datapath_type:
    description: The datapath. V(auto) is the kernel's if the kernel has one, else that of ovs-vswitchd.
    type: str
    choices: [auto, system, netdev]
    default: auto
"""

EXAMPLES = r"""
- name: Choose the datapath
  evio.cni.ovs_userspace_tso:
  register: switch

- name: Restart ovs-vswitchd with the new setting
  ansible.builtin.systemd_service:
    name: ovs-vswitchd.service
    state: restarted
  when: switch.restart_needed
"""

RETURN = r"""
datapath_type:
  description: The datapath to use for bridges, V(system) or V(netdev).
  returned: success
  type: str
  sample: netdev
files:
  description: Those of O(files) that were changed or, in check mode, would be changed.
  returned: success
  type: list
  elements: str
units:
  description: Those of O(units) that were changed or, in check mode, would be changed.
  returned: success
  type: list
  elements: str
restart_needed:
  description:
    - Whether C(ovs-vswitchd) must be started or restarted for the setting to take effect. Later runs return true too,
      until that has been done.
  returned: success
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.defaults import OVS_TIMEOUT
from ..module_utils.managed_file import result_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.names import DATAPATH_TYPES
from ..module_utils.ovs.datapath import probe_datapath
from ..module_utils.ovs.idl import OvsdbAbsentError
from ..module_utils.ovs.userspace_tso import SwitchState, ensure_switch, predict_switch
from ..module_utils.systemd_units import OPTIONS, from_options


class OvsUserspaceTso:
    """One run: choose the datapath, compare the offload, set it unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params
        wanted: str = self.params["datapath_type"]
        self.datapath_type = probe_datapath() if wanted == "auto" else wanted
        self.units = from_options(self.params["files"], self.params["units"], dry_run=module.check_mode)

    def run(self) -> dict[str, Any]:
        self.units.write_files()
        self.units.start()
        state = self._ensure()
        return {
            **self.units.result(),
            **result_of(*self.units.parts(), state.differences),
            "datapath_type": self.datapath_type,
            "restart_needed": state.is_restart_needed,
        }

    def _ensure(self) -> SwitchState:
        access = {"ovsdb": self.params["ovsdb"], "timeout": self.params["timeout"]}
        try:
            return ensure_switch(self.datapath_type, dry_run=self.module.check_mode, **access)
        except OvsdbAbsentError as error:
            if not self.module.check_mode:
                raise
            self.module.warn(f"predicted for an Open vSwitch that is not started yet: {error}")
            return predict_switch(self.datapath_type)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "datapath_type": {"type": "str", "choices": ["auto", *DATAPATH_TYPES], "default": "auto"},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": OVS_TIMEOUT},
            **OPTIONS,
        },
        supports_check_mode=True,
    )
    run_module(module, OvsUserspaceTso)


if __name__ == "__main__":
    main()
