# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module for what a node must tell before it is a member; overlay/wireguard/member does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_member
short_description: Keep a node's WireGuard key, and measure the MTU that its paths to the relays allow
version_added: 0.1.0
description:
  - Makes the key as M(evio.cni.wireguard_key) does. Measures by path MTU discovery how many bytes the paths from this
    node to the relays carry, and subtracts the bytes that WireGuard adds. From the results of all nodes,
    M(evio.cni.overlay_nodes_info) makes the members of the overlay, and its MTU, the smallest of theirs.
  - Never returns more than the MTU of an overlay that exists already, because its pods would keep the old MTU, and a
    path that carries more today may change tomorrow.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: A key that would be made has no public key yet.
  diff_mode:
    support: full
    details: The private key is not shown.
  idempotent:
    support: full
options:
  relays:
    description: The public endpoints of the other nodes, each an address or a DNS name, with or without a port.
    type: list
    elements: str
    default: []
  endpoint:
    description: This node's own public endpoint, if it has one. The MTU of its default route then counts, too.
    type: str
  listen_port:
    description: WireGuard's UDP port, for endpoints without a port.
    type: int
    default: 51820
  mtu:
    description: MTU to return whatever is measured. There is a warning if it is too high.
    type: int
  networks:
    description: The overlays in CIDR notation. Fails if the MTU is lower than an IPv6 network among them needs.
    type: list
    elements: str
    default: []
  config:
    description: File of the host overlay, which M(evio.cni.wireguard_overlay) has written in an earlier run.
    type: path
    default: /etc/evio/overlay.json
  path:
    description: The file of the private key.
    type: path
    default: /etc/evio/wireguard.key
  next_key:
    description: >-
      Whether the node gets a next key too, beside O(path) with C(.next) at its end, to which
      M(evio.cni.wireguard_rekey) changes it. A node that has one keeps it.
      Fails on a node that is no member of the overlay.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Make this node's WireGuard key if it has none, and measure the overlay's MTU
  evio.cni.wireguard_member:
    relays: [198.51.100.11]
  register: wireguard_member
"""

RETURN = r"""
public_key:
  description: The public key. Null in check mode if the key does not exist yet.
  returned: success
  type: str
next_public_key:
  description: >-
    The public key to which the node changes. If it has changed to it already, but not all others know that,
    RV(public_key) is the key that it had.
  returned: with O(next_key)
  type: str
mtu:
  description: MTU inside the overlay in bytes.
  returned: success
  type: int
  sample: 1420
possible_mtu:
  description: The highest MTU inside the overlay in bytes with which packets fit into one piece, as far as is known.
  returned: success
  type: int
  sample: 1420
underlay:
  description: MTU of the path to each relay in bytes, by C(address:port). Relays without a route are left out.
  returned: success
  type: dict
  sample: {"198.51.100.11:51820": 1500}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.wireguard.member import MTU_OPTIONS, OverlayMtu, WireguardKey


class WireguardMember:
    """One run: measure first, because that may fail, then make the key."""

    def __init__(self, module: Module) -> None:
        self.key = WireguardKey(module)
        self.mtu = OverlayMtu(module)
        self.makes_next_key: bool = module.params["next_key"]

    def run(self) -> dict[str, Any]:
        measured = self.mtu.run()
        key = self.key.make_next(self.mtu.params["config"]) if self.makes_next_key else self.key.make()
        return {**measured, **key}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # The path is not secret, although its name makes Ansible think so.
            "path": {"type": "path", "default": paths.WIREGUARD_KEY, "no_log": False},
            "next_key": {"type": "bool", "default": False},
            **MTU_OPTIONS,
        },
        supports_check_mode=True,
    )
    run_module(module, WireguardMember)


if __name__ == "__main__":
    main()
