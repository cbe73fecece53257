#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that returns all that a node tells of its pod network; node/status reads it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_status_info
short_description: Return the state of a node's overlay, bridge, firewall, claim, certificates and pods
version_added: 0.1.0
description:
  - Reads in one call what C(evio status --json) prints on the node, and what is wrong there, each with the command that
    mends it.
  - Needs no installed program of this collection, so it also says what a node lacks that is not set up.
  - Changes nothing. A part that cannot be read says so and does not keep the others from being read.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
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
  cri_socket:
    description: Socket of the container runtime, which tells the pods' names. Empty if no runtime is to be asked.
    type: str
    default: /run/containerd/containerd.sock
  has_pods:
    description: Whether the node is to have a pod network. If it is not given, a node that is set up is to have it.
    type: bool
"""

EXAMPLES = r"""
- name: Read the state of the node
  evio.cni.node_status_info:
  register: node

- name: Show what is wrong with it
  ansible.builtin.debug:
    var: node.status.problems
"""

RETURN = r"""
status:
  description:
    - The state of the node, in the shape of C(evio status --json). C(docs/node-status.schema.json) in the repository,
      U(https://github.com/evio-cni/evio.cni), describes it; its key C(schema) counts the versions of the shape.
    - Names of pods, endpoints and messages come from other programs and from other nodes. Treat them as text.
  returned: success
  type: dict
  sample:
    schema: 1
    node: node2
    problems:
      - severity: error
        what: "ovs-vswitchd.service does not run"
        remedy: "systemctl restart ovs-vswitchd.service"
        run_on: node
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.cni.cri import CONTAINERD
from ..module_utils.module_runner import Module, run_module
from ..module_utils.node.status import read_status, to_json


class NodeStatusInfo:
    """One run: read the node."""

    def __init__(self, module: Module) -> None:
        self.params = module.params

    def run(self) -> dict[str, Any]:
        return {"changed": False, "status": to_json(read_status(**self.params))}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "conf_dir": {"type": "path", "default": paths.CNI_CONF_DIR},
            "bin_dir": {"type": "path", "default": paths.CNI_BIN_DIR},
            "state_dir": {"type": "path", "default": paths.STATE_DIR},
            "cri_socket": {"type": "str", "default": CONTAINERD},
            "has_pods": {"type": "bool"},
        },
        supports_check_mode=True,
    )
    run_module(module, NodeStatusInfo)


if __name__ == "__main__":
    main()
