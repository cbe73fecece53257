#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that keeps the pod bridge; ovs/bridge does the work over OVSDB and netlink."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_bridge
short_description: Keep the Open vSwitch bridge that pods are plugged into
version_added: 0.1.0
description:
  - Creates a bridge with a fixed MAC and an MTU in one OVSDB transaction, without C(ovs-vsctl), gives it the gateway
    addresses of the node's pods, lets the node forward packets of the pods, and repairs what differs.
  - Ports, and external_ids that are not given, stay as they are.
  - A bridge without the mark of this collection (external_ids:evio-owner) is somebody else's. It is only given the
    gateways. Where O(mtu), O(mac) or O(datapath_type) asks for anything that it does not have, the module fails.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.ovsdb
  - evio.cni.ovsdb.timeout
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
  - python3-pyroute2
options:
  name:
    description: The bridge's name.
    type: str
    required: true
  state:
    description:
      - Whether the bridge exists. V(absent) removes only a bridge that this collection has created.
      - V(released) removes the gateways that this collection has added, and its marks, from a bridge that someone else
        has created. The bridge stays, as it was before.
    type: str
    choices: [present, absent, released]
    default: present
  gateways:
    description:
      - The bridge's addresses with their prefix lengths, at most one IPv4 and one IPv6.
      - Other addresses are removed, for example those of a subnet that the node had before. Link-local addresses and
        addresses with a lifetime stay, and so do all that somebody else's bridge has of its own.
      - If the list is empty, the bridge's addresses stay as they are.
    type: list
    elements: str
    default: []
  service_cidrs:
    description: >-
      Networks of Services that the node itself reaches by the bridge, with the gateway of the same IP version as
      source. Needed where the overlay has no interface of its own.
    type: list
    elements: str
    default: []
  mtu:
    description: MTU in bytes. Open vSwitch chooses it if it is not given.
    type: int
  mac:
    description: The bridge's MAC. If it is not given, it is derived from the first of O(gateways), so it never changes.
    type: str
  datapath_type:
    description: The datapath of the kernel (V(system)) or of ovs-vswitchd (V(netdev)).
    type: str
    choices: [system, netdev]
    default: system
  external_ids:
    description: Keys that are set on the bridge besides C(evio-owner).
    type: dict
    default: {}
  must_exist:
    description: Fails if the bridge does not exist, instead of creating it. For a bridge that someone else creates.
    type: bool
    default: false
  adopt:
    description:
      - Makes a bridge without the mark of this collection its own, instead of treating it as somebody else's.
        For a bridge that a program of the same overlay creates, such as EdgeVPN.io.
    type: bool
    default: false
  sysctl_file:
    description:
      - File that lets the node forward packets of its pods after a boot. It is removed with the bridge. Empty for none.
    type: str
    default: /etc/sysctl.d/60-evio.conf
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
  description: Names of the properties that were changed, and O(sysctl_file) if it was changed.
  returned: when O(state=present)
  type: list
  elements: str
  sample: [mtu, gateways]
mac:
  description: The bridge's fixed MAC.
  returned: when O(state=present)
  type: str
  sample: 0a:58:0a:f4:03:01
blocked:
  description:
    - A sentence for each chain of the node's firewalls that drops what pods send to the internet, with its remedy.
    - They are also warnings of the module. Empty in check mode.
  returned: when O(state=present)
  type: list
  elements: str
  sample:
    - >-
      inet filter forward drops what pods send to the internet; remedy: nft insert rule inet filter forward 'iifname
      "br-evio" accept', there and in its file
mtu:
  description: The MTU that the bridge has, in bytes. Null if the bridge has no network device yet.
  returned: when O(state=present)
  type: int
  sample: 1420
