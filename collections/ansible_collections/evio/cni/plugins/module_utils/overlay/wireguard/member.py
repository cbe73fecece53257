# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node tells the others before it is a member of the overlay: its public keys, and the MTU that its paths allow.

The work of the modules wireguard_key, and wireguard_member, which does both in one step. How a node changes to its next
key is rekey's subject.
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
from .config import OVERHEAD, OverlayConfig, parse_overlay
from .device import create_key, next_key_path, read_public_key

SHOWN_KEY = "(private key)\n"
"""Stands for the private key in a diff."""

PENDING_KEY = "(made by this run)"
"""Stands for a public key that does not exist yet, in check mode."""


class WireguardKey:
    """One run: read the key once, create it unless there is one or in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.path: str = self.params["path"]
        self.next_path = next_key_path(self.path)
        self.file, self.next_file = (
            ManagedFile(path, mode=0o600, show=lambda _key: SHOWN_KEY) for path in (self.path, self.next_path)
        )

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

    def make_next(self, config_path: str) -> dict[str, Any]:
        """Create the next key, to which the node changes while keys are rotated, unless it has or had one already.

        A node that has changed in a run that was cut off still tells both keys: the others may not know that it has.
        Return the module's result with both public keys. Raises OverlayError if the node is no member of the overlay.
        """
        config = existing_overlay(config_path)
        if config is None or self.file.text is None:
            raise OverlayError(f"this node has no WireGuard overlay in {config_path}: run bootstrap.yml for it first")
        public_key = read_public_key(self.path)
        if public_key == config.next_public_key:
            return {"changed": False, "public_key": config.public_key, "next_public_key": public_key}
        next_key = read_public_key(self.next_path) if self.next_file.text is not None else PENDING_KEY
        change = self.next_file.change_to(self.next_file.text or SHOWN_KEY)
        if not self.check_mode:
            next_key = create_key(self.next_path)
        return {**result_of(change), "public_key": public_key, "next_public_key": next_key}

    def _absent(self) -> dict[str, Any]:
        changes = [file.change_to(None) for file in (self.file, self.next_file)]
        if not self.check_mode:
            for change in changes:
                change.apply()
        return result_of(*changes)


DEFAULT_ROUTE = "the internet"
"""Names the default route among the paths, in messages."""


class OverlayMtu:
    """One run: measure, compare with the MTU that is wanted and with that of an overlay that exists."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params
        existing = existing_overlay(self.params["config"])
        self.existing = existing.mtu if existing is not None else None

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


def existing_overlay(path: str) -> OverlayConfig | None:
    """Return the overlay of this file; None if the file cannot be read, since a run then replaces it."""
    try:
        text = read_text(path)
        return parse_overlay(text) if text is not None else None
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
