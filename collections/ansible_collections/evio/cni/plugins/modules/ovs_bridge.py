#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod bridge as an Ansible resource; bridge makes it, over OVSDB and netlink."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_bridge
short_description: The Open vSwitch bridge that pods plug into
version_added: 0.1.0
description:
  - Makes a bridge with its gateway addresses, a fixed MAC and an MTU in one OVSDB transaction, without C(ovs-vsctl),
    and mends what has come to differ. Its ports, and external_ids that are not named, stay as they are.
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
  - python3-pyroute2
options:
  name:
    description: The bridge's name.
    type: str
    required: true
  state:
    description: Whether the bridge is there. Only a bridge that this collection has made is removed.
    type: str
    choices: [present, absent]
    default: present
  gateways:
    description: The bridge's addresses with their prefix lengths, at most one a family. Others on it are removed.
    type: list
    elements: str
    default: []
  mtu:
    description: MTU in bytes.
    type: int
  mac:
    description: The bridge's MAC. Follows from the first of O(gateways) where it is not given, so it never changes.
    type: str
  datapath_type:
    description: The kernel's datapath (V(system)) or that of vswitchd (V(netdev)).
    type: str
    choices: [system, netdev]
    default: system
  external_ids:
    description: Keys that are set on the bridge besides C(evio-owner).
    type: dict
    default: {}
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
- name: Set up the pod bridge
  evio.cni.ovs_bridge:
    name: br-evio
    gateways: [10.244.3.1/24]
    mtu: 1420
    datapath_type: netdev
"""

RETURN = r"""
changes:
  description: The properties that were set, by name.
  returned: O(state=present)
  type: list
  elements: str
  sample: [mtu, gateways]
mac:
  description: The bridge's fixed MAC.
  returned: O(state=present)
  type: str
  sample: 0a:58:0a:f4:03:01
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.bridge import compare_bridge, ensure_bridge, remove_bridge
from ..module_utils.bridge_spec import OWNER, OWNER_ID, BridgeSpec, check_spec, compare
from ..module_utils.differences import Differences
from ..module_utils.errors import EvioError


def present(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    spec = BridgeSpec(
        params["name"],
        tuple(params["gateways"]),
        mtu=params["mtu"],
        datapath_type=params["datapath_type"],
        mac=params["mac"],
        external_ids={OWNER_ID: OWNER, **{key: str(value) for key, value in params["external_ids"].items()}},
    )
    differences = _act(module, spec)
    return {
        "changed": differences.changed,
        "changes": [difference.name for difference in differences],
        "mac": spec.fixed_mac,
        "diff": differences.diff(),
    }


def absent(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    changed = remove_bridge(params["name"], ovsdb=params["ovsdb"], timeout=params["timeout"], dry_run=module.check_mode)
    return {"changed": changed, "diff": {"before": {"bridge": params["name"]} if changed else {}, "after": {}}}


def _act(module: AnsibleModule, spec: BridgeSpec) -> Differences:
    ovsdb, timeout = module.params["ovsdb"], module.params["timeout"]
    if not module.check_mode:
        return ensure_bridge(spec, ovsdb=ovsdb, timeout=timeout)
    if not os.path.exists(ovsdb.removeprefix("unix:")):
        # Open vSwitch is not there yet: a task before this one would have started it, and then there is no bridge.
        check_spec(spec)
        return compare(spec, None)
    return compare_bridge(spec, ovsdb=ovsdb, timeout=timeout)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "gateways": {"type": "list", "elements": "str", "default": []},
            "mtu": {"type": "int"},
            "mac": {"type": "str"},
            "datapath_type": {"type": "str", "choices": ["system", "netdev"], "default": "system"},
            "external_ids": {"type": "dict", "default": {}},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": 10.0},
        },
        supports_check_mode=True,
    )
    try:
        result = present(module) if module.params["state"] == "present" else absent(module)
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
