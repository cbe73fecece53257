#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Readiness of the host overlay, measured: reachability pings, overlay_state knows the ways, this names the silent."""

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_ready_info
short_description: Wait until this node reaches the others through the host overlay
version_added: 0.1.0
description:
  - Pings every other node's host overlay address with packets of the overlay's full MTU that may not be fragmented,
    until all that must answer have done so.
  - Fails naming the pairs that do not reach each other, and whether smaller packets do.
  - Warns of a C(wireguard-go) that is from before segmentation offload.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: Whom this node does not reach yet is said in a warning, since the run might change it.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  node:
    description: This node's name, for the messages.
    type: str
    required: true
  addresses:
    description: The nodes' addresses in the host overlay, by the nodes' names. This node's own is left out.
    type: dict
    required: true
  required_nodes:
    description: Names of those that must answer. All of O(addresses) if it is not given.
    type: list
    elements: str
  interface:
    description: The overlay's interface, looked for in check mode unless it is empty.
    type: str
    default: evio0
  mtu:
    description: Bytes of an IP packet inside the overlay.
    type: int
    default: 1420
  timeout:
    description: Seconds until all must have answered.
    type: float
    default: 60.0
  state_file:
    description: Where the agent of the WireGuard backend says which way it goes. Empty with other backends.
    type: str
    default: /run/evio-cni/overlay.json
"""

EXAMPLES = r"""
- name: Wait until this node reaches the others
  evio.cni.overlay_ready_info:
    node: node3
    addresses:
      node1: 10.10.0.1
      node2: 10.10.0.2
"""

RETURN = r"""
ready:
  description: Whether all that must answer have done so.
  returned: always
  type: bool
peers:
  description: The other nodes and how they are reached.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The node's name.
      type: str
    address:
      description: Its address in the host overlay.
      type: str
    reachable:
      description: Whether it has answered.
      type: bool
    small_only:
      description: Whether it answers to smaller packets though not to those of the full MTU.
      type: bool
    path:
      description: V(direct), or the name of the relay; null where it is not known or there is none.
      type: str
    rtt_ms:
      description: The round trip in ms.
      type: float
  sample:
    - {name: node2, address: 10.10.0.2, reachable: true, small_only: false, path: direct, rtt_ms: 0.8}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.defaults import OVERLAY_MTU
from ..module_utils.errors import EvioError
from ..module_utils.overlay.reachability import ping_all
from ..module_utils.overlay.wireguard.config import INTERFACE
from ..module_utils.overlay.wireguard.device import USERSPACE, userspace_is_slow
from ..module_utils.overlay.wireguard.interface import link_exists
from ..module_utils.overlay.wireguard.state import OverlayState, read_state

CHECK_MODE_TIMEOUT = 3.0
SMALL_PACKET_TIMEOUT = 2.0
SMALL_PACKET = 84
"""Bytes: what ping sends if nobody asks for more."""


class OverlayReady:
    """One run: ping until all that must answer do, then say who did and by which way."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.addresses = {name: str(address) for name, address in self.params["addresses"].items()}
        self.addresses.pop(self.params["node"], None)
        required = self.params["required_nodes"]
        self.required = [name for name in self.addresses if required is None or name in required]

    def run(self) -> dict[str, Any]:
        timeout = self.params["timeout"]
        if self.module.check_mode:
            if self.params["interface"] and not link_exists(self.params["interface"]):
                self.module.warn(
                    f"{self.params['interface']} is not there yet: whether nodes reach each other is not known"
                )
                return {"changed": False, "ready": False, "peers": []}
            timeout = min(timeout, CHECK_MODE_TIMEOUT)
        answers = ping_all(
            self.addresses.values(),
            self.params["mtu"],
            timeout,
            [self.addresses[name] for name in self.required],
        )
        state = self._state()
        if state is not None and state.device == USERSPACE and (slow := userspace_is_slow()):
            self.module.warn(f"{slow} is 5 times slower than v0.0.20230223 and newer: see evio_wireguard_go_package")
        ways = {peer.name: peer.path for peer in state.peers} if state is not None else {}
        silent = [name for name in self.required if answers[self.addresses[name]] is None]
        small = ping_all([self.addresses[name] for name in silent], SMALL_PACKET, SMALL_PACKET_TIMEOUT)
        peers = [
            {
                "name": name,
                "address": address,
                "reachable": answers[address] is not None,
                "small_only": small.get(address) is not None,
                "path": ways.get(name),
                "rtt_ms": None if (rtt := answers[address]) is None else round(rtt, 2),
            }
            for name, address in self.addresses.items()
        ]
        result = {"changed": False, "ready": not silent, "peers": peers}
        if silent and self.module.check_mode:
            self.module.warn(self._why(silent, small))
        elif silent:
            self.module.fail_json(msg=self._why(silent, small), **result)
        return result

    def _state(self) -> OverlayState | None:
        state = read_state(self.params["state_file"]) if self.params["state_file"] else None
        return state if state is not None and state.is_fresh() else None

    def _why(self, silent: list[str], small: dict[str, float | None]) -> str:
        mtu = self.params["mtu"]
        words = []
        for name in silent:
            address = self.addresses[name]
            pair = f"{self.params['node']} does not reach {name} ({address})"
            if small[address] is not None:
                words.append(f"{pair} with packets of {mtu} bytes, but with small ones: give a lower evio_mtu")
            else:
                hint = ": look at 'evio overlay status' and 'wg show' on both" if self.params["state_file"] else ""
                words.append(f"{pair} at all{hint}")
        state = self._state()
        if self.params["state_file"] and state is None:
            words.append("the overlay's agent does not run: look at 'journalctl -u evio-overlay'")
        elif state is not None and state.fault:
            words.append(f"the overlay's agent says: {state.fault}")
        return "; ".join(words)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str", "required": True},
            "addresses": {"type": "dict", "required": True},
            "required_nodes": {"type": "list", "elements": "str"},
            "interface": {"type": "str", "default": INTERFACE},
            "mtu": {"type": "int", "default": OVERLAY_MTU},
            "timeout": {"type": "float", "default": 60.0},
            "state_file": {"type": "str", "default": paths.OVERLAY_STATE},
        },
        supports_check_mode=True,
    )
    try:
        result = OverlayReady(module).run()
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
