# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EdgeVPN.io's ``config.json`` for one node, with both overlays in one service: build it and check it.

Pure. The controller of EdgeVPN.io (24.x) checks nothing and ignores what it does not know: with a wrong file it sets
up half an overlay. So the file is checked here, after the site's own overrides are merged into it: each setting by
itself is schema's subject. The module edgevpn_config writes the file.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from .accounts import XmppAccount, refuse_shared_accounts
from .naming import (
    APP_PREFIX,
    BOUNDED_FLOOD,
    OVERLAY_PREFIX,
    SWITCH_PROTOCOLS,
    bridge_name,
    check_node_id,
    check_overlay_ids,
    overlay_bridges,
    switch_protocol,
    tap_name_prefixes,
)
from .schema import FLOODED_OVERLAY, EdgeVpnConfigError, check_settings

CONFIG_PATH = "/etc/opt/evio/config.json"
SECTIONS = ("Signal", "TincanTunnel", "LinkManager", "GeneveTunnel", "Topology", "BridgeController")
"""The sections that list the overlays. A part of EdgeVPN.io whose section misses an overlay does nothing for it."""

DEFAULT_MTU = 1410
"""Bytes: EdgeVPN.io's own default."""

TOPOLOGY_INTERVAL = 5
"""Seconds between two looks at which tunnels are missing. With EdgeVPN.io's own default, 30, a cold start of four nodes
takes 44 s instead of 20 s until each reaches each other."""

IGNORED_INTERFACES = ("lo", "docker0", "cni0", "flannel.1", "kube-ipvs0", "nodelocaldns", "ovs-system", "ovs-netdev")
"""Interfaces whose addresses are no candidates for tunnels: they lead through the overlay itself, or nowhere."""


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
class EdgeVpnTuning:
    """Settings that sites change, with the same values in both overlays. EdgeVPN.io's own default where it is None."""

    topology_interval: int = TOPOLOGY_INTERVAL
    """Seconds between two looks at which tunnels are missing."""
    min_successors: int | None = None
    """Tunnels that each node opens to its successors in the ring of all NodeIds."""
    max_long_distance_edges: int | None = None
    """Tunnels that each node opens across the ring; by default the logarithm of the number of nodes."""
    max_on_demand_edges: int | None = None
    """Tunnels that each node opens to nodes to which it sends much."""
    log_level: str | None = None
    keep_logs: bool = True
    """Whether logs outlive a restart. EdgeVPN.io limits their size."""
    bounded_flood: Mapping[str, Any] = field(default_factory=dict)
    """Settings of BoundedFlood: those of its section, and those of each overlay in it."""


