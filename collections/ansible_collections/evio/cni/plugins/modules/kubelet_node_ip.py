#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that sets kubelet's option --node-ip; kubernetes/kubelet_arguments knows the file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubelet_node_ip
short_description: Set the address under which kubelet registers its node
version_added: 0.1.0
description:
  - Sets kubelet's option C(--node-ip) in the variable C(KUBELET_EXTRA_ARGS) of O(path), which Kubernetes' packages read
    after everything that kubeadm writes. All other arguments stay as they are.
  - kubelet has to be restarted after a change.
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
  address:
    description: The node's address. Required with O(state=present).
    type: str
  path:
    description: The file with kubelet's arguments.
    type: path
    default: /etc/default/kubelet
  state:
    description: Whether the option is there.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Let kubelet register the node with its host overlay address
  evio.cni.kubelet_node_ip:
    address: 10.10.0.2
"""

RETURN = r""" # """

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.kubernetes.kubelet_arguments import DEFAULTS_FILE, with_node_ip
from ..module_utils.managed_file import ManagedFile, result_of
from ..module_utils.module_runner import Module, run_module

MODE = 0o644


class KubeletNodeIp:
    """One run: compare the file with the wanted argument, and write it unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.file = ManagedFile(self.params["path"], mode=MODE)

    def run(self) -> dict[str, Any]:
        address = self.params["address"] if self.params["state"] == "present" else None
        change = self.file.change_to(with_node_ip(self.file.text, address))
        if not self.check_mode:
            change.apply()
        return result_of(change)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str"},
            "path": {"type": "path", "default": DEFAULTS_FILE},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("address",))],
        supports_check_mode=True,
    )
    run_module(module, KubeletNodeIp)


if __name__ == "__main__":
    main()
