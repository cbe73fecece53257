#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that fences a node; the fence is a file, read and written by state/fence."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_fence
short_description: Let a node refuse new pods while its claim on its subnet is lost
version_added: 0.1.0
description:
  - Pods that run keep their addresses. The CNI plugin refuses new pods (STATUS and ADD) and gives the reason.
  - M(evio.cni.cni_config) removes the fence when it configures the node for a valid claim.
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
options:
  reason:
    description: Why the claim is lost. An empty string removes the fence.
    type: str
    required: true
  state_dir:
    description: The state directory of the CNI plugin.
    type: path
    default: /var/lib/evio-cni
"""

EXAMPLES = r"""
- name: Refuse new pods on a node that has lost its claim
  evio.cni.node_fence:
    reason: etcd has no claim of this node
"""

RETURN = r"""
path:
  description: The file that is the fence.
  returned: success
  type: str
  sample: /var/lib/evio-cni/.fence
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, run_module
from ..module_utils.state.fence import fence_file, put_up_fence, read_fence, take_down_fence


class NodeFence:
    """One run: compare the reason with that of the fence that is there, act unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.check_mode = module.check_mode
        self.state_dir: str = module.params["state_dir"]
        self.reason: str | None = module.params["reason"].strip() or None
        self.found = read_fence(self.state_dir)

    def run(self) -> dict[str, Any]:
        differences = Differences()
        differences.compare("reason", self.reason, self.found)
        if differences.changed and not self.check_mode:
            if self.reason is not None:
                put_up_fence(self.state_dir, self.reason)
            else:
                take_down_fence(self.state_dir)
        return {**differences.result(), "path": fence_file(self.state_dir)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "reason": {"type": "str", "required": True},
            "state_dir": {"type": "path", "default": paths.STATE_DIR},
        },
        supports_check_mode=True,
    )
    run_module(module, NodeFence)


if __name__ == "__main__":
    main()
