# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model of EdgeVPN.io's controller 24.x, which is not available to tests: what it sets up from a ``config.json``.

Made from observations of the real controller: its bridges with their names, addresses and MTUs, the overlays that each
of its parts manages, its XMPP sessions, and what a restart does to all of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_MTU = 1410
CONTROLLERS = ("Signal", "TincanTunnel", "LinkManager", "GeneveTunnel", "Topology", "BridgeController")


class ControllerError(Exception):
    """An exception that ends a thread of the controller; its process stays and does nothing."""


@dataclass(frozen=True)
class Bridge:
    """An OVS bridge that the controller creates."""

    name: str
    mtu: int
    address: str | None
    survives_restart: bool


class ControllerModel:
    """The state of the controller after it has loaded its configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        try:
            self.overlays: list[str] = list(config["Broker"]["Overlays"])
        except KeyError as error:
            raise ControllerError("KeyError 'Overlays'") from error
        self._load()
        self.bridges = {bridge.name: bridge for overlay in self.managed for bridge in self._bridges(overlay)}

    def _load(self) -> None:
        """A section with other overlays replaces the list for all sections that are loaded after it."""
        self.managed = list(self.overlays)
        for controller in CONTROLLERS:
            listed = self.config.get(controller, {}).get("Overlays", {})
            if set(listed) != set(self.overlays):
                self.managed = list(self.overlays)[-1:]
                if controller in ("LinkManager", "Topology"):
                    raise ControllerError(f"KeyError in {controller}")

    def _bridges(self, overlay: str) -> list[Bridge]:
        device = self.config["BridgeController"]["Overlays"].get(overlay, {}).get("NetDevice", {})
        protocol = device.get("SwitchProtocol", "BF")
        if protocol is not None and str(protocol).upper() not in ("BF", "STP"):
            raise ControllerError(f"Invalid switch protocol {protocol!r}")
        made = [self._bridge(overlay, device, "evi")]
        if "AppBridge" in device:
            made.append(self._bridge(overlay, device["AppBridge"], "app"))
        return made

    @staticmethod
    def _bridge(overlay: str, settings: Mapping[str, Any], prefix: str) -> Bridge:
        address = None
        if settings.get("IP4") and settings.get("PrefixLen"):
            address = f"{settings['IP4']}/{settings['PrefixLen']}"
        return Bridge(
            name=(str(settings.get("NamePrefix", prefix))[:3] + overlay)[:15],
            mtu=settings.get("MTU", DEFAULT_MTU),
            address=address,
            survives_restart=not settings.get("AutoDelete", True),
        )

    def forwarding_bridges(self) -> set[str]:
        """Return the overlay bridges that forward: with BoundedFlood only bridges listed in its section."""
        flooding = self.config["BridgeController"].get("BoundedFlood", {}).get("Overlays", {})
        forwarding = set()
        for overlay in self.managed:
            device = self.config["BridgeController"]["Overlays"][overlay]["NetDevice"]
            if device.get("SwitchProtocol", "BF") != "BF" or overlay in flooding:
                forwarding.add((str(device.get("NamePrefix", "evi"))[:3] + overlay)[:15])
        return forwarding

    def pods_bridge(self, overlay: str) -> Bridge | None:
        """Return the overlay's application bridge; None unless it is Open vSwitch's, the only kind for pods."""
        device = self.config["BridgeController"]["Overlays"][overlay]["NetDevice"]
        if {part.get("BridgeProvider", "OVS") for part in (device, device["AppBridge"])} != {"OVS"}:
            return None
        return self.bridges.get(self._bridge(overlay, device["AppBridge"], "app").name)

    def sessions(self) -> dict[str, str]:
        """Return the overlay whose messages each XMPP account gets; an account of two overlays gets the first's."""
        owners: dict[str, str] = {}
        for overlay in self.managed:
            signal = self.config["Signal"]["Overlays"][overlay]
            if "Username" not in signal:
                raise ControllerError("No username is provided in evio configuration file.")
            owners.setdefault(signal["Username"].lower(), overlay)
        return owners

    def tap(self, overlay: str, peer_node_id: str) -> str:
        """Return the name of the tunnel's TAP to a peer."""
        return overlay[:5] + peer_node_id[:10]

    def waits_for(self) -> str:
        """Return the name that must resolve before the controller creates anything."""
        name: str = self.config["Signal"].get("NetCheckHostName", "stun.l.google.com")
        return name

    def waits_for_others(self) -> list[str]:
        """Return the names that must resolve before the overlays' signalling begins."""
        return [signal["HostAddress"] for signal in self.config["Signal"]["Overlays"].values()]

    def reports_home(self) -> bool:
        return bool(self.config.get("UsageReport", {}).get("Enabled", True))
