#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that reads a node's machine-id and configured subnets; the files are read by node/claim."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_claim_info
short_description: Read a node's machine-id and the subnets that it is configured with
version_added: 0.1.0
description:
  - Reads from the node's own files what M(evio.cni.node_subnet) has to know of the node.
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
    description: The directory that the container runtime reads its CNI configuration from.
    type: path
    default: /etc/cni/net.d
"""

EXAMPLES = r"""
- name: Read the node's machine-id and configured subnets
  evio.cni.node_claim_info:
  register: node_claim
"""

RETURN = r"""
machine_id:
  description: The content of C(/etc/machine-id).
  returned: success
  type: str
  sample: 3f0d5c2f8f0c4a2f9d8d5cf1a3f3a6b1
configured:
  description: The subnets in the node's C(10-evio.conflist) and the epoch of their claim. Null if there is no file.
  returned: success
  type: dict
  sample:
    cidrs: [10.244.0.0/24]
    epoch: 4
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.module_runner import Module, run_module
from ..module_utils.node.claim import read_local_claim, read_machine_id


class NodeClaimInfo:
    """One run: read the node's files."""

    def __init__(self, module: Module) -> None:
        self.conf_dir: str = module.params["conf_dir"]

    def run(self) -> dict[str, Any]:
        configured = read_local_claim(self.conf_dir)
        return {
            "changed": False,
            "machine_id": read_machine_id(),
            "configured": asdict(configured) if configured is not None else None,
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={"conf_dir": {"type": "path", "default": paths.CNI_CONF_DIR}},
        supports_check_mode=True,
    )
    run_module(module, NodeClaimInfo)


if __name__ == "__main__":
    main()