"""

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.defaults import DATAPATH_TYPE, OVS_TIMEOUT
from ..module_utils.differences import Differences
from ..module_utils.kernel.sysctl import settings_file_change
from ..module_utils.managed_file import FileChange, result_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.names import DATAPATH_TYPES
from ..module_utils.ovs.bridge import blocking_chains, compare_bridge, ensure_bridge, release_bridge, remove_bridge
from ..module_utils.ovs.bridge_device import read_link
from ..module_utils.ovs.bridge_spec import BridgeSpec, compare
from ..module_utils.ovs.external_ids import OWNER, OWNER_ID
from ..module_utils.ovs.idl import OvsdbAbsentError


class OvsBridge:
    """One run: compare bridge and sysctl file with what is wanted, act unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params
        self.check_mode = module.check_mode
        self.blocked: list[str] = []

    def run(self) -> dict[str, Any]:
        states = {"present": self._present, "absent": self._absent, "released": self._released}
        return states[self.params["state"]]()

    def _present(self) -> dict[str, Any]:
        params = self.params
        external_ids = {key: str(value) for key, value in params["external_ids"].items()}
        spec = BridgeSpec(
            params["name"],
            tuple(params["gateways"]),
            mtu=params["mtu"],
            datapath_type=params["datapath_type"],
            mac=params["mac"],
            external_ids={OWNER_ID: OWNER, **external_ids},
            service_cidrs=tuple(params["service_cidrs"]),
            may_adopt=params["adopt"],
            is_borrowed=params["must_exist"],
        )
        bridge = self._ensure(spec)
        settings = self._keep_settings(spec.node_sysctls)
        changes = [difference.name for difference in bridge] + [str(change.file.path) for change in settings]
        result = result_of(bridge, *settings)
        return {**result, "changes": changes, "mac": spec.fixed_mac, "mtu": self._mtu(), "blocked": self.blocked}

    def _mtu(self) -> int | None:
        try:
            link = read_link(self.params["name"])
        except OvsdbAbsentError:
            return None
        return link.mtu if link is not None else None

    def _absent(self) -> dict[str, Any]:
        bridge = Differences()
        bridge.compare("bridge", None, self.params["name"] if self._take_off(remove_bridge) else None)
        return result_of(bridge, *self._keep_settings({}))

    def _released(self) -> dict[str, Any]:
        bridge = Differences()
        bridge.compare("owner", None, OWNER if self._take_off(release_bridge) else None)
        return result_of(bridge, *self._keep_settings({}))

    def _ensure(self, spec: BridgeSpec) -> Differences:
        access = {key: self.params[key] for key in ("ovsdb", "timeout", "must_exist")}
        if not self.check_mode:
            differences = ensure_bridge(spec, **access)
            self.blocked = [str(chain) for chain in blocking_chains(spec)]
            for chain in self.blocked:
                self.module.warn(f"a firewall of this node: {chain}")
            return differences
        try:
            return compare_bridge(spec, **access)
        except OvsdbAbsentError as error:
            self._warn_of_prediction(error)
            return compare(spec, None)

    def _take_off(self, remove: Callable[..., bool]) -> bool:
        """Remove or release the bridge, and return whether there was anything to do."""
        params = self.params
        try:
            return remove(params["name"], ovsdb=params["ovsdb"], timeout=params["timeout"], dry_run=self.check_mode)
        except OvsdbAbsentError as error:
            if not self.check_mode:
                raise
            self._warn_of_prediction(error)
            return False

    def _keep_settings(self, wanted: dict[str, str]) -> list[FileChange]:
        """Write or remove the sysctl file, and return its change if there is one."""
        path = self.params["sysctl_file"]
        if not path:
            return []
        change = settings_file_change(path, wanted)
        if not self.check_mode:
            change.apply()
        return [change] if change.changed else []

    def _warn_of_prediction(self, error: OvsdbAbsentError) -> None:
        self.module.warn(f"predicted for an Open vSwitch that is not started yet: {error}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent", "released"], "default": "present"},
            "gateways": {"type": "list", "elements": "str", "default": []},
            "service_cidrs": {"type": "list", "elements": "str", "default": []},
            "mtu": {"type": "int"},
            "mac": {"type": "str"},
            "datapath_type": {"type": "str", "choices": list(DATAPATH_TYPES), "default": DATAPATH_TYPE},
            "external_ids": {"type": "dict", "default": {}},
            "must_exist": {"type": "bool", "default": False},
            "adopt": {"type": "bool", "default": False},
            "sysctl_file": {"type": "str", "default": paths.SYSCTL_FILE},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": OVS_TIMEOUT},
        },
        supports_check_mode=True,
    )
    run_module(module, OvsBridge)


if __name__ == "__main__":
    main()
