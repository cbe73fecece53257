# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EdgeVPN.io's ``config.json`` for one node: both overlays in one service, and what its controller would misread.

Pure. The controller (24.x) checks nothing and ignores what it does not know: a wrong file is not refused but makes
half an overlay. So the file is checked here, after the site's own changes are merged into it. The file itself is put
in place by the module evio_config.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from ...errors import EvioError

CONFIG_PATH = "/etc/opt/evio/config.json"
SECTIONS = ("Signal", "TincanTunnel", "LinkManager", "GeneveTunnel", "Topology", "BridgeController")
"""The controllers that keep something for each overlay. One that does not list an overlay drops it for all."""
OVERLAY_PREFIX = "evi"
APP_PREFIX = "app"
BRIDGE_NAME_LENGTH = 15
PREFIX_LENGTH = 3
"""Bridge = prefix cut to 3 characters + overlay id, cut to 15."""
TAP_OVERLAY_CHARACTERS = 5
TAP_NODE_CHARACTERS = 10
"""A tunnel's TAP = the overlay id's first 5 characters + the peer's NodeId's first 10."""
SWITCH_PROTOCOLS = ("BF", "STP")
BRIDGE_PROVIDER = "OVS"
"""Evio's default. With its others there is no bridge that pods could plug into."""
IGNORED_INTERFACES = ("lo", "docker0", "cni0", "flannel.1", "kube-ipvs0", "nodelocaldns", "ovs-system", "ovs-netdev")
"""Addresses of these are no candidates for tunnels: they would lead through the overlay itself, or nowhere."""


class EdgeVpnConfigError(EvioError):
    """Evio would misread the configuration; the message names the place and what it would make of it."""


@dataclass(frozen=True)
class XmppAccount:
    """An account of one overlay on the signalling server."""

    username: str
    """With its domain: ``node3-pods@xmpp.example``."""
    password: str = field(repr=False)


@dataclass(frozen=True)
class EdgeVpnOverlay:
    """One overlay of the node."""

    id: str
    """At most 12 characters: the bridges are named after it."""
    account: XmppAccount
    address: str | None = None
    """Address and prefix length of the application bridge; None as long as the node has none there."""

    @property
    def bridge(self) -> str:
        """Where the node, or its pods, plug in."""
        return bridge_name(APP_PREFIX, self.id)


@dataclass(frozen=True)
class TurnServer:
    """A relay for pairs that cannot be punched."""

    address: str
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class EdgeVpnNode:
    """What the inventory says of one node."""

    node_id: str
    """32 hexadecimal digits; see node_id()."""
    host_overlay: EdgeVpnOverlay
    pod_overlay: EdgeVpnOverlay
    xmpp_host: str
    xmpp_port: int = 5222
    mtu: int = 1410
    stun: tuple[str, ...] = ()
    turn: tuple[TurnServer, ...] = ()
    switch_protocol: str | None = "BF"
    ignored_interfaces: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Merged over the rendered file, dictionaries key by key."""


def build_edgevpn_config(node: EdgeVpnNode) -> dict[str, Any]:
    """The node's ``config.json``; EdgeVpnConfigError if Evio would misread it, overrides included."""
    overlays = (node.host_overlay, node.pod_overlay)
    bridges = [bridge_name(prefix, overlay.id) for overlay in overlays for prefix in (OVERLAY_PREFIX, APP_PREFIX)]
    ignored = list(dict.fromkeys([*IGNORED_INTERFACES, *bridges, *node.ignored_interfaces]))
    config: dict[str, Any] = {
        "Broker": {"NodeId": node.node_id, "Overlays": [overlay.id for overlay in overlays]},
        "Signal": {
            # Until this name resolves, the controller makes no bridge; its default is a public STUN server.
            "NetCheckHostName": node.xmpp_host,
            "Overlays": {overlay.id: _signal(node, overlay.account) for overlay in overlays},
        },
        "TincanTunnel": {"Overlays": {overlay.id: {} for overlay in overlays}},
        "LinkManager": {
            "Stun": list(node.stun),
            "Turn": [{"Address": turn.address, "User": turn.user, "Password": turn.password} for turn in node.turn],
            "Overlays": {overlay.id: {"IgnoredNetInterfaces": ignored} for overlay in overlays},
        },
        "GeneveTunnel": {"Overlays": {overlay.id: {} for overlay in overlays}},
        "Topology": {"Overlays": {overlay.id: {} for overlay in overlays}},
        "BridgeController": {"Overlays": {overlay.id: _bridges(node, overlay) for overlay in overlays}},
        "UsageReport": {"Enabled": False},
    }
    if node.switch_protocol == "BF":
        config["BridgeController"]["BoundedFlood"] = {"Overlays": {overlay.id: {} for overlay in overlays}}
    config = merge(config, node.overrides)
    check_edgevpn_config(config)
    _check_kept(config, node)
    return config


