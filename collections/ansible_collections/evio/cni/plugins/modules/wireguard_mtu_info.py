#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that finds the MTU for the WireGuard overlay; overlay/path_mtu measures the paths to the relays."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_mtu_info
short_description: Measure which MTU this node allows for the WireGuard overlay
version_added: 0.1.0
description:
  - Measures by path MTU discovery how many bytes the paths from this node to the relays carry, and subtracts the bytes
    that WireGuard adds. The overlay gets the smallest MTU that its nodes return.
  - Never returns more than the MTU of an overlay that exists already, because its pods would keep the old MTU, and a
    path that carries more today may change tomorrow.
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
"""

EXAMPLES = r"""
- name: Measure what the paths to the relays carry
  evio.cni.wireguard_mtu_info:
    relays: [198.51.100.11, "[2001:db8::12]:51820"]
"""

RETURN = r"""
mtu:
  description: MTU inside the overlay in bytes.
  returned: success
  type: int
  sample: 1420
underlay:
  description: MTU of the path to each relay in bytes, by C(address:port). Relays without a route are left out.
  returned: success
  type: dict
  sample: {"198.51.100.11:51820": 1500}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.module_runner import run_module
from ..module_utils.overlay.wireguard.member import MTU_OPTIONS, WireguardMtuInfo


def main() -> None:
    module = AnsibleModule(argument_spec=MTU_OPTIONS, supports_check_mode=True)
    run_module(module, WireguardMtuInfo)


if __name__ == "__main__":
    main()
