# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model of EdgeVPN.io's controller 24.x, which is not available to tests: what it sets up from a ``config.json``.

Made from observations of the real controller: its bridges with their names, addresses and MTUs, the overlays that each
of its parts manages, its XMPP sessions, what it changes in Open vSwitch, and when it gives up. It forgives nothing that
the real one does not forgive: no key is checked, and a wrong value ends a thread or the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_MTU = 1410
CONTROLLERS = ("Signal", "TincanTunnel", "LinkManager", "GeneveTunnel", "Topology", "BridgeController")
LOG_LEVELS = ("CRITICAL", "FATAL", "ERROR", "WARN", "WARNING", "INFO", "DEBUG", "NOTSET")
OPENFLOW_PORTS = (6633, 6653)
"""TCP ports of the OpenFlow controller of BoundedFlood, on all addresses, whatever the configuration says."""
TAP_NAME_LENGTH = 15
LOSS_SECONDS = 5.0
"""Seconds without an answer after which a tunnel's end takes it for dead."""
YOUNG_TUNNEL_SECONDS = 180.0
"""A tunnel that dies younger than this excludes its peer."""
EXCLUSION_SECONDS = (60.0, 240.0)
"""Least and most seconds for which the peer of a young dead tunnel is left out."""
TINCAN_CHECK_SECONDS = 10.0
"""Seconds between two looks whether the tunnels' processes live."""
DEFAULT_TIMER_SECONDS = 30.0
"""Seconds between two looks of each part at its work, unless TimerInterval is given."""


class ControllerError(Exception):
    """An exception that ends a thread of the controller; its process stays and does nothing."""


class ControllerExitError(ControllerError):
    """An exception that ends the controller's process."""


@dataclass(frozen=True)
class Bridge:
    """An OVS bridge that the controller creates."""

    name: str
    mtu: int
    address: str | None
    survives_restart: bool
    sets: tuple[tuple[str, ...], ...] = ()
    """Commands of ovs-vsctl that it gives for the switch protocol. It never takes another protocol's settings away."""


@dataclass(frozen=True)
class SwitchState:
    """What Open vSwitch has for a bridge: settings of the controller outlive it."""

    spanning_tree: bool = False
    controllers: tuple[str, ...] = ()


