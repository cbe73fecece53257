#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Readiness of the host overlay, measured: reachability pings, overlay_state knows the ways, this names the silent."""

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_ready
short_description: Wait until this node reaches the others through the host overlay
version_added: 0.1.0
description:
  - Pings every other node's host overlay address with packets of the overlay's full MTU that may not be fragmented,
    until all that must answer have done so.
  - Fails naming the pairs that do not reach each other, and whether smaller packets do.
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
  required:
    description: Names of those that must answer. All of O(addresses) if it is not given.
    type: list
    elements: str
  interface:
    description: The overlay's interface.
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
  evio.cni.overlay_ready:
    node: node3
    addresses:
      node1: 10.10.0.1
      node2: 10.10.0.2
"""

RETURN = r"""
peers:
  description: The other nodes and how they are reached.
  returned: always
  type: list
  elements: dict
  sample:
    - {name: node2, address: 10.10.0.2, reachable: true, path: direct, rtt_ms: 0.8}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.errors import EvioError
from ..module_utils.overlay_config import INTERFACE, MTU
from ..module_utils.overlay_links import link_exists
from ..module_utils.overlay_state import OverlayState, read_state
from ..module_utils.reachability import ping_all

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
        required = self.params["required"]
        self.required = [name for name in self.addresses if required is None or name in required]

    def run(self) -> dict[str, Any]:
        timeout = self.params["timeout"]
        if self.module.check_mode:
            if not link_exists(self.params["interface"]):
                self.module.warn(
                    f"{self.params['interface']} is not there yet: whether nodes reach each other is not known"
                )
                return {"changed": False, "peers": []}
            timeout = min(timeout, CHECK_MODE_TIMEOUT)
        answers = ping_all(
            self.addresses.values(),
            self.params["mtu"],
            timeout,
            [self.addresses[name] for name in self.required],
        )
        state = self._state()
        ways = {peer.name: peer.path for peer in state.peers} if state is not None else {}
        peers = [self._peer(name, answers[address], ways.get(name)) for name, address in self.addresses.items()]
        silent = [name for name in self.required if answers[self.addresses[name]] is None]
        if silent and self.module.check_mode:
            self.module.warn(self._why(silent))
        elif silent:
            self.module.fail_json(msg=self._why(silent), peers=peers)
        return {"changed": False, "peers": peers}

    def _peer(self, name: str, rtt: float | None, way: str | None) -> dict[str, Any]:
        return {
            "name": name,
            "address": self.addresses[name],
            "reachable": rtt is not None,
            "path": way,
            "rtt_ms": round(rtt, 2) if rtt is not None else None,
        }

    def _state(self) -> OverlayState | None:
        state = read_state(self.params["state_file"]) if self.params["state_file"] else None
        return state if state is not None and state.is_fresh() else None

    def _why(self, silent: list[str]) -> str:
        mtu = self.params["mtu"]
        small = ping_all([self.addresses[name] for name in silent], SMALL_PACKET, SMALL_PACKET_TIMEOUT)
        words = []
        for name in silent:
            address = self.addresses[name]
            pair = f"{self.params['node']} does not reach {name} ({address})"
            if small[address] is not None:
                words.append(f"{pair} with packets of {mtu} bytes, but with small ones: give a lower evio_mtu")
            else:
                words.append(f"{pair} at all: look at 'evio overlay status' and 'wg show' on both")
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
            "required": {"type": "list", "elements": "str"},
            "interface": {"type": "str", "default": INTERFACE},
            "mtu": {"type": "int", "default": MTU},
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
