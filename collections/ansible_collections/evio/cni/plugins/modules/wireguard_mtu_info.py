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

from ipaddress import ip_network
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.atomic_file import read_text
from ..module_utils.defaults import OVERLAY_MTU
from ..module_utils.module_runner import Module, run_module
from ..module_utils.mtu import LEAST_MTU_IPV6
from ..module_utils.overlay.endpoint import LISTEN_PORT, OverlayError, parse_public_endpoint
from ..module_utils.overlay.name_lookup import resolve_endpoint
from ..module_utils.overlay.path_mtu import path_mtus, route_mtu
from ..module_utils.overlay.wireguard.config import OVERHEAD, parse_overlay

DEFAULT_ROUTE = "the internet"
"""Names the default route among the paths, in messages."""


class WireguardMtuInfo:
    """One run: measure, compare with the MTU that is wanted and with that of an overlay that exists."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params
        self.existing = _existing_mtu(self.params["config"])

    def run(self) -> dict[str, Any]:
        underlay = path_mtus(endpoint for relay in self.params["relays"] for endpoint in self._endpoints(relay))
        possible, reason = self._possible_mtu(underlay)
        mtu = self._mtu(possible, reason)
        if mtu < LEAST_MTU_IPV6 and any(ip_network(cidr).version == 6 for cidr in self.params["networks"]):
            raise OverlayError(
                f"IPv6 inside the overlay needs an MTU of {LEAST_MTU_IPV6}, it would have {mtu}: {reason}"
            )
        return {"changed": False, "mtu": mtu, "underlay": underlay}

    def _possible_mtu(self, underlay: dict[str, int]) -> tuple[int, str]:
        """Return the highest MTU that fits all paths, and why it is not higher."""
        carried = dict(underlay)
        if self.params["endpoint"] is not None:
            mtus = [mtu for mtu in map(route_mtu, self._endpoints(self.params["endpoint"])) if mtu is not None]
            if mtus:
                carried[DEFAULT_ROUTE] = min(mtus)
        if not carried:
            return OVERLAY_MTU, ""
        narrowest = min(carried, key=carried.__getitem__)
        reason = f"the path to {narrowest} carries {carried[narrowest]} bytes, of which WireGuard takes {OVERHEAD}"
        return carried[narrowest] - OVERHEAD, reason

    def _mtu(self, possible: int, reason: str) -> int:
        wanted: int | None = self.params["mtu"]
        if wanted is not None:
            if wanted > possible:
                self.module.warn(f"evio_mtu: {wanted} is more than fits in one piece: {reason}; {possible} fits")
            return wanted
        if self.existing is None:
            return min(OVERLAY_MTU, possible)
        if possible < self.existing:
            self.module.warn(
                f"the overlay's MTU goes from {self.existing} to {possible}: {reason}. Pods that run keep "
                f"{self.existing} until they are created again"
            )
        return min(OVERLAY_MTU, possible, self.existing)

    def _endpoints(self, text: str) -> tuple[str, ...]:
        """Return ``address:port`` of each address of an endpoint; warn of a DNS name that has none."""
        endpoint = parse_public_endpoint(text, self.params["listen_port"])
        found = resolve_endpoint(endpoint)
        if not found:
            self.module.warn(f"evio_public_endpoint: this node finds no address of {endpoint}; does its DNS know it?")
        return found


def _existing_mtu(config: str) -> int | None:
    """Return the MTU of the overlay that exists; None if its file cannot be read, since this run then replaces it."""
    try:
        text = read_text(config)
        return parse_overlay(text).mtu if text is not None else None
    except (OSError, UnicodeDecodeError, OverlayError):
        return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "relays": {"type": "list", "elements": "str", "default": []},
            "endpoint": {"type": "str"},
            "listen_port": {"type": "int", "default": LISTEN_PORT},
            "mtu": {"type": "int"},
            "networks": {"type": "list", "elements": "str", "default": []},
            "config": {"type": "path", "default": paths.OVERLAY_CONFIG},
        },
        supports_check_mode=True,
    )
    run_module(module, WireguardMtuInfo)


if __name__ == "__main__":
    main()
