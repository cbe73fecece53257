#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The MTU that a node's underlay leaves to the overlay: underlay measures, overlay_config knows what WireGuard adds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_mtu_info
short_description: The MTU that this node's underlay leaves to the overlay
version_added: 0.1.0
description:
  - Measures how many bytes the ways from this node to the relays carry, by path MTU discovery, and says what is left of
    them inside WireGuard. The overlay as a whole has the smallest of what its nodes say.
  - An overlay that is there already is never said to have more than it has. Its pods would not follow, and a way that
    carries more today may be another one tomorrow.
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
    description: The public endpoints of the other nodes, each an address, or address and port.
    type: list
    elements: str
    default: []
  endpoint:
    description: This node's own public endpoint, if it has one. What its default route carries counts then, too.
    type: str
  listen_port:
    description: WireGuard's UDP port, where an endpoint has none.
    type: int
    default: 51820
  mtu:
    description: The MTU that the overlay shall have whatever is measured. There is a warning where it is too much.
    type: int
  networks:
    description: The overlays, in CIDR notation. Fails where one of them is of IPv6 and would have less than it needs.
    type: list
    elements: str
    default: []
  config:
    description: The host overlay's file, as M(evio.cni.wireguard_overlay) wrote it before.
    type: path
    default: /etc/evio/overlay.json
"""

EXAMPLES = r"""
- name: Measure what the ways to the relays carry
  evio.cni.wireguard_mtu_info:
    relays: [198.51.100.11, "[2001:db8::12]:51820"]
"""

RETURN = r"""
mtu:
  description: Bytes of an IP packet inside the overlay.
  returned: success
  type: int
  sample: 1420
underlay:
  description: Bytes of an IP packet on the way to each relay, by the relay's endpoint, as far as a way leads there.
  returned: success
  type: dict
  sample: {"198.51.100.11:51820": 1500}
"""

import contextlib
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.defaults import OVERLAY_MTU
from ..module_utils.errors import EvioError
from ..module_utils.mtu import LEAST_MTU_IPV6 as IPV6_LOWEST_MTU
from ..module_utils.overlay.endpoint import LISTEN_PORT, OverlayError, parse_endpoint
from ..module_utils.overlay.path_mtu import path_mtus, route_mtu
from ..module_utils.overlay.wireguard.config import OVERHEAD, parse_overlay

DEFAULT_ROUTE = "the internet"


class OverlayMtu:
    """One run: measure, compare with what is wanted and with what there is."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params

    def run(self) -> dict[str, Any]:
        underlay = path_mtus(self._endpoint(relay) for relay in self.params["relays"])
        ways = dict(underlay)
        if self.params["endpoint"] is not None:
            carried = route_mtu(self._endpoint(self.params["endpoint"]))
            if carried is not None:
                ways[DEFAULT_ROUTE] = carried
        narrowest = min(ways, key=ways.__getitem__, default=None)
        possible = ways[narrowest] - OVERHEAD if narrowest is not None else OVERLAY_MTU
        why = (
            f"the way to {narrowest} carries {ways[narrowest]} bytes, of which WireGuard takes {OVERHEAD}"
            if ways
            else ""
        )
        mtu = self._mtu(possible, why)
        if mtu < IPV6_LOWEST_MTU and any(ip_network(cidr).version == 6 for cidr in self.params["networks"]):
            raise OverlayError(f"IPv6 inside the overlay needs an MTU of {IPV6_LOWEST_MTU}, it would have {mtu}: {why}")
        return {"changed": False, "mtu": mtu, "underlay": underlay}

    def _mtu(self, possible: int, why: str) -> int:
        wanted: int | None = self.params["mtu"]
        if wanted is not None:
            if wanted > possible:
                self.module.warn(f"evio_mtu: {wanted} is more than fits in one piece: {why}; {possible} would")
            return wanted
        known = self._known()
        if known is not None and possible < known:
            self.module.warn(
                f"the overlay's MTU goes from {known} to {possible}: {why}. Pods that run keep {known} until they are "
                "made anew"
            )
        return min(OVERLAY_MTU, possible, OVERLAY_MTU if known is None else known)

    def _known(self) -> int | None:
        """Of the overlay that is there; one that cannot be read is written anew in this run."""
        with contextlib.suppress(OSError, OverlayError):
            return parse_overlay(Path(self.params["config"]).read_text(encoding="utf-8")).mtu
        return None

    def _endpoint(self, text: str) -> str:
        return parse_endpoint(text, self.params["listen_port"])


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
    try:
        result = OverlayMtu(module).run()
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
