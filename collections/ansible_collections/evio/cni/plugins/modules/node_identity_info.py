#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that reads which node of which cluster a machine is; node/identity does it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_identity_info
short_description: Read which node of which cluster a machine is
version_added: 0.1.0
description:
  - Reads the machine's id, its hostname, and the node name and cluster that an earlier run has written on it.
  - With O(checks), makes in the same step those checks of M(evio.cni.preflight_info) that cost nothing. It fails
    if the clock is so wrong that new certificates would not be valid yet, and warns of the rest.
  - M(evio.cni.inventory_identities_info) compares the results of all hosts.
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
  machine_id:
    description: The file with the machine's id.
    type: path
    default: /etc/machine-id
  identity_file:
    description: The file that M(evio.cni.node_identity) wrote.
    type: path
    default: /etc/evio/node.json
  overlay_config:
    description: The file of M(evio.cni.wireguard_overlay), which names the node too.
    type: path
    default: /etc/evio/overlay.json
  checks:
    description: Whether to make the checks.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Read the machine's identity
  evio.cni.node_identity_info:
  register: node_identity
"""

RETURN = r"""
identity:
  description: What the machine says of itself. C(node) and C(cluster) are empty if it was not set up.
  returned: success
  type: dict
  sample:
    hostname: edge3
    machine_id: 3f0d5c2f8f0c4a2f9d8d5cf1a3f3a6b1
    node: node3
    cluster: kubernetes
rows:
  description: What the checks have found, as M(evio.cni.preflight_info) tells it.
  returned: O(checks=true)
  type: list
  elements: dict
time:
  description: The host's clock in seconds since 1970.
  returned: success
  type: float
"""

import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.module_runner import Module, run_module
from ..module_utils.node.identity import read_identity
from ..module_utils.node.quick_checks import quick_rows


class NodeIdentityInfo:
    """One run: read the machine's files, and make the checks if they are wanted."""

    def __init__(self, module: Module) -> None:
        self.has_checks: bool = module.params["checks"]
        self.files = {name: module.params[name] for name in ("machine_id", "identity_file", "overlay_config")}

    def run(self) -> dict[str, Any]:
        identity = read_identity(**self.files).to_json()
        result = {"changed": False, "identity": identity, "time": time.time()}
        return {**result, "rows": [asdict(row) for row in quick_rows()]} if self.has_checks else result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "machine_id": {"type": "path", "default": paths.MACHINE_ID},
            "identity_file": {"type": "path", "default": paths.NODE_IDENTITY},
            "overlay_config": {"type": "path", "default": paths.OVERLAY_CONFIG},
            "checks": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run_module(module, NodeIdentityInfo)


if __name__ == "__main__":
    main()
