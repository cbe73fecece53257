# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EdgeVPN.io's ``config.json`` for one node, with both overlays in one service: build it and check it.

Pure. The controller of EdgeVPN.io (24.x) checks nothing and ignores what it does not know: with a wrong file it sets
up half an overlay. So the file is checked here, after the site's own overrides are merged into it. The module
edgevpn_config writes the file.
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
from .accounts import XmppAccount, refuse_shared_accounts

CONFIG_PATH = "/etc/opt/evio/config.json"
SECTIONS = ("Signal", "TincanTunnel", "LinkManager", "GeneveTunnel", "Topology", "BridgeController")
"""The sections that list the overlays. If one of them misses an overlay, EdgeVPN.io drops overlays in all of them."""

OVERLAY_PREFIX, APP_PREFIX = "evi", "app"
PREFIX_LENGTH = 3
BRIDGE_NAME_LENGTH = 15
"""A bridge's name is the prefix cut to 3 characters and the overlay id, together cut to 15."""

TAP_OVERLAY_CHARACTERS = 5
TAP_NODE_CHARACTERS = 10
"""The name of a tunnel's TAP is the first 5 characters of the overlay id and the first 10 of the peer's NodeId."""

DEFAULT_MTU = 1410
"""Bytes: EdgeVPN.io's own default."""

SWITCH_PROTOCOLS = ("BF", "STP")

BRIDGE_PROVIDER = "OVS"
"""EdgeVPN.io's default. With any other provider there is no Open vSwitch bridge for the pods."""

IGNORED_INTERFACES = ("lo", "docker0", "cni0", "flannel.1", "kube-ipvs0", "nodelocaldns", "ovs-system", "ovs-netdev")
"""Interfaces whose addresses are no candidates for tunnels: they lead through the overlay itself, or nowhere."""


class EdgeVpnConfigError(EvioError):
    """EdgeVPN.io would misread the configuration; the message names the setting and the consequence."""


@dataclass(frozen=True)
class EdgeVpnOverlay:
    """One overlay of the node."""

    id: str
    """At most 12 characters: the bridges' names contain it."""
    account: XmppAccount
    address: str | None = None
    """Address and prefix length of the application bridge; None as long as the node has no address there."""

    @property
    def bridge(self) -> str:
        """Name of the application bridge: the node's own interface, or the bridge that its pods are plugged into."""
        return bridge_name(APP_PREFIX, self.id)


