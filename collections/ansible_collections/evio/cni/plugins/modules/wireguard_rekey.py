#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that changes a node to its next WireGuard key; overlay/wireguard/rekey does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_rekey
short_description: Change a node to its next WireGuard key
version_added: 0.1.0
description:
  - Rotates a node's WireGuard key without losing a path. M(evio.cni.wireguard_member) makes the next key, and
    M(evio.cni.wireguard_overlay) tells all nodes of it. With O(state=accepted) this module waits until this node's
    agent accepts the next keys of the others. When that is so on all nodes, O(state=changed) changes one node after
    another.
  - The agents tell each other of the change in the moment in which it happens. The former key is gone from the disk
    then. The others accept it until M(evio.cni.wireguard_overlay) is run without next keys.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: The agent is not waited for.
  diff_mode:
    support: full
    details: Public keys are shown.
  idempotent:
    support: full
options:
  state:
    description:
      - With V(accepted), this node accepts the next keys of the others; nothing is changed.
      - With V(changed), it has its own next key besides.
    type: str
    choices: [accepted, changed]
    required: true
  nodes_without_keys:
    description: >-
      Nodes that were not told of the next keys. Fails if this node has a direct path to one of them: the change of keys
      would cut it off.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds within which the agent must work with the keys.
    type: float
    default: 30.0
  path:
    description: The file of the private key.
    type: path
    default: /etc/evio/wireguard.key
  config:
    description: File of the host overlay.
    type: path
    default: /etc/evio/overlay.json
  state_file:
    description: The agent's state file.
    type: path
    default: /run/evio-cni/overlay.json
"""

EXAMPLES = r"""
- name: Change this node to its next WireGuard key
  evio.cni.wireguard_rekey:
    state: changed
  throttle: 1
"""

RETURN = r"""
public_key:
  description: The public key that the node has now or, in check mode, would have.
  returned: success
  type: str
  sample: n5dWnGdJBn9SfLdhtgKL5rSGMVXxM9byDVkkKQQF72I=
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.module_runner import run_module
from ..module_utils.overlay.wireguard.rekey import ACCEPTED, CHANGED, WireguardRekey


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": [ACCEPTED, CHANGED], "required": True},
            "nodes_without_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "timeout": {"type": "float", "default": 30.0},
            # The path is not secret, although its name makes Ansible think so.
            "path": {"type": "path", "default": paths.WIREGUARD_KEY, "no_log": False},
            "config": {"type": "path", "default": paths.OVERLAY_CONFIG},
            "state_file": {"type": "path", "default": paths.OVERLAY_STATE},
        },
        supports_check_mode=True,
    )
    run_module(module, WireguardRekey)


if __name__ == "__main__":
    main()