def check_edgevpn_config(config: Mapping[str, Any]) -> None:
    """Raise EdgeVpnConfigError for the first thing in the file that Evio would misread."""
    overlays = _dictionary(config, "Broker").get("Overlays")
    if not isinstance(overlays, list) or not overlays:
        raise EdgeVpnConfigError("Broker.Overlays: no overlay in it; Evio would end with a KeyError")
    check_overlay_ids(overlays)
    _check_node_id(_dictionary(config, "Broker").get("NodeId"))
    for section in SECTIONS:
        _check_section(section, _dictionary(_dictionary(config, section), "Overlays", section), overlays)
    if not config["Signal"].get("NetCheckHostName"):
        raise EdgeVpnConfigError(
            "Signal.NetCheckHostName: not given; Evio would wait for the name of a public STUN server, and make no "
            "bridge where that does not resolve"
        )
    _check_accounts(config["Signal"]["Overlays"])
    for overlay, settings in config["BridgeController"]["Overlays"].items():
        _check_bridges(overlay, settings, config["BridgeController"])
    if _dictionary(config, "UsageReport").get("Enabled", True) is not False:
        raise EdgeVpnConfigError("UsageReport.Enabled: not false; Evio would report to its makers every hour")


def names_to_resolve(config: Mapping[str, Any]) -> list[str]:
    """The names that Evio looks up before it makes anything, over and over until they are found."""
    signal = config["Signal"]
    hosts = [overlay["HostAddress"] for overlay in signal["Overlays"].values()]
    return list(dict.fromkeys(str(name) for name in (signal["NetCheckHostName"], *hosts)))


