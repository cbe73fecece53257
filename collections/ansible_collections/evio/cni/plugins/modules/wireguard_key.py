#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that keeps the node's WireGuard key; overlay/wireguard/device creates it and reads its public key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_key
short_description: Keep the WireGuard key of a node
version_added: 0.1.0
description:
  - Creates the node's private key if there is none, readable by root alone, and returns the public key.
  - The private key never leaves the node.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: If there is no key yet, the public key is null.
  diff_mode:
    support: full
    details: The key is left out.
  idempotent:
    support: full
requirements:
  - wireguard-tools
options:
  path:
    description: File of the private key.
    type: path
    default: /etc/evio/wireguard.key
  state:
    description: >-
      Whether the key exists. A node without a key cannot be a member of the overlay. V(absent) removes a next key too,
      which M(evio.cni.wireguard_member) has made.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Create the node's WireGuard key
  evio.cni.wireguard_key:
  register: wireguard_key
"""

RETURN = r"""
public_key:
  description: The public key in base64. Null in check mode if there is no key yet.
  returned: O(state=present)
  type: str
  sample: n5dWnGdJBn9SfLdhtgKL5rSGMVXxM9byDVkkKQQF72I=
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.module_runner import run_module
from ..module_utils.overlay.wireguard.member import WireguardKey


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # The path is not secret, although its name makes Ansible think so.
            "path": {"type": "path", "default": paths.WIREGUARD_KEY, "no_log": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    run_module(module, WireguardKey)


if __name__ == "__main__":
    main()
