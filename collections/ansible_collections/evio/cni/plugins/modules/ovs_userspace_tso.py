#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node's whole Open vSwitch as an Ansible resource; ovs_switch of the library does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_userspace_tso
short_description: The datapath of a node's Open vSwitch
version_added: 0.1.0
description:
  - Finds out which datapath the node can have, and sets segmentation offload as that datapath wants it. The offload
    counts from the next start of C(ovs-vswitchd) on; RV(restart_needed) tells whether that is still to come.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: Where Open vSwitch is not installed or started yet, a warning says that it was taken for a new one.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - python3-openvswitch
options:
  datapath_type:
    description: The datapath, or V(auto) for the kernel's where it has one and that of vswitchd where not.
    type: str
    choices: [auto, system, netdev]
    default: auto
  ovsdb:
    description: Socket of the OVSDB server.
    type: str
    default: unix:/var/run/openvswitch/db.sock
  timeout:
    description: Seconds for all of it.
    type: float
    default: 10.0
"""

EXAMPLES = r"""
- name: Choose the datapath
  evio.cni.ovs_userspace_tso:
  register: switch

- name: Let it count
  ansible.builtin.systemd_service:
    name: ovs-vswitchd.service
    state: restarted
  when: switch.restart_needed
"""

RETURN = r"""
datapath_type:
  description: The datapath to be used for bridges, V(system) or V(netdev).
  returned: success
  type: str
  sample: netdev
restart_needed:
  description:
    - Whether C(ovs-vswitchd) must be started, or started anew, for what is set to count. True again in later runs until
      that has been done.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.errors import EvioError
from ..module_utils.ovs.datapath import probe_datapath
from ..module_utils.ovs.idl import OvsdbAbsentError
from ..module_utils.ovs.userspace_tso import SwitchState, ensure_switch, predict_switch


def ensure(module: AnsibleModule, datapath_type: str) -> SwitchState:
    params = module.params
    try:
        return ensure_switch(datapath_type, ovsdb=params["ovsdb"], timeout=params["timeout"], dry_run=module.check_mode)
    except OvsdbAbsentError as error:
        if not module.check_mode:
            raise
        module.warn(f"foretold for an Open vSwitch that is yet to be started: {error}")
        return predict_switch(datapath_type)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "datapath_type": {"type": "str", "choices": ["auto", "system", "netdev"], "default": "auto"},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": 10.0},
        },
        supports_check_mode=True,
    )
    datapath_type = module.params["datapath_type"]
    if datapath_type == "auto":
        datapath_type = probe_datapath()
    try:
        state = ensure(module, datapath_type)
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=state.differences.changed,
        diff=state.differences.diff(),
        datapath_type=datapath_type,
        restart_needed=state.is_restart_needed,
    )


if __name__ == "__main__":
    main()
