# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node tells the others before it is a member of the overlay: its public key, and the MTU that its paths allow.

The work of the modules wireguard_key, and wireguard_member, which does both in one step.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from ... import paths
from ...atomic_file import read_text
from ...defaults import OVERLAY_MTU
from ...managed_file import ManagedFile, result_of
from ...module_runner import Module
from ...mtu import LEAST_MTU_IPV6
from ..endpoint import LISTEN_PORT, OverlayError, parse_public_endpoint
from ..name_lookup import resolve_endpoint
from ..path_mtu import path_mtus, route_mtu
from .config import OVERHEAD, parse_overlay
from .device import create_key, read_public_key

SHOWN_KEY = "(private key)\n"
"""Stands for the private key in a diff."""


class WireguardKey:
    """One run: read the key once, create it unless there is one or in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.path: str = self.params["path"]
        self.file = ManagedFile(self.path, mode=0o600, show=lambda _key: SHOWN_KEY)

    def run(self) -> dict[str, Any]:
        return self.make() if self.params["state"] == "present" else self._absent()

    def make(self) -> dict[str, Any]:
        """Create the key unless there is one or in check mode, and return the module's result with the public key."""
        public_key = read_public_key(self.path) if self.file.text is not None else None
        change = self.file.change_to(self.file.text or SHOWN_KEY)
        if not self.check_mode:
            # Not change.apply(): a key that another run creates in this moment must stay.
            public_key = create_key(self.path)
        return {**result_of(change), "public_key": public_key}

    def _absent(self) -> dict[str, Any]:
        change = self.file.change_to(None)
        if not self.check_mode:
            change.apply()
        return result_of(change)


DEFAULT_ROUTE = "the internet"
"""Names the default route among the paths, in messages."""


class OverlayMtu:
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
        return {"changed": False, "mtu": mtu, "possible_mtu": possible, "underlay": underlay}

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


MTU_OPTIONS: dict[str, Any] = {
    "relays": {"type": "list", "elements": "str", "default": []},
    "endpoint": {"type": "str"},
    "listen_port": {"type": "int", "default": LISTEN_PORT},
    "mtu": {"type": "int"},
    "networks": {"type": "list", "elements": "str", "default": []},
    "config": {"type": "path", "default": paths.OVERLAY_CONFIG},
}
"""The options of OverlayMtu, for AnsibleModule."""