class ControllerModel:
    """The state of the controller after it has loaded its configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        broker = config.get("Broker", {})
        self._start(broker)
        self.overlays: list[str] = list(broker["Overlays"])
        self.managed_by = {controller: self._managed(controller) for controller in CONTROLLERS}
        self.managed = [overlay for overlay in self.overlays if all(overlay in self.managed_by[c] for c in CONTROLLERS)]
        self.bridges = {
            bridge.name: bridge for overlay in self.managed_by["BridgeController"] for bridge in self._bridges(overlay)
        }

    def _start(self, broker: Mapping[str, Any]) -> None:
        """Do what ends the process before any part is loaded."""
        if "Overlays" not in broker:
            raise ControllerExitError("KeyError 'Overlays'")
        levels = [broker.get(key, "INFO") for key in ("LogLevel", "BrokerLogLevel")]
        levels += [self.config.get(controller, {}).get("LogLevel", "INFO") for controller in CONTROLLERS]
        for level in levels:
            if level not in LOG_LEVELS:
                raise ControllerExitError(f"ValueError: Unknown level: {level!r}")
        if broker.get("Model"):
            raise ControllerExitError(f"RuntimeError: Failed to located the specified module of {broker['Model']}")
        for controller in CONTROLLERS:
            # The last of them needs all others.
            if not self.config.get(controller, {}).get("Enabled", True):
                raise ControllerExitError(f"ConfigurationError: dependency {controller} is disabled")

    def _managed(self, controller: str) -> list[str]:
        """Return the overlays of one part. For each overlay that its section misses, its list is replaced."""
        listed = dict(self.config.get(controller, {}).get("Overlays", {}))
        for overlay in self.overlays:
            if overlay not in listed:
                listed = {overlay: {}}
        return list(listed)

    def _device(self, overlay: str) -> Mapping[str, Any]:
        """Return the settings of an overlay's bridges."""
        settings = self.config.get("BridgeController", {}).get("Overlays", {}).get(overlay, {})
        device: Mapping[str, Any] = settings.get("NetDevice", {})
        return device

    def protocol(self, overlay: str) -> str | None:
        """Return the switch protocol of an overlay; case does not matter."""
        protocol = self._device(overlay).get("SwitchProtocol", "BF")
        return None if protocol is None else str(protocol).upper()

    def _bridges(self, overlay: str) -> list[Bridge]:
        device, protocol = self._device(overlay), self.protocol(overlay)
        if protocol not in (None, "BF", "STP"):
            raise ControllerError(f"Invalid switch protocol {protocol!r}")
        name = self.bridge_name(device, "evi", overlay)
        sets: tuple[tuple[str, ...], ...] = ()
        if protocol == "STP":
            sets = (("set", "Bridge", name, "stp_enable=true"),)
        elif protocol == "BF":
            port = device.get("SDNControllerPort", OPENFLOW_PORTS[0])
            sets = (("set-controller", name, f"tcp:127.0.0.1:{port}"),)
        made = [self._bridge(name, device, sets)]
        if "AppBridge" in device:
            app = device["AppBridge"]
            made.append(self._bridge(self.bridge_name(app, "app", overlay), app, ()))
        return made

    @staticmethod
    def bridge_name(settings: Mapping[str, Any], prefix: str, overlay: str) -> str:
        return (str(settings.get("NamePrefix", prefix))[:3] + overlay)[:15]

    @staticmethod
    def _bridge(name: str, settings: Mapping[str, Any], sets: tuple[tuple[str, ...], ...]) -> Bridge:
        address = None
        if settings.get("IP4") and settings.get("PrefixLen"):
            address = f"{settings['IP4']}/{settings['PrefixLen']}"
        return Bridge(
            name=name,
            mtu=settings.get("MTU", DEFAULT_MTU),
            address=address,
            survives_restart=not settings.get("AutoDelete", True),
            sets=sets,
        )

    def switch_after_start(self, overlay: str, before: SwitchState) -> SwitchState:
        """Return what a standing bridge of the overlay has after a start: the protocol only ever sets."""
        protocol = self.protocol(overlay)
        controllers = before.controllers
        if protocol == "BF":
            controllers = (f"tcp:127.0.0.1:{self._device(overlay).get('SDNControllerPort', OPENFLOW_PORTS[0])}",)
        return SwitchState(before.spanning_tree or protocol == "STP", controllers)

    def forwards(self, overlay: str, node_count: int, before: SwitchState | None = None) -> bool:
        """Return whether packets pass between the overlay's nodes. ``before`` is what a standing bridge had."""
        state = self.switch_after_start(overlay, before or SwitchState())
        protocol = self.protocol(overlay)
        if protocol is None:
            # Three tunnels between three nodes are a loop.
            return node_count < 3 and not state.controllers
        if protocol == "STP":
            return not state.controllers
        served = f"tcp:127.0.0.1:{OPENFLOW_PORTS[0]}"
        flooded = self.config["BridgeController"].get("BoundedFlood", {}).get("Overlays", {})
        if any(stranger not in self.managed_by["BridgeController"] for stranger in flooded):
            return False
        return overlay in flooded and state.controllers == (served,) and not state.spanning_tree

    def forwarding_bridges(self) -> set[str]:
        """Return the overlay bridges that forward between two nodes."""
        return {
            self.bridge_name(self._device(overlay), "evi", overlay)
            for overlay in self.managed
            if self.forwards(overlay, 2)
        }

    def carries_ipv6(self, overlay: str) -> bool:
        """Return whether IPv6 works: BoundedFlood drops 33:33:*, and so neighbour discovery."""
        return self.protocol(overlay) != "BF"

    def listens(self) -> list[tuple[str, int]]:
        """Return addresses and TCP ports of the OpenFlow controller. It answers pods and strangers as well."""
        return (
            [("0.0.0.0", port) for port in OPENFLOW_PORTS] if "BoundedFlood" in self.config["BridgeController"] else []
        )

    def pods_bridge(self, overlay: str) -> Bridge | None:
        """Return the overlay's application bridge; None unless it is Open vSwitch's, the only kind for pods."""
        device = self._device(overlay)
        if {part.get("BridgeProvider", "OVS") for part in (device, device["AppBridge"])} != {"OVS"}:
            return None
        return self.bridges.get(self.bridge_name(device["AppBridge"], "app", overlay))

    def sessions(self) -> dict[str, str]:
        """Return the overlay whose messages each XMPP account gets; an account of two overlays gets the first's."""
        owners: dict[str, str] = {}
        for overlay in self.managed_by["Signal"]:
            signal = self.config["Signal"]["Overlays"][overlay]
            method = str(signal.get("AuthenticationMethod", "PASSWORD")).upper()
            if method == "X509":
                raise ControllerError("a JID without a user")
            if method != "PASSWORD":
                raise ControllerError(f"Invalid authentication method specified in configuration: {method}")
            if "Username" not in signal:
                raise ControllerError("No username is provided in evio configuration file.")
            owners.setdefault(signal["Username"].lower(), overlay)
        return owners

    def tap(self, overlay: str, peer_node_id: str) -> str:
        """Return the name of the tunnel's TAP to a peer: a prefix, filled up to 15 characters with the peer's id."""
        prefix = str(self.config["LinkManager"]["Overlays"][overlay].get("TapNamePrefix", overlay[:5]))
        return prefix + peer_node_id[: TAP_NAME_LENGTH - len(prefix)]

    def is_encrypted(self, overlay: str) -> bool:
        """Return whether tunnels are encrypted: nodes of one location use Geneve, which is not."""
        return self._edges(overlay).get("LocationId") is None

    def opens_tunnels(self, overlay: str) -> bool:
        """Return whether the node opens tunnels to all nodes that it finds."""
        edges = self._edges(overlay)
        is_manual = edges.get("ManualTopology", False) or str(edges.get("Role", "")).lower() == "leaf"
        return not is_manual or bool(edges.get("StaticEdges"))

    def _edges(self, overlay: str) -> Mapping[str, Any]:
        edges: Mapping[str, Any] = self.config["Topology"]["Overlays"][overlay]
        return edges

    def topology_seconds(self) -> float:
        """Return the seconds between two looks at which tunnels are missing."""
        seconds: float = self.config.get("Topology", {}).get("TimerInterval", DEFAULT_TIMER_SECONDS)
        return seconds

    def waits_for(self) -> str:
        """Return the name that must resolve before the controller creates anything."""
        name: str = self.config["Signal"].get("NetCheckHostName", "stun.l.google.com")
        return name

    def waits_for_in_thread(self) -> list[str]:
        """Return the names for which the signalling alone waits, in a thread of each overlay."""
        return [signal["HostAddress"] for signal in self.config["Signal"]["Overlays"].values()]

    def empties_logs(self) -> bool:
        """Return whether a start removes the logs of the last run."""
        return not self.config["Broker"].get("KeepLogsOnStart", False)

    def reports_home(self) -> bool:
        return bool(self.config.get("UsageReport", {}).get("Enabled", True))
