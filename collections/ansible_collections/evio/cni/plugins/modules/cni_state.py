#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that removes what the CNI plugin keeps on a node; node/removal does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cni_state
short_description: Remove what the CNI plugin keeps on a node that leaves the cluster
version_added: 0.1.0
description:
  - Removes the journal, the addresses that host-local has reserved, and the firewall rules of the plugin.
  - While pods of the network run, it removes nothing and says so, because their end needs the journal and the programs,
    unless O(force) is set.
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
  - nftables
options:
  state:
    description: The state is removed. The plugin makes it again at the next ADD.
    type: str
    choices: [absent]
    default: absent
  force:
    description: Whether to remove all of it while pods run, on a host that is taken down. Their end finds nothing then.
    type: bool
    default: false
  bridge:
    description: The pod bridge, whose accepts in other firewalls are removed.
    type: str
    required: true
  name:
    description: Name of the network.
    type: str
    default: evio
  state_dir:
    description:
      - Directory of the journal. It is removed if nothing is in it that the plugin has not written.
    type: path
    default: /var/lib/evio-cni
  run_dir:
    description: Directory of the state that ends with the boot.
    type: path
    default: /run/evio-cni
  reservations_dir:
    description: Directory in which host-local reserves addresses, in one directory for each network.
    type: path
    default: /var/lib/cni/networks
"""

EXAMPLES = r"""
- name: Remove the state of the CNI plugin
  evio.cni.cni_state:
    bridge: br-evio
"""

RETURN = r"""
running:
  description: The container ids of pods that still run. If there is one, nothing was removed without O(force).
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, run_module
from ..module_utils.node.removal import find_state, remove_state


class CniState:
    """One run: find what is left, and remove it unless pods run or the module is in check mode."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params
        self.found = find_state(
            self.params["name"],
            self.params["state_dir"],
            run_dir=self.params["run_dir"],
            reservations_dir=self.params["reservations_dir"],
        )

    def run(self) -> dict[str, Any]:
        running = [attachment.container_id for attachment in self.found.running]
        if running and not self.params["force"]:
            self.module.warn(
                f"{len(running)} pods of the network still run, so the journal, the firewall rules and the programs "
                "stay: end the pods, and run this again"
            )
            return {"changed": False, "running": running}
        differences = Differences()
        for path in self.found.written.found:
            differences.compare(path, None, "present")
        differences.compare("nftables", None, "table inet evio_cni" if self.found.has_rules else None)
        if not self.module.check_mode:
            remove_state(self.found, self.params["bridge"])
        return {**differences.result(), "running": running}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["absent"], "default": "absent"},
            "force": {"type": "bool", "default": False},
            "bridge": {"type": "str", "required": True},
            "name": {"type": "str", "default": "evio"},
            "state_dir": {"type": "path", "default": paths.STATE_DIR},
            "run_dir": {"type": "path", "default": paths.RUN_DIR},
            "reservations_dir": {"type": "path", "default": paths.HOST_LOCAL_DATA},
        },
        supports_check_mode=True,
    )
    run_module(module, CniState)


if __name__ == "__main__":
    main()
