#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node's whole Open vSwitch as an Ansible resource; ovs_switch of the library does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_switch
short_description: The datapath of a node's Open vSwitch
version_added: 0.1.0
description:
  - Finds out which datapath the node can have, and sets segmentation offload as that datapath wants it. The offload
    counts from the next start of C(ovs-vswitchd) on, so run this between the starts of the OVSDB server and of
    C(ovs-vswitchd), and restart the latter when this has changed.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
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
  evio.cni.ovs_switch:
  register: switch
"""

RETURN = r"""
datapath_type:
  description: The datapath to be used for bridges, V(system) or V(netdev).
  returned: success
  type: str
  sample: netdev
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.errors import EvioError
from ..module_utils.ovs_switch import compare_switch, ensure_switch, probe_datapath


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "datapath_type": {"type": "str", "choices": ["auto", "system", "netdev"], "default": "auto"},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": 10.0},
        },
        supports_check_mode=True,
    )
    ovsdb = module.params["ovsdb"]
    datapath_type = module.params["datapath_type"]
    if datapath_type == "auto":
        datapath_type = probe_datapath()
    try:
        if module.check_mode and not os.path.exists(ovsdb.removeprefix("unix:")):
            # The OVSDB server is not there yet: a task before this one would have started it, with nothing set.
            differences = compare_switch(datapath_type, {})
        else:
            differences = ensure_switch(
                datapath_type, ovsdb=ovsdb, timeout=module.params["timeout"], dry_run=module.check_mode
            )
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=differences.changed, datapath_type=datapath_type, diff=differences.diff())


if __name__ == "__main__":
    main()