@dataclass(frozen=True)
class EdgeVpnNode:
    """The inventory's settings of one node."""

    node_id: str
    """32 hexadecimal digits: see node_id()."""
    host_overlay: EdgeVpnOverlay
    pod_overlay: EdgeVpnOverlay | None
    """None where EdgeVPN.io carries the nodes' packets alone, and pods have another network."""
    xmpp_host: str
    xmpp_port: int = 5222
    mtu: int = DEFAULT_MTU
    """Of all bridges, in bytes."""
    stun: tuple[str, ...] = ()
    """``host:port``"""
    turn: tuple[TurnServer, ...] = ()
    switch_protocol: str | None = BOUNDED_FLOOD
    """One of SWITCH_PROTOCOLS, or None for plain learning switches."""
    node_count: int = 2
    """How many nodes the overlays have, with this one."""
    ignored_interfaces: tuple[str, ...] = ()
    tuning: EdgeVpnTuning = field(default_factory=EdgeVpnTuning)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Merged over the rest of the file, dictionaries key by key."""
    replaces_lists: bool = False
    """Whether a list in ``overrides`` replaces ours; otherwise its items are added to ours."""

    @property
    def overlays(self) -> tuple[EdgeVpnOverlay, ...]:
        """The overlays that the node has."""
        return (self.host_overlay,) if self.pod_overlay is None else (self.host_overlay, self.pod_overlay)


def build_edgevpn_config(node: EdgeVpnNode) -> dict[str, Any]:
    """Return the node's ``config.json`` with its overrides.

    Raises EdgeVpnConfigError and XmppAccountError if EdgeVPN.io would misread it.
    """
    overlays = node.overlays
    check_overlay_ids(overlay.id for overlay in overlays)
    bridges = [bridge_name(prefix, overlay.id) for overlay in overlays for prefix in (OVERLAY_PREFIX, APP_PREFIX)]
    ignored = list(dict.fromkeys([*IGNORED_INTERFACES, *bridges, *node.ignored_interfaces]))
    tuning = node.tuning
    edges = _given(
        MinSuccessors=tuning.min_successors,
        MaxLongDistEdges=tuning.max_long_distance_edges,
        MaxOnDemandEdges=tuning.max_on_demand_edges,
    )
    config: dict[str, Any] = {
        "Broker": {
            "NodeId": node.node_id,
            "Overlays": [overlay.id for overlay in overlays],
            "KeepLogsOnStart": tuning.keep_logs,
            **_given(LogLevel=tuning.log_level),
        },
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
        "Topology": {
            "TimerInterval": tuning.topology_interval,
            "Overlays": {overlay.id: dict(edges) for overlay in overlays},
        },
        "BridgeController": {"Overlays": {overlay.id: _bridges(node, overlay) for overlay in overlays}},
        "UsageReport": {"Enabled": False},
    }
    if node.switch_protocol == BOUNDED_FLOOD:
        config["BridgeController"]["BoundedFlood"] = _bounded_flood(node)
    config = merge(config, node.overrides, replaces_lists=node.replaces_lists)
    check_settings(config)
    _check_switch_protocol(config, node)
    check_edgevpn_config(config)
    _check_loops(config, node.node_count)
    _check_overrides(config, node)
    return config


def check_edgevpn_config(config: Mapping[str, Any]) -> None:
    """Raise EdgeVpnConfigError or XmppAccountError for the first setting that EdgeVPN.io would misread."""
    overlays = _dictionary(config, "Broker").get("Overlays")
    if not isinstance(overlays, list) or not overlays:
        raise EdgeVpnConfigError("Broker.Overlays: no overlay is listed; EdgeVPN.io would end with a KeyError")
    check_overlay_ids(overlays, tap_name_prefixes(config))
    check_node_id(_dictionary(config, "Broker").get("NodeId"))
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
    _check_bounded_flood(config["BridgeController"])
    _check_edges(config["Topology"]["Overlays"])
    if _dictionary(config, "UsageReport").get("Enabled", True) is not False:
        raise EdgeVpnConfigError("UsageReport.Enabled: not false; EdgeVPN.io would report to its makers every hour")


def names_to_resolve(config: Mapping[str, Any]) -> list[str]:
    """Return the host names that must resolve: EdgeVPN.io looks them up again and again until they do.

    It creates no bridge before the first of them resolves, and has no session before all do.
    """
    signal = config["Signal"]
    hosts = [overlay["HostAddress"] for overlay in signal["Overlays"].values()]
    return list(dict.fromkeys(str(name) for name in (signal["NetCheckHostName"], *hosts)))


def app_bridge_address(config: Mapping[str, Any], overlay: str) -> str | None:
    """Return address and prefix length of the overlay's application bridge in an existing file; None if not set."""
    try:
        bridge = config["BridgeController"]["Overlays"][overlay]["NetDevice"]["AppBridge"]
        return str(ip_interface(f"{bridge['IP4']}/{bridge['PrefixLen']}"))
    except (KeyError, TypeError, ValueError):
        return None


def without_app_bridge_address(config: Mapping[str, Any], overlay: str) -> dict[str, Any]:
    """Return a copy of an existing file without the address of the overlay's application bridge."""
    bare = copy.deepcopy(dict(config))
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        app = bare["BridgeController"]["Overlays"][overlay]["NetDevice"]["AppBridge"]
        for key in ("IP4", "PrefixLen"):
            app.pop(key, None)
    return bare


def merge(base: Mapping[str, Any], changes: Mapping[str, Any], *, replaces_lists: bool = False) -> dict[str, Any]:
    """Return the base with the changes merged over it: dictionaries key by key, other values replaced.

    Items of a list that the base does not have are added to the base's list, unless ``replaces_lists`` is set.
    """
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        present = merged.get(key)
        if isinstance(value, Mapping) and isinstance(present, dict):
            merged[key] = merge(present, value, replaces_lists=replaces_lists)
        elif isinstance(value, list) and isinstance(present, list) and not replaces_lists:
            merged[key] = [*present, *(copy.deepcopy(item) for item in value if item not in present)]
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _given(**settings: Any) -> dict[str, Any]:
    """Return the settings that are not None."""
    return {name: value for name, value in settings.items() if value is not None}


def _bounded_flood(node: EdgeVpnNode) -> dict[str, Any]:
    """Return the section of BoundedFlood. A setting that is an overlay's is given to all overlays."""
    settings = node.tuning.bounded_flood
    own = {name: value for name, value in settings.items() if name in FLOODED_OVERLAY}
    return {
        **{name: copy.deepcopy(value) for name, value in settings.items() if name not in FLOODED_OVERLAY},
        "Overlays": {overlay.id: dict(own) for overlay in node.overlays},
    }


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


def _check_loops(config: Mapping[str, Any], node_count: int) -> None:
    for bridge, protocol in overlay_bridges(config).items():
        if protocol is None and node_count > 2:
            raise EdgeVpnConfigError(
                f"SwitchProtocol of {bridge}: a learning switch does not avoid loops, and the tunnels between "
                f"{node_count} nodes are one; use {' or '.join(SWITCH_PROTOCOLS)}"
            )


