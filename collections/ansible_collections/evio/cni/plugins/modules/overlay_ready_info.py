#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that waits until the host overlay works; overlay/reachability sends the pings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_ready_info
short_description: Wait until this node reaches the other nodes through the host overlay
version_added: 0.1.0
description:
  - Pings the host overlay address of every other node until all required nodes have answered. The packets have the
    overlay's full MTU and may not be fragmented.
  - Fails with a message that names the nodes that do not answer, and says whether they answer to small packets.
  - Fails too if none of O(addresses) answers, unless O(alone) is set.
  - Warns if C(wireguard-go) is too old for segmentation offload.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: Nodes that do not answer yet are named in a warning, since the run may change that.
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
    description: The nodes' addresses in the host overlay, by the nodes' names. This node's own address is left out.
    type: dict
    required: true
  required_nodes:
    description: Names of the nodes that must answer. All nodes of O(addresses) if it is not given.
    type: list
    elements: str
  peer_limit:
    description:
      - If there are more nodes than this in O(addresses), RV(peers) has only those that do not answer. For many nodes,
        whose results Ansible keeps all.
    type: int
  alone:
    description: Whether it is in order that no other node answers, for the first node of a cluster.
    type: bool
    default: false
  interface:
    description: The overlay's interface. In check mode nothing is measured if it does not exist yet. May be empty.
    type: str
    default: evio0
  mtu:
    description: MTU of the overlay in bytes.
    type: int
    default: 1420
  timeout:
    description: Seconds within which all required nodes must have answered.
    type: float
    default: 60.0
  state_file:
    description: State file of the WireGuard backend's agent, which tells the path to each node. Empty for none.
    type: str
    default: /run/evio-cni/overlay.json
"""

EXAMPLES = r"""
- name: Wait until this node reaches the other nodes
  evio.cni.overlay_ready_info:
    node: node3
    addresses:
      node1: 10.10.0.1
      node2: 10.10.0.2
"""

RETURN = r"""
ready:
  description: Whether all required nodes have answered, and at least one node.
  returned: always
  type: bool
answered:
  description: >-
    How many nodes have answered, by their path as in RV(peers). The key is empty for nodes whose path is not known.
  returned: always
  type: dict
  sample: {direct: 5, node1: 2}
reached_others:
  description: How many nodes have answered that are not in O(required_nodes).
  returned: always
  type: int
peers:
  description: The other nodes and how they are reached; with O(peer_limit), perhaps only those that do not answer.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The node's name.
      type: str
    address:
      description: The node's address in the host overlay.
      type: str
    reachable:
      description: Whether the node has answered.
      type: bool
    small_only:
      description: Whether the node answers to small packets but not to packets of the full MTU.
      type: bool
    path:
      description: V(direct), or the name of the relay. Null if it is not known or there is no path.
      type: str
    rtt_ms:
      description: The round trip in milliseconds. Null if the node has not answered.
      type: float
  sample:
    - {name: node2, address: 10.10.0.2, reachable: true, small_only: false, path: direct, rtt_ms: 0.8}
