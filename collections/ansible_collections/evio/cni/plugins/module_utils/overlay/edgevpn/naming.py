# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How EdgeVPN.io names bridges and tunnels, and ids of nodes and overlays with which no two have the same name.

Pure. The kernel cuts names of interfaces at 15 characters, so EdgeVPN.io cuts the ids in them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .schema import EdgeVpnConfigError

OVERLAY_PREFIX, APP_PREFIX = "evi", "app"
PREFIX_LENGTH = 3
BRIDGE_NAME_LENGTH = 15
"""A bridge's name is the prefix cut to 3 characters and the overlay id, together cut to 15."""

TAP_PREFIX_CHARACTERS = 5
TAP_NAME_LENGTH = 15
"""The name of a tunnel's TAP is TapNamePrefix, or the first 5 characters of the overlay's id, filled up to 15
characters with the peer's NodeId."""

BOUNDED_FLOOD, SPANNING_TREE = "BF", "STP"
SWITCH_PROTOCOLS = (BOUNDED_FLOOD, SPANNING_TREE)


def check_overlay_ids(overlays: Iterable[Any], prefixes: Mapping[str, str] | None = None) -> None:
    """Raise EdgeVpnConfigError for an id that a bridge's name would cut off, and for ids whose tunnels share a name.

    ``prefixes`` are the TapNamePrefix of overlays that have one.
    """
    found: dict[str, str] = {}
    for overlay in overlays:
        if not isinstance(overlay, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", overlay):
            raise EdgeVpnConfigError(f"overlay id {overlay!r}: use letters, digits, '-' and '_'")
        longest = BRIDGE_NAME_LENGTH - PREFIX_LENGTH
        if len(overlay) > longest:
            raise EdgeVpnConfigError(
                f"overlay id {overlay!r} has {len(overlay)} characters; bridges' names have room for {longest}"
            )
        prefix = (prefixes or {}).get(overlay, overlay[:TAP_PREFIX_CHARACTERS])
        for other, its_prefix in found.items():
            short, long = sorted((prefix, its_prefix), key=len)
            # The characters after the prefix are those of a NodeId, which are hexadecimal digits.
            if long.startswith(short) and re.fullmatch(r"[0-9a-f]*", long[len(short) :]):
                raise EdgeVpnConfigError(
                    f"overlay ids {other!r} and {overlay!r}: the names of their tunnels begin with {its_prefix!r} and "
                    f"{prefix!r}, and can be the same; choose ids that differ in the first {TAP_PREFIX_CHARACTERS} "
                    "characters"
                )
        found[overlay] = prefix


def check_node_ids(node_ids: Mapping[str, str], characters: int = TAP_NAME_LENGTH - TAP_PREFIX_CHARACTERS) -> None:
    """Raise EdgeVpnConfigError if the tunnels to two nodes would have the same name on a third node.

    ``characters`` is how many characters of a NodeId the names have room for: see tap_characters().
    """
    owner: dict[str, str] = {}
    for node, identity in node_ids.items():
        check_node_id(identity)
        head = identity[:characters]
        if head in owner:
            raise EdgeVpnConfigError(
                f"NodeId: the ids of {owner[head]} and {node} begin with the same {characters} characters "
                f"{head!r}; tunnels to both nodes would have the same name"
            )
        owner[head] = node


def check_node_id(identity: Any) -> None:
    """Raise EdgeVpnConfigError unless this is a NodeId."""
    if not isinstance(identity, str) or not re.fullmatch(r"[0-9a-f]{32}", identity):
        raise EdgeVpnConfigError(f"Broker.NodeId: {identity!r} is not 32 hexadecimal digits in lower case")


def node_id(cluster: str, node: str) -> str:
    """Return the NodeId made of the names: always the same, and different from the first character on (SHA-256)."""
    return hashlib.sha256(f"{cluster}/{node}".encode()).hexdigest()[:32]


def bridge_name(prefix: str, overlay: str) -> str:
    """Return the name that EdgeVPN.io gives to a bridge."""
    return (prefix[:PREFIX_LENGTH] + overlay)[:BRIDGE_NAME_LENGTH]


def tunnel_prefix(config: Mapping[str, Any], overlay: str) -> str:
    """Return how the names of the overlay's tunnels begin, with the settings of an existing file."""
    return tap_name_prefixes(config).get(overlay, overlay[:TAP_PREFIX_CHARACTERS])


def tunnel_name(prefix: str, peer: str) -> str:
    """Return the name of the tunnel to the node with the NodeId ``peer``: its TAP, and the bridge's port."""
    return prefix + peer[: TAP_NAME_LENGTH - len(prefix)]


def tap_characters(config: Mapping[str, Any]) -> int:
    """Return how many characters of a NodeId the names of tunnels have, in the overlay where it is the fewest."""
    return min(TAP_NAME_LENGTH - len(tunnel_prefix(config, overlay)) for overlay in config["Broker"]["Overlays"])


def configured_bridges(config: Mapping[str, Any]) -> list[str]:
    """Return the bridges that EdgeVPN.io creates from an existing file, and does not remove when it ends."""
    names = []
    controller = config.get("BridgeController", {})
    for overlay in config.get("Broker", {}).get("Overlays", []):
        device = controller.get("Overlays", {}).get(overlay, {}).get("NetDevice", {})
        names.append(bridge_name(device.get("NamePrefix", OVERLAY_PREFIX), overlay))
        if "AppBridge" in device:
            names.append(bridge_name(device["AppBridge"].get("NamePrefix", APP_PREFIX), overlay))
    return names


def overlay_bridges(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the switch protocol of each bridge to which EdgeVPN.io plugs tunnels, by the bridge's name."""
    devices = {overlay: settings["NetDevice"] for overlay, settings in config["BridgeController"]["Overlays"].items()}
    return {
        bridge_name(device.get("NamePrefix", OVERLAY_PREFIX), overlay): switch_protocol(device)
        for overlay, device in devices.items()
    }


def switch_protocol(device: Mapping[str, Any]) -> str | None:
    """Return the switch protocol of a ``NetDevice`` as EdgeVPN.io reads it: it ignores the case of the letters."""
    protocol = device.get("SwitchProtocol", BOUNDED_FLOOD)
    return protocol.upper() if isinstance(protocol, str) else None


def tap_name_prefixes(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the TapNamePrefix of each overlay that has one."""
    overlays = config.get("LinkManager", {}).get("Overlays", {})
    return {
        overlay: str(settings["TapNamePrefix"])
        for overlay, settings in overlays.items()
        if isinstance(settings, Mapping) and "TapNamePrefix" in settings
    }