@dataclass(frozen=True)
class TurnServer:
    """A relay for pairs of nodes whose NATs allow no direct tunnel."""

    address: str
    """``host:port``"""
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class EdgeVpnNode:
    """The inventory's settings of one node."""

    node_id: str
    """32 hexadecimal digits: see node_id()."""
    host_overlay: EdgeVpnOverlay
    pod_overlay: EdgeVpnOverlay
    xmpp_host: str
    xmpp_port: int = 5222
    mtu: int = DEFAULT_MTU
    """Of all bridges, in bytes."""
    stun: tuple[str, ...] = ()
    """``host:port``"""
    turn: tuple[TurnServer, ...] = ()
    switch_protocol: str | None = "BF"
    """One of SWITCH_PROTOCOLS, or None for plain learning switches."""
    ignored_interfaces: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Merged over the rest of the file, dictionaries key by key."""


def build_edgevpn_config(node: EdgeVpnNode) -> dict[str, Any]:
    """Return the node's ``config.json`` with its overrides.

    Raises EdgeVpnConfigError and XmppAccountError if EdgeVPN.io would misread it.
    """
    overlays = (node.host_overlay, node.pod_overlay)
    bridges = [bridge_name(prefix, overlay.id) for overlay in overlays for prefix in (OVERLAY_PREFIX, APP_PREFIX)]
    ignored = list(dict.fromkeys([*IGNORED_INTERFACES, *bridges, *node.ignored_interfaces]))
    config: dict[str, Any] = {
        "Broker": {"NodeId": node.node_id, "Overlays": [overlay.id for overlay in overlays]},
        "Signal": {
            # The controller creates no bridge until this name resolves; its default is a public STUN server.
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
    _check_overrides(config, node)
    return config


def check_edgevpn_config(config: Mapping[str, Any]) -> None:
    """Raise EdgeVpnConfigError or XmppAccountError for the first setting that EdgeVPN.io would misread."""
    overlays = _dictionary(config, "Broker").get("Overlays")
    if not isinstance(overlays, list) or not overlays:
        raise EdgeVpnConfigError("Broker.Overlays: no overlay is listed; EdgeVPN.io would end with a KeyError")
    check_overlay_ids(overlays)
    _check_node_id(_dictionary(config, "Broker").get("NodeId"))
    for section in SECTIONS:
        _check_section(section, _dictionary(_dictionary(config, section), "Overlays", section), overlays)
    if not config["Signal"].get("NetCheckHostName"):
        raise EdgeVpnConfigError(
            "Signal.NetCheckHostName: not given; EdgeVPN.io would create no bridge until the name of a public STUN "
            "server resolves"
        )
    _check_accounts(config["Signal"]["Overlays"])
    for overlay, settings in config["BridgeController"]["Overlays"].items():
        _check_bridges(overlay, settings, config["BridgeController"])
    if _dictionary(config, "UsageReport").get("Enabled", True) is not False:
        raise EdgeVpnConfigError("UsageReport.Enabled: not false; EdgeVPN.io would report to its makers every hour")


def names_to_resolve(config: Mapping[str, Any]) -> list[str]:
    """Return the host names that must resolve before EdgeVPN.io creates anything: it repeats the lookup until then."""
    signal = config["Signal"]
    hosts = [overlay["HostAddress"] for overlay in signal["Overlays"].values()]
    return list(dict.fromkeys(str(name) for name in (signal["NetCheckHostName"], *hosts)))


def check_overlay_ids(overlays: Iterable[Any]) -> None:
    """Raise EdgeVpnConfigError for an id that a bridge's name would cut off, and for ids whose tunnels share a name."""
    heads: dict[str, str] = {}
    for overlay in overlays:
        if not isinstance(overlay, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", overlay):
            raise EdgeVpnConfigError(f"overlay id {overlay!r}: use letters, digits, '-' and '_'")
        longest = BRIDGE_NAME_LENGTH - PREFIX_LENGTH
        if len(overlay) > longest:
            raise EdgeVpnConfigError(
                f"overlay id {overlay!r} has {len(overlay)} characters; bridges' names have room for {longest}"
            )
        head = overlay[:TAP_OVERLAY_CHARACTERS]
        if head in heads:
            raise EdgeVpnConfigError(
                f"overlay ids {heads[head]!r} and {overlay!r} begin with the same {TAP_OVERLAY_CHARACTERS} characters; "
                "their tunnels would have the same names"
            )
        heads[head] = overlay


def check_node_ids(node_ids: Mapping[str, str]) -> None:
    """Raise EdgeVpnConfigError if the tunnels to two nodes would have the same name on a third node."""
    owner: dict[str, str] = {}
    for node, identity in node_ids.items():
        _check_node_id(identity)
        head = identity[:TAP_NODE_CHARACTERS]
        if head in owner:
            raise EdgeVpnConfigError(
                f"NodeId: the ids of {owner[head]} and {node} begin with the same {TAP_NODE_CHARACTERS} characters "
                f"{head!r}; tunnels to both nodes would have the same name"
            )
        owner[head] = node


def node_id(cluster: str, node: str) -> str:
    """Return the NodeId made of the names: always the same, and different from the first character on (SHA-256)."""
    return hashlib.sha256(f"{cluster}/{node}".encode()).hexdigest()[:32]


def bridge_name(prefix: str, overlay: str) -> str:
    """Return the name that EdgeVPN.io gives to a bridge."""
    return (prefix[:PREFIX_LENGTH] + overlay)[:BRIDGE_NAME_LENGTH]


def tunnel_name(overlay: str, peer: str) -> str:
    """Return the name of the tunnel to the node with the NodeId ``peer``: its TAP, and the bridge's port."""
    return overlay[:TAP_OVERLAY_CHARACTERS] + peer[:TAP_NODE_CHARACTERS]


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


def app_bridge_address(config: Mapping[str, Any], overlay: str) -> str | None:
    """Return address and prefix length of the overlay's application bridge in an existing file; None if not set."""
    try:
        bridge = config["BridgeController"]["Overlays"][overlay]["NetDevice"]["AppBridge"]
        return str(ip_interface(f"{bridge['IP4']}/{bridge['PrefixLen']}"))
    except (KeyError, TypeError, ValueError):
        return None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with the changes merged over it: dictionaries key by key, other values replaced."""
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
    # With AutoDelete every stop and start would remove the bridges, and the pods' ports with them.
    app: dict[str, Any] = {"NamePrefix": APP_PREFIX, "AutoDelete": False, "MTU": node.mtu}
    if overlay.address is not None:
        # EdgeVPN.io flushes the bridge's addresses when it starts; only addresses of this file come back.
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


def _check_overrides(config: Mapping[str, Any], node: EdgeVpnNode) -> None:
    """Raise EdgeVpnConfigError for an override of a setting that other roles or nodes rely on."""
    if config["Broker"]["NodeId"] != node.node_id:
        raise EdgeVpnConfigError(
            "overrides: Broker.NodeId: set evio_node_id, which is compared with the other nodes' ids"
        )
    for overlay in (node.host_overlay, node.pod_overlay):
        where = f"overrides: BridgeController.Overlays.{overlay.id}.NetDevice"
        if overlay.id not in config["Broker"]["Overlays"]:
            raise EdgeVpnConfigError(f"overrides: Broker.Overlays: {overlay.id!r} is missing; the cluster needs both")
        device = config["BridgeController"]["Overlays"][overlay.id]["NetDevice"]
        if device["MTU"] != node.mtu:
            raise EdgeVpnConfigError(f"{where}.MTU: set evio_mtu, which pods get too")
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
                f"{section}.Overlays: {overlay!r} is missing; EdgeVPN.io would drop overlays in all sections"
            )
        if not isinstance(found[overlay], Mapping):
            raise EdgeVpnConfigError(f"{section}.Overlays.{overlay}: not a dictionary")
    for overlay in found:
        if overlay not in overlays:
            raise EdgeVpnConfigError(f"{section}.Overlays: {overlay!r} is not in Broker.Overlays")


def _check_accounts(overlays: Mapping[str, Mapping[str, Any]]) -> None:
    usernames: list[tuple[str, str]] = []
    certificates: list[str] = []
    for overlay, signal in overlays.items():
        where = f"Signal.Overlays.{overlay}"
        x509 = str(signal.get("AuthenticationMethod", "PASSWORD")).lower() == "x509"
        needed = ("CertDirectory", "CertFile", "KeyFile") if x509 else ("Username", "Password")
        for key in ("HostAddress", "Port", *needed):
            if not signal.get(key):
                raise EdgeVpnConfigError(
                    f"{where}.{key}: not given; EdgeVPN.io's signalling would end, or ask for it on the terminal"
                )
        if x509:
            certificates.append(str(signal["CertFile"]))
        else:
            usernames.append((where, str(signal["Username"])))
    refuse_shared_accounts(usernames)
    for certificate in certificates:
        if certificates.count(certificate) > 1:
            raise EdgeVpnConfigError(
                f"Signal.Overlays: CertFile {certificate} is used by more than one overlay; each needs its own account"
            )


def _check_bridges(overlay: str, settings: Mapping[str, Any], controller: Mapping[str, Any]) -> None:
    where = f"BridgeController.Overlays.{overlay}.NetDevice"
    device = _dictionary(settings, "NetDevice", where)
    app = _dictionary(device, "AppBridge", f"{where}.AppBridge")
    names = {
        bridge_name(str(part.get("NamePrefix", default)), overlay)
        for part, default in ((device, OVERLAY_PREFIX), (app, APP_PREFIX))
    }
    if len(names) == 1:
        raise EdgeVpnConfigError(f"{where}: both bridges would be named {names.pop()}")
    if device.get("MTU") is None or device.get("MTU") != app.get("MTU"):
        raise EdgeVpnConfigError(
            f"{where}.MTU: {device.get('MTU')}, but AppBridge.MTU is {app.get('MTU')}; with unequal MTUs bulk traffic "
            "stalls if Open vSwitch segments in userspace"
        )
    for part, place in ((device, where), (app, f"{where}.AppBridge")):
        if part.get("AutoDelete", True):
            raise EdgeVpnConfigError(f"{place}.AutoDelete: not false; each restart would disconnect every pod")
        if part.get("BridgeProvider", BRIDGE_PROVIDER) != BRIDGE_PROVIDER:
            raise EdgeVpnConfigError(
                f"{place}.BridgeProvider: {part['BridgeProvider']!r}; pods need {BRIDGE_PROVIDER} bridges"
            )
    if ("IP4" in app) != ("PrefixLen" in app):
        raise EdgeVpnConfigError(f"{where}.AppBridge: IP4 and PrefixLen go together; EdgeVPN.io would set neither")
    if "IP4" in app and not _is_ipv4(app):
        raise EdgeVpnConfigError(
            f"{where}.AppBridge.IP4: {app['IP4']}/{app['PrefixLen']} is no IPv4 address with its prefix length; "
            "EdgeVPN.io gives its bridges IPv4 addresses only"
        )
    protocol = device.get("SwitchProtocol", "BF")
    if protocol is not None and protocol not in SWITCH_PROTOCOLS:
        raise EdgeVpnConfigError(
            f"{where}.SwitchProtocol: {protocol!r}; EdgeVPN.io hangs on it. Use BF, STP, or null for none"
        )
    flooding = controller.get("BoundedFlood", {}).get("Overlays", {})
    if protocol == "BF" and overlay not in flooding:
        raise EdgeVpnConfigError(
            f"BridgeController.BoundedFlood.Overlays: {overlay!r} is missing; its bridge would forward nothing"
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
