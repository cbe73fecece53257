#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that waits until a node works as well as before a change; node/health compares."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_health_info
short_description: Note how well a node works, or wait until it works as well as before
version_added: 0.1.0
description:
  - Runs the installed programs, also as the container runtime asks for C(STATUS), reads what is wrong with the node,
    and pings its pods.
  - With O(wait), waits until the programs answer, nothing is wrong that was not wrong in O(before), the overlay's agent
    has written its state again, every node that had a way has one again, and every pod answers that did before and has
    not ended. Fails with what is worse.
  - Changes nothing.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: In check mode nothing is waited for, because nothing was changed.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  wait:
    description: Whether to wait until the node works as well as in O(before).
    type: bool
    default: false
  before:
    description:
      - How the node worked before, RV(health) of an earlier call. Without it, everything that is wrong counts.
    type: dict
  timeout:
    description: Seconds within which the node must work as well as before.
    type: float
    default: 120.0
  conf_dir:
    description: The container runtime's directory of CNI configuration.
    type: path
    default: /etc/cni/net.d
  bin_dir:
    description: The container runtime's directory of CNI plugins.
    type: path
    default: /opt/cni/bin
  state_dir:
    description: The plugin's state, where the CNI configuration does not name it.
    type: path
    default: /var/lib/evio-cni
  has_pods:
    description: Whether the node is to have a pod network. If it is not given, a node that is set up is to have it.
    type: bool
"""

EXAMPLES = r"""
- name: Note how well the node works
  evio.cni.node_health_info:
  register: before

- name: Wait until the node works as well as before
  evio.cni.node_health_info:
    wait: true
    before: "{{ before.health }}"
"""

RETURN = r"""
health:
  description: How the node works, for O(before).
  returned: success
  type: dict
  contains:
    version:
      description: The installed version of the programs. Null if there is none.
      type: str
    problems:
      description: Errors and warnings, with numbers replaced by C(#).
      type: list
      elements: str
    lost_peers:
      description: Nodes to which there is no way.
      type: list
      elements: str
    pods:
      description: Addresses of pods that answer.
      type: list
      elements: str
    silent_pods:
      description: Addresses of pods that do not answer.
      type: list
      elements: str
seconds:
  description: For how long it has waited.
  returned: success
  type: float
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.module_runner import Module, ModuleError, run_module
from ..module_utils.node.health import GOOD, health_from_json, health_of, new_faults, program_faults
from ..module_utils.node.model import NodeStatus
from ..module_utils.node.status import read_status

_POLL_SECONDS = 1.0

_MOST_NAMED = 10
"""Faults that a message names."""


class NodeHealthInfo:
    """One run: look at the node, again and again with ``wait``."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.wait: bool = self.params["wait"] and not module.check_mode
        before = self.params["before"]
        self.before = GOOD if before is None else health_from_json(before)

    def run(self) -> dict[str, Any]:
        began = time.monotonic()
        since = time.time() if self._has_agent() else None
        while self.wait and (faults := self._faults(since)):
            seconds = time.monotonic() - began
            if seconds > self.params["timeout"]:
                more = [f"and {len(faults) - _MOST_NAMED} more"] if len(faults) > _MOST_NAMED else []
                raise ModuleError(
                    f"the node does not work as before, {seconds:.0f} s after the change: "
                    f"{'; '.join([*faults[:_MOST_NAMED], *more])}",
                    faults=faults,
                )
            time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - began
        return {"changed": False, "health": health_of(self._status()).to_json(), "seconds": round(seconds, 1)}

    def _faults(self, since: float | None) -> list[str]:
        faults = program_faults(self.params["bin_dir"], self.params["conf_dir"])
        return faults + new_faults(self.before, self._status(), since=since)

    def _status(self) -> NodeStatus:
        params = self.params
        # Neither the pods' names nor the errors in the journal tell how well the node works.
        return read_status(
            conf_dir=params["conf_dir"],
            bin_dir=params["bin_dir"],
            state_dir=params["state_dir"],
            cri_socket="",
            has_pods=params["has_pods"],
            with_errors=False,
        )

    def _has_agent(self) -> bool:
        return os.path.exists(paths.OVERLAY_CONFIG) or os.path.exists(paths.EDGEVPN_MEMBERS)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "wait": {"type": "bool", "default": False},
            "before": {"type": "dict"},
            "timeout": {"type": "float", "default": 120.0},
            "conf_dir": {"type": "path", "default": paths.CNI_CONF_DIR},
            "bin_dir": {"type": "path", "default": paths.CNI_BIN_DIR},
            "state_dir": {"type": "path", "default": paths.STATE_DIR},
            "has_pods": {"type": "bool"},
        },
        supports_check_mode=True,
    )
    run_module(module, NodeHealthInfo)


if __name__ == "__main__":
    main()
