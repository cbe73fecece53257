#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod bridge as an Ansible resource; bridge makes it, over OVSDB and netlink."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_bridge
short_description: The Open vSwitch bridge that pods plug into
version_added: 0.1.0
description:
  - Makes a bridge with a fixed MAC and an MTU in one OVSDB transaction, without C(ovs-vsctl), gives it the gateway
    addresses of the node's pods, lets the node forward for them, and mends what has come to differ.
  - Its ports, and external_ids that are not named, stay as they are.
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
  - python3-pyroute2
options:
  name:
    description: The bridge's name.
    type: str
    required: true
  state:
    description:
      - Whether the bridge is there. Only a bridge that this collection has made is removed with V(absent).
      - V(released) gives a bridge back to who has made it. Gateways and marks of this collection go, the bridge stays.
    type: str
    choices: [present, absent, released]
    default: present
  gateways:
    description:
      - The bridge's addresses with their prefix lengths, at most one a family. Others, as of a subnet that the node had
        before, are removed; link-local ones and those with a lifetime are not.
      - None leaves the bridge's addresses as they are.
    type: list
    elements: str
    default: []
  mtu:
    description: MTU in bytes. Open vSwitch's own choice where it is not given.
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
  must_exist:
    description: Fails where the bridge is not there, which somebody else was to make, rather than making one.
    type: bool
    default: false
  sysctl_file:
    description:
      - File that lets the node forward for its pods from its boot on; removed with the bridge. An empty string is none.
    type: str
    default: /etc/sysctl.d/60-evio.conf
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
  returned: when O(state=present)
  type: list
  elements: str
  sample: [mtu, gateways]
mac:
  description: The bridge's fixed MAC.
  returned: when O(state=present)
  type: str
  sample: 0a:58:0a:f4:03:01
"""

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.differences import Differences
from ..module_utils.errors import EvioError
from ..module_utils.kernel.sysctl import compare_file, ensure_file
from ..module_utils.ovs.bridge import compare_bridge, ensure_bridge, release_bridge, remove_bridge
from ..module_utils.ovs.bridge_spec import OWNER, OWNER_ID, BridgeSpec, compare
from ..module_utils.ovs.idl import OvsdbAbsentError


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
    differences = [ensure(module, spec), keep_sysctls(module, spec.node_sysctls)]
    return {
        **as_result(*differences),
        "changes": [difference.name for each in differences for difference in each],
        "mac": spec.fixed_mac,
    }


def absent(module: AnsibleModule) -> dict[str, Any]:
    bridge = Differences()
    bridge.compare("bridge", None, module.params["name"] if take_off(module, remove_bridge) else None)
    return as_result(bridge, keep_sysctls(module, {}))


def released(module: AnsibleModule) -> dict[str, Any]:
    owner = Differences()
    owner.compare("owner", None, OWNER if take_off(module, release_bridge) else None)
    return as_result(owner, keep_sysctls(module, {}))


def ensure(module: AnsibleModule, spec: BridgeSpec) -> Differences:
    access = {key: module.params[key] for key in ("ovsdb", "timeout", "must_exist")}
    if not module.check_mode:
        return ensure_bridge(spec, **access)
    try:
        return compare_bridge(spec, **access)
    except OvsdbAbsentError as error:
        warn_of_absence(module, error)
        return compare(spec, None)


def take_off(module: AnsibleModule, how: Callable[..., bool]) -> bool:
    params = module.params
    try:
        return how(params["name"], ovsdb=params["ovsdb"], timeout=params["timeout"], dry_run=module.check_mode)
    except OvsdbAbsentError as error:
        if not module.check_mode:
            raise
        warn_of_absence(module, error)
        return False


def keep_sysctls(module: AnsibleModule, wanted: dict[str, str]) -> Differences:
    path = module.params["sysctl_file"]
    if not path:
        return Differences()
    return compare_file(path, wanted) if module.check_mode else ensure_file(path, wanted)


def warn_of_absence(module: AnsibleModule, error: OvsdbAbsentError) -> None:
    module.warn(f"foretold for an Open vSwitch that is yet to be started: {error}")


def as_result(*differences: Differences) -> dict[str, Any]:
    diffs = [each.diff() for each in differences]
    return {
        "changed": any(each.changed for each in differences),
        "diff": {side: {name: value for diff in diffs for name, value in diff[side].items()} for side in diffs[0]},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent", "released"], "default": "present"},
            "gateways": {"type": "list", "elements": "str", "default": []},
            "mtu": {"type": "int"},
            "mac": {"type": "str"},
            "datapath_type": {"type": "str", "choices": ["system", "netdev"], "default": "system"},
            "external_ids": {"type": "dict", "default": {}},
            "must_exist": {"type": "bool", "default": False},
            "sysctl_file": {"type": "str", "default": paths.SYSCTL_FILE},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": 10.0},
        },
        supports_check_mode=True,
    )
    try:
        result = {"present": present, "absent": absent, "released": released}[module.params["state"]](module)
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