def check_overlay_ids(overlays: Iterable[Any]) -> None:
    """Refuse an id that would be cut in a bridge's name, or two whose tunnels have one name."""
    heads: dict[str, str] = {}
    for overlay in overlays:
        if not isinstance(overlay, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", overlay):
            raise EdgeVpnConfigError(f"overlay id {overlay!r}: use letters, digits, '-' and '_'")
        longest = BRIDGE_NAME_LENGTH - PREFIX_LENGTH
        if len(overlay) > longest:
            raise EdgeVpnConfigError(
                f"overlay id {overlay!r}: {len(overlay)} characters; over {longest} Evio cuts it in the bridges' names"
            )
        head = overlay[:TAP_OVERLAY_CHARACTERS]
        if head in heads:
            raise EdgeVpnConfigError(
                f"overlay ids {heads[head]!r} and {overlay!r} begin with the same {TAP_OVERLAY_CHARACTERS} characters; "
                "their tunnels would have the same names"
            )
        heads[head] = overlay


def check_node_ids(node_ids: Mapping[str, str]) -> None:
    """Raise EdgeVpnConfigError if two nodes' ids would make tunnels' TAPs of the same name on a third."""
    owner: dict[str, str] = {}
    for node, identity in node_ids.items():
        _check_node_id(identity)
        head = identity[:TAP_NODE_CHARACTERS]
        if head in owner:
            raise EdgeVpnConfigError(
                f"NodeId: those of {owner[head]} and {node} begin with the same {TAP_NODE_CHARACTERS} characters "
                f"{head!r}; tunnels to both would have one name"
            )
        owner[head] = node


def node_id(cluster: str, node: str) -> str:
    """An id that stays: from the names, and different from the first character on."""
    return hashlib.sha256(f"{cluster}/{node}".encode()).hexdigest()[:32]


def bridge_name(prefix: str, overlay: str) -> str:
    """The name Evio gives to a bridge."""
    return (prefix[:PREFIX_LENGTH] + overlay)[:BRIDGE_NAME_LENGTH]


def tunnel_name(overlay: str, peer: str) -> str:
    """The name of the TAP, which is the bridge's port too, of the tunnel to the node of that NodeId."""
    return overlay[:TAP_OVERLAY_CHARACTERS] + peer[:TAP_NODE_CHARACTERS]


def configured_bridges(config: Mapping[str, Any]) -> list[str]:
    """The bridges that Evio makes of a file that is there already, and leaves behind when it ends."""
    names = []
    controller = config.get("BridgeController", {})
    for overlay in config.get("Broker", {}).get("Overlays", []):
        device = controller.get("Overlays", {}).get(overlay, {}).get("NetDevice", {})
        names.append(bridge_name(device.get("NamePrefix", OVERLAY_PREFIX), overlay))
        if "AppBridge" in device:
            names.append(bridge_name(device["AppBridge"].get("NamePrefix", APP_PREFIX), overlay))
    return names


def app_bridge_address(config: Mapping[str, Any], overlay: str) -> str | None:
    """Address and prefix length of the overlay's application bridge in a file that is there already; None if unset."""
    try:
        bridge = config["BridgeController"]["Overlays"][overlay]["NetDevice"]["AppBridge"]
        return str(ip_interface(f"{bridge['IP4']}/{bridge['PrefixLen']}"))
    except (KeyError, TypeError, ValueError):
        return None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes over it: dictionaries key by key, all else replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _signal(node: EdgeVpnNode, account: XmppAccount) -> dict[str, Any]:
    return {
        "HostAddress": node.xmpp_host,
        "Port": str(node.xmpp_port),
        "AuthenticationMethod": "PASSWORD",
        "Username": account.username,
        "Password": account.password,
    }


def _bridges(node: EdgeVpnNode, overlay: EdgeVpnOverlay) -> dict[str, Any]:
    # AutoDelete would take the bridges, and the pods' ports with them, at every stop and start.
    app: dict[str, Any] = {"NamePrefix": APP_PREFIX, "AutoDelete": False, "MTU": node.mtu}
    if overlay.address is not None:
        # Evio flushes the bridge's addresses when it starts; only those that it sets itself come back.
        interface = ip_interface(overlay.address)
        app.update({"IP4": str(interface.ip), "PrefixLen": interface.network.prefixlen})
    return {
        "NetDevice": {
            "NamePrefix": OVERLAY_PREFIX,
            "AutoDelete": False,
            "MTU": node.mtu,
            "SwitchProtocol": node.switch_protocol,
            "AppBridge": app,
        }
    }


def _check_kept(config: Mapping[str, Any], node: EdgeVpnNode) -> None:
    """Raise EdgeVpnConfigError where the site's own changes move what other roles or nodes were told already."""
    if config["Broker"]["NodeId"] != node.node_id:
        raise EdgeVpnConfigError("overrides: Broker.NodeId: set evio_node_id, which is compared with the other nodes'")
    for overlay in (node.host_overlay, node.pod_overlay):
        where = f"overrides: BridgeController.Overlays.{overlay.id}.NetDevice"
        if overlay.id not in config["Broker"]["Overlays"]:
            raise EdgeVpnConfigError(f"overrides: Broker.Overlays: {overlay.id!r} is missing; the cluster needs both")
        device = config["BridgeController"]["Overlays"][overlay.id]["NetDevice"]
        if device["MTU"] != node.mtu:
            raise EdgeVpnConfigError(f"{where}.MTU: set evio_mtu, which pods have too")
        if bridge_name(device["AppBridge"].get("NamePrefix", APP_PREFIX), overlay.id) != overlay.bridge:
            raise EdgeVpnConfigError(f"{where}.AppBridge.NamePrefix: the roles look for {overlay.bridge}")
        address = str(ip_interface(overlay.address)) if overlay.address is not None else None
        if app_bridge_address(config, overlay.id) != address:
            raise EdgeVpnConfigError(
                f"{where}.AppBridge.IP4: the address is {address or 'not known yet'}, by inventory and claim"
            )


def _check_node_id(identity: Any) -> None:
    if not isinstance(identity, str) or not re.fullmatch(r"[0-9a-f]{32}", identity):
        raise EdgeVpnConfigError(f"Broker.NodeId: {identity!r} is not 32 hexadecimal digits in lower case")


def _check_section(section: str, found: Mapping[str, Any], overlays: list[str]) -> None:
    for overlay in overlays:
        if overlay not in found:
            raise EdgeVpnConfigError(
                f"{section}.Overlays: {overlay!r} is missing; Evio would drop it, or the other overlays, everywhere"
            )
        if not isinstance(found[overlay], Mapping):
            raise EdgeVpnConfigError(f"{section}.Overlays.{overlay}: not a dictionary")
    for overlay in found:
        if overlay not in overlays:
            raise EdgeVpnConfigError(f"{section}.Overlays: {overlay!r} is not in Broker.Overlays")


def _check_accounts(overlays: Mapping[str, Mapping[str, Any]]) -> None:
    owner: dict[str, str] = {}
    for overlay, signal in overlays.items():
        where = f"Signal.Overlays.{overlay}"
        x509 = str(signal.get("AuthenticationMethod", "PASSWORD")).lower() == "x509"
        needed = ("CertDirectory", "CertFile", "KeyFile") if x509 else ("Username", "Password")
        for key in ("HostAddress", "Port", *needed):
            if not signal.get(key):
                raise EdgeVpnConfigError(f"{where}.{key}: not given; Evio's signalling would end, or ask the terminal")
        # RFC 7622 section 3.3: the server takes names in any case for the same.
        account = str(signal["CertFile"]) if x509 else str(signal["Username"]).lower()
        if account in owner:
            raise EdgeVpnConfigError(
                f"{where}: {account!r} is also the account of {owner[account]!r}; messages of both overlays would go "
                "to whichever session was first"
            )
        owner[account] = overlay


def _check_bridges(overlay: str, settings: Mapping[str, Any], controller: Mapping[str, Any]) -> None:
    where = f"BridgeController.Overlays.{overlay}.NetDevice"
    device = _dictionary(settings, "NetDevice", where)
    app = _dictionary(device, "AppBridge", f"{where}.AppBridge")
    names = {str(part.get("NamePrefix", default))[:3] for part, default in ((device, "evi"), (app, "app"))}
    if len(names) == 1:
        raise EdgeVpnConfigError(f"{where}: both bridges would be named {bridge_name(names.pop(), overlay)}")
    if device.get("MTU") is None or device.get("MTU") != app.get("MTU"):
        raise EdgeVpnConfigError(
            f"{where}.MTU: {device.get('MTU')}, but AppBridge.MTU is {app.get('MTU')}; with unequal MTUs bulk traffic "
            "stalls where Open vSwitch segments in user space"
        )
    for part, place in ((device, where), (app, f"{where}.AppBridge")):
        if part.get("AutoDelete", True):
            raise EdgeVpnConfigError(f"{place}.AutoDelete: not false; each restart would cut every pod off")
        if part.get("BridgeProvider", BRIDGE_PROVIDER) != BRIDGE_PROVIDER:
            raise EdgeVpnConfigError(
                f"{place}.BridgeProvider: {part['BridgeProvider']!r}; pods plug into {BRIDGE_PROVIDER} bridges alone"
            )
    if ("IP4" in app) != ("PrefixLen" in app):
        raise EdgeVpnConfigError(f"{where}.AppBridge: IP4 and PrefixLen go together; Evio would set neither")
    if "IP4" in app and not _is_ipv4(app):
        raise EdgeVpnConfigError(
            f"{where}.AppBridge.IP4: {app['IP4']}/{app['PrefixLen']} is no IPv4 address with its prefix length; Evio "
            "gives its bridges no others"
        )
    protocol = device.get("SwitchProtocol", "BF")
    if protocol is not None and protocol not in SWITCH_PROTOCOLS:
        raise EdgeVpnConfigError(
            f"{where}.SwitchProtocol: {protocol!r}; Evio hangs on it. Use BF, STP, or null for none"
        )
    flooding = controller.get("BoundedFlood", {}).get("Overlays", {})
    if protocol == "BF" and overlay not in flooding:
        raise EdgeVpnConfigError(
            f"BridgeController.BoundedFlood.Overlays: {overlay!r} is missing; nothing would forward"
        )


def _is_ipv4(app: Mapping[str, Any]) -> bool:
    try:
        return ip_interface(f"{app['IP4']}/{app['PrefixLen']}").version == 4
    except ValueError:
        return False


def _dictionary(parent: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    value = parent.get(key)
    if not isinstance(value, Mapping):
        raise EdgeVpnConfigError(f"{where + '.' if where and not where.endswith(key) else ''}{key}: not a dictionary")
    return value