"""

from collections import Counter
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.defaults import OVERLAY_MTU
from ..module_utils.module_runner import Module, ModuleError, run_module
from ..module_utils.overlay.reachability import ping_all
from ..module_utils.overlay.state import OverlayState, overlay_fault, read_state
from ..module_utils.overlay.wireguard.config import INTERFACE
from ..module_utils.overlay.wireguard.device import USERSPACE, slow_userspace_version
from ..module_utils.overlay.wireguard.interface import link_exists

CHECK_MODE_TIMEOUT = 3.0
"""Seconds: in check mode the run has changed nothing that it would be worth to wait for."""

SMALL_PACKET = 84
"""Bytes: the packets that ping(8) sends by default."""

SMALL_PACKET_TIMEOUT = 2.0
"""Seconds."""

MOST_NAMED = 10
"""Nodes that a message names, of those that do not answer."""


class OverlayReadyInfo:
    """One run: ping until all required nodes have answered, then say which nodes answered and by which path."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params
        self.addresses = {name: str(address) for name, address in self.params["addresses"].items()}
        self.addresses.pop(self.params["node"], None)
        required = self.params["required_nodes"]
        wanted = frozenset(self.addresses if required is None else required)
        self.required = [name for name in self.addresses if name in wanted]

    def run(self) -> dict[str, Any]:
        if self.module.check_mode and self._is_interface_missing():
            self.module.warn(
                f"{self.params['interface']} is not there yet, so it is not known whether nodes reach each other"
            )
            return {"changed": False, "ready": False, "answered": {}, "reached_others": 0, "peers": []}
        answers = ping_all(
            self.addresses.values(),
            self.params["mtu"],
            self._timeout(),
            [self.addresses[name] for name in self.required],
            needs_answer=not self.params["alone"],
        )
        state = self._state()
        self._warn_if_slow(state)
        silent = [name for name in self.required if answers[self.addresses[name]] is None]
        is_alone = bool(answers) and all(answer is None for answer in answers.values()) and not self.params["alone"]
        small_answers = ping_all([self.addresses[name] for name in silent], SMALL_PACKET, SMALL_PACKET_TIMEOUT)
        ready = not silent and not is_alone
        peers = self._peers(answers, small_answers, state)
        result = {"changed": False, "ready": ready, **self._counts(peers), "peers": self._limited(peers)}
        if not ready:
            reasons = self._reasons(silent, small_answers) if silent else self._loneliness()
            if not self.module.check_mode:
                raise ModuleError(reasons, **result)
            self.module.warn(reasons)
        return result

    def _is_interface_missing(self) -> bool:
        return bool(self.params["interface"]) and not link_exists(self.params["interface"])

    def _timeout(self) -> float:
        timeout: float = self.params["timeout"]
        return min(timeout, CHECK_MODE_TIMEOUT) if self.module.check_mode else timeout

    def _state(self) -> OverlayState | None:
        state = read_state(self.params["state_file"]) if self.params["state_file"] else None
        return state if state is not None and state.is_fresh() else None

    def _warn_if_slow(self, state: OverlayState | None) -> None:
        if state is not None and state.device == USERSPACE and (slow := slow_userspace_version()):
            self.module.warn(f"{slow} is 5 times slower than v0.0.20230223 and newer: see evio_wireguard_go_package")

    def _peers(
        self, answers: dict[str, float | None], small_answers: dict[str, float | None], state: OverlayState | None
    ) -> list[dict[str, Any]]:
        peer_paths = {peer.name: peer.path for peer in state.peers} if state is not None else {}
        return [
            {
                "name": name,
                "address": address,
                "reachable": answers[address] is not None,
                "small_only": small_answers.get(address) is not None,
                "path": peer_paths.get(name),
                "rtt_ms": None if (rtt := answers[address]) is None else round(rtt, 2),
            }
            for name, address in self.addresses.items()
        ]

    def _counts(self, peers: list[dict[str, Any]]) -> dict[str, Any]:
        reached = [peer for peer in peers if peer["reachable"]]
        required = frozenset(self.required)
        return {
            "answered": dict(Counter(peer["path"] or "" for peer in reached)),
            "reached_others": sum(peer["name"] not in required for peer in reached),
        }

    def _limited(self, peers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        limit: int | None = self.params["peer_limit"]
        return peers if limit is None or len(peers) <= limit else [peer for peer in peers if not peer["reachable"]]

    def _loneliness(self) -> str:
        """Return that no node has answered, and what to do."""
        return (
            f"{self.params['node']} reaches none of the {len(self.addresses)} other nodes, of which this run has none; "
            "if it is the first node of the cluster that is set up, set evio_overlay_alone: true"
        )

    def _reasons(self, silent: list[str], small_answers: dict[str, float | None]) -> str:
        """Return which nodes do not answer, what that means, and where to look."""
        has_agent = bool(self.params["state_file"])
        reasons = []
        for name in silent[:MOST_NAMED]:
            address = self.addresses[name]
            pair = f"{self.params['node']} does not reach {name} ({address})"
            if small_answers[address] is not None:
                mtu = self.params["mtu"]
                reasons.append(f"{pair} with packets of {mtu} bytes, but with small ones: give a lower evio_mtu")
            else:
                hint = ": look at 'evio overlay status' and 'wg show' on both" if has_agent else ""
                reasons.append(f"{pair} at all{hint}")
        if len(silent) > MOST_NAMED:
            reasons.append(f"{self.params['node']} does not reach {len(silent) - MOST_NAMED} more nodes either")
        if has_agent and (fault := self._agent_fault()):
            reasons.append(f"{fault}: look at 'journalctl -u evio-overlay'")
        return "; ".join(reasons)

    def _agent_fault(self) -> str | None:
        path = self.params["state_file"]
        if read_state(path) is None:
            return f"the overlay's agent has not written {path}"
        return overlay_fault(path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str", "required": True},
            "addresses": {"type": "dict", "required": True},
            "required_nodes": {"type": "list", "elements": "str"},
            "peer_limit": {"type": "int"},
            "alone": {"type": "bool", "default": False},
            "interface": {"type": "str", "default": INTERFACE},
            "mtu": {"type": "int", "default": OVERLAY_MTU},
            "timeout": {"type": "float", "default": 60.0},
            "state_file": {"type": "str", "default": paths.OVERLAY_STATE},
        },
        supports_check_mode=True,
    )
    run_module(module, OverlayReadyInfo)


if __name__ == "__main__":
    main()