def _check_switch_protocol(config: Mapping[str, Any], node: EdgeVpnNode) -> None:
    """Raise EdgeVpnConfigError if an override has changed the switch protocol."""
    for overlay in node.overlays:
        device = config["BridgeController"]["Overlays"].get(overlay.id, {}).get("NetDevice", {})
        if switch_protocol(device) != node.switch_protocol:
            raise EdgeVpnConfigError(
                f"overrides: BridgeController.Overlays.{overlay.id}.NetDevice.SwitchProtocol: set evio_switch_protocol"
            )


def _check_overrides(config: Mapping[str, Any], node: EdgeVpnNode) -> None:
    """Raise EdgeVpnConfigError for an override of a setting that other roles or nodes rely on."""
    if config["Broker"]["NodeId"] != node.node_id:
        raise EdgeVpnConfigError(
            "overrides: Broker.NodeId: set evio_node_id, which is compared with the other nodes' ids"
        )
    for overlay in node.overlays:
        where = f"overrides: BridgeController.Overlays.{overlay.id}.NetDevice"
        if overlay.id not in config["Broker"]["Overlays"]:
            raise EdgeVpnConfigError(f"overrides: Broker.Overlays: {overlay.id!r} is missing; the cluster needs it")
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


def _check_section(section: str, found: Mapping[str, Any], overlays: list[str]) -> None:
    for overlay in overlays:
        if overlay not in found:
            raise EdgeVpnConfigError(
                f"{section}.Overlays: {overlay!r} is missing; this part of EdgeVPN.io would do nothing for it"
            )
        if not isinstance(found[overlay], Mapping):
            raise EdgeVpnConfigError(f"{section}.Overlays.{overlay}: not a dictionary")
    for overlay in found:
        if overlay not in overlays:
            near = difflib.get_close_matches(str(overlay), overlays, 1, 0.6)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise EdgeVpnConfigError(f"{section}.Overlays: {overlay!r} is not in Broker.Overlays{hint}")


def _check_accounts(overlays: Mapping[str, Mapping[str, Any]]) -> None:
    usernames: list[tuple[str, str]] = []
    for overlay, signal in overlays.items():
        where = f"Signal.Overlays.{overlay}"
        for key in ("HostAddress", "Port", "Username", "Password"):
            if not signal.get(key):
                raise EdgeVpnConfigError(
                    f"{where}.{key}: not given; EdgeVPN.io's signalling would end, or ask for it on the terminal"
                )
        usernames.append((where, str(signal["Username"])))
    refuse_shared_accounts(usernames)


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
    if ("IP4" in app) != ("PrefixLen" in app):
        raise EdgeVpnConfigError(f"{where}.AppBridge: IP4 and PrefixLen go together; EdgeVPN.io would set neither")
    if "IP4" in app and not _is_ipv4(app):
        raise EdgeVpnConfigError(
            f"{where}.AppBridge.IP4: {app['IP4']}/{app['PrefixLen']} is no IPv4 address with its prefix length; "
            "EdgeVPN.io gives its bridges IPv4 addresses only"
        )
    protocol = switch_protocol(device)
    if protocol is not None and protocol not in SWITCH_PROTOCOLS:
        raise EdgeVpnConfigError(
            f"{where}.SwitchProtocol: {protocol!r}; EdgeVPN.io hangs on it; use BF, STP, or null for none"
        )
    flooding = controller.get("BoundedFlood", {}).get("Overlays", {})
    if protocol == BOUNDED_FLOOD and overlay not in flooding:
        raise EdgeVpnConfigError(
            f"BridgeController.BoundedFlood.Overlays: {overlay!r} is missing; its bridge would forward nothing"
        )


def _check_bounded_flood(controller: Mapping[str, Any]) -> None:
    for overlay in controller.get("BoundedFlood", {}).get("Overlays", {}):
        settings = controller["Overlays"].get(overlay)
        if settings is None or switch_protocol(settings["NetDevice"]) != BOUNDED_FLOOD:
            raise EdgeVpnConfigError(
                f"BridgeController.BoundedFlood.Overlays: {overlay!r} is no overlay with SwitchProtocol BF; "
                "EdgeVPN.io would make no bridge at all"
            )


def _check_edges(overlays: Mapping[str, Mapping[str, Any]]) -> None:
    for overlay, settings in overlays.items():
        if settings.get("ManualTopology") and not settings.get("StaticEdges"):
            raise EdgeVpnConfigError(
                f"Topology.Overlays.{overlay}.ManualTopology: without StaticEdges, EdgeVPN.io would open no tunnel"
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
