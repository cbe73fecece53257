#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that writes a node's name and cluster on it; node/identity has the file's format."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_identity
short_description: Write on a machine which node of which cluster it is
version_added: 0.1.0
description:
  - Later runs compare this file with the inventory, and refuse a machine that is another node. See
    M(evio.cni.host_info).
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
  node:
    description: The node's name in the inventory. Required with O(state=present).
    type: str
  cluster:
    description: The cluster's name. Required with O(state=present).
    type: str
  certificates:
    description: >-
      Files of certificates on the machine, and directories of them, in other places than the usual ones. C(evio status)
      watches their age.
    type: list
    elements: path
    default: []
  path:
    description: The identity file.
    type: path
    default: /etc/evio/node.json
  state:
    description: Whether the file is there.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Write the node's identity
  evio.cni.node_identity:
    node: "{{ inventory_hostname }}"
    cluster: kubernetes
"""

RETURN = r"""
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.managed_file import ManagedFile, result_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.node.identity import render_identity

MODE = 0o644


class NodeIdentityFile:
    """One run: compare the file with the wanted identity, and write or remove it."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.file = ManagedFile(self.params["path"], mode=MODE)

    def run(self) -> dict[str, Any]:
        text = None
        if self.params["state"] == "present":
            text = render_identity(*(self.params[name] for name in ("node", "cluster", "certificates")))
        change = self.file.change_to(text)
        if not self.check_mode:
            change.apply()
        return result_of(change)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str"},
            "cluster": {"type": "str"},
            "certificates": {"type": "list", "elements": "path", "default": []},
            "path": {"type": "path", "default": paths.NODE_IDENTITY},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("node", "cluster"))],
        supports_check_mode=True,
    )
    run_module(module, NodeIdentityFile)


if __name__ == "__main__":
    main()
