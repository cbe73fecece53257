"""The lab's network: a namespace for each host, router and segment, joined by veth pairs. nodes.py starts the hosts.

No link, address or setting is made in the machine's own network namespace.
"""

from __future__ import annotations

import os
from pathlib import Path

import mounts
from commands import NETNS_DIR, attempt, in_netns, run
from topology import ETHERNET_MTU, Node, Router, Topology

SEGMENT = "pub"
"""Name of the public segment's namespace and bridge; every packet that leaves a site crosses that bridge."""
INTERNET = "internet"

_LAN_BRIDGE = "lan0"
_WAN = "wan0"

_NAT_RULES = """\
table {family} nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{wan}" masquerade{how}
    }}
}}
"""
_FILTER_RULES = """\
table inet filter {{
    # An unsolicited packet is dropped before conntrack confirms it. If the router accepted it, its port would be
    # taken, and the node's own packets would be translated to another port.
    chain input {{
        type filter hook input priority filter; policy accept;
        # Neighbour discovery: conntrack has no state for it.
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        iifname "{wan}" ct state != {{ established, related }} drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        {own_prefix_only}
        ct state established,related accept
        iifname "{lan}" oifname "{wan}" accept
        # With br_netfilter the packets that the LAN's bridge forwards pass this hook too.
        iifname "{lan}" oifname "{lan}" accept
    }}
}}
"""
_OWN_PREFIX_ONLY = 'iifname "{lan}" oifname "{wan}" ip6 saddr != {prefix} drop'
"""RFC 6092 section 3.1: addresses of a prefix that the site had before get nothing out."""
_DEPRECATED = ("preferred_lft", "0", "valid_lft", "7200")
"""Lifetimes of an address of a withdrawn prefix: no new connections, valid for two hours (RFC 4862, 5.5.3)."""


def build(prefix: str, topology: Topology) -> None:
    """Create every namespace and link of the topology; the namespaces' names start with the prefix."""
    _add_netns(f"{prefix}-{SEGMENT}")
    _add_bridge(f"{prefix}-{SEGMENT}", SEGMENT)
    _build_internet(prefix, topology)
    for router in topology.routers:
        _build_router(prefix, topology, router)
    for node in topology.nodes:
        if topology.has_machines:
            _add_tap(prefix, topology, node)
        else:
            build_node(prefix, topology, node)


def build_node(prefix: str, topology: Topology, node: Node) -> None:
    """Create one node's namespace with only eth0, on the node's segment, and a default route."""
    _add_netns(f"{prefix}-{node.name}")
    mtu = _mtu(topology, node)
    _plug(prefix, node.name, "eth0", node.address, segment=node.router or SEGMENT, mtu=mtu)
    _set_default_route(f"{prefix}-{node.name}", node.gateway, "eth0")


def remove_node(prefix: str, node: Node) -> None:
    """Remove one node's namespace; its link first, because the kernel removes a namespace's links later."""
    run("ip", "-n", f"{prefix}-{node.router or SEGMENT}", "link", "delete", node.name)
    _remove_netns(f"{prefix}-{node.name}")


def set_nat(prefix: str, topology: Topology, router: Router) -> None:
    """Replace the router's rules with those of its way of translating."""
    names = {"wan": _WAN, "lan": _LAN_BRIDGE}
    own_prefix_only = _OWN_PREFIX_ONLY.format(**names, prefix=router.prefix) if topology.version == 6 else ""
    rules = "flush ruleset\n" + _FILTER_RULES.format(**names, own_prefix_only=own_prefix_only)
    if router.nat != "none":
        family = "ip" if topology.version == 4 else "ip6"
        how = " random,fully-random" if router.nat == "symmetric" else ""
        rules += _NAT_RULES.format(**names, family=family, how=how)
    run(*in_netns(f"{prefix}-{router.name}", ["nft", "-f", "-"]), stdin=rules)


def readdress(prefix: str, before: Topology, after: Topology, name: str) -> None:
    """Change a router's public address from that in `before` to that in `after`.

    With IPv6 its nodes get addresses of the new prefix. Their old addresses stay, deprecated and no longer routed, as
    after a renumbering that the site was not told of (RFC 8978).
    """
    old, new = (next(router for router in each.routers if router.name == name) for each in (before, after))
    netns = f"{prefix}-{name}"
    run("ip", "-n", netns, "address", "flush", "dev", _WAN, "scope", "global")
    _add_address(netns, f"{new.wan_address}/{after.public_length}", _WAN)
    _set_default_route(netns, after.internet_address, _WAN)
    if after.version == 4:
        return
    run("ip", "-n", netns, "address", "del", old.lan_address, "dev", _LAN_BRIDGE)
    _add_address(netns, new.lan_address, _LAN_BRIDGE)
    set_nat(prefix, after, new)
    run("ip", "-n", f"{prefix}-{INTERNET}", "route", "del", old.prefix)
    _route_to_site(prefix, new)
    for old_node, node in zip(before.nodes_of(old), after.nodes_of(new), strict=True):
        _add_address(f"{prefix}-{node.name}", node.address, "eth0")
        run("ip", "-n", f"{prefix}-{node.name}", "address", "change", old_node.address, "dev", "eth0", *_DEPRECATED)


def set_uplink(prefix: str, port: str, *, is_up: bool) -> None:
    """Let one port of the public segment forward or drop all packets; the link keeps its carrier."""
    # A port's state (linux/if_bridge.h: 0 disabled, 3 forwarding) stays as it is set, because the bridge has no STP.
    state = "3" if is_up else "0"
    run("bridge", "-n", f"{prefix}-{SEGMENT}", "link", "set", "dev", port, "state", state)


def uplink_is_up(prefix: str, port: str) -> bool:
    """Whether this port of the public segment forwards packets."""
    shown = run("ip", "-n", f"{prefix}-{SEGMENT}", "-d", "link", "show", port)
    return "bridge_slave state forwarding" in shown


def uplink_port(node: Node) -> str:
    """Return the public segment's port that carries a node's packets: its own, or its router's."""
    return node.router or node.name


def namespaces(prefix: str) -> list[str]:
    """Return the names of all existing namespaces with the lab's prefix."""
    try:
        return sorted(name for name in os.listdir(NETNS_DIR) if name.startswith(f"{prefix}-"))
    except FileNotFoundError:
        return []


def remove(prefix: str) -> None:
    """Remove the lab's namespaces with all their links, and then the directory of namespaces if it is empty."""
    for name in namespaces(prefix):
        _remove_netns(name)
    if NETNS_DIR in mounts.mount_points() and not os.listdir(NETNS_DIR):
        # The machine's first `ip netns add` makes the directory and mounts it on itself; ip never removes it.
        attempt("umount", "--lazy", NETNS_DIR)
        attempt("rmdir", NETNS_DIR)


def _build_internet(prefix: str, topology: Topology) -> None:
    netns = f"{prefix}-{INTERNET}"
    _add_netns(netns)
    address = f"{topology.internet_address}/{topology.public_length}"
    _plug(prefix, INTERNET, "eth0", address, segment=SEGMENT, mtu=topology.mtu)
    if topology.version == 6:
        run(*in_netns(netns, ["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]))


def _build_router(prefix: str, topology: Topology, router: Router) -> None:
    netns = f"{prefix}-{router.name}"
    _add_netns(netns)
    _add_bridge(netns, _LAN_BRIDGE)
    _add_address(netns, router.lan_address, _LAN_BRIDGE)
    wan_address = f"{router.wan_address}/{topology.public_length}"
    _plug(prefix, router.name, _WAN, wan_address, segment=SEGMENT, mtu=topology.mtu)
    forwarding = "net.ipv4.ip_forward=1"
    if topology.version == 6:
        gateway = next(node.gateway for node in topology.nodes_of(router))
        _add_address(netns, f"{gateway}/64", _LAN_BRIDGE)
        _route_to_site(prefix, router)
        forwarding = "net.ipv6.conf.all.forwarding=1"
    run(*in_netns(netns, ["sysctl", "-qw", forwarding]))
    _set_default_route(netns, topology.internet_address, _WAN)
    set_nat(prefix, topology, router)


def _route_to_site(prefix: str, router: Router) -> None:
    run("ip", "-n", f"{prefix}-{INTERNET}", "route", "add", router.prefix, "via", router.wan_address)


def _set_default_route(netns: str, gateway: str, ifname: str) -> None:
    run("ip", "-n", netns, "route", "replace", "default", "via", gateway, "dev", ifname)


def _add_address(netns: str, address: str, ifname: str) -> None:
    run("ip", "-n", netns, "address", "add", address, "dev", ifname)


def _add_netns(name: str) -> None:
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def _add_bridge(netns: str, name: str) -> None:
    run("ip", "-n", netns, "link", "add", name, "type", "bridge")
    _set_up(netns, name)


def _plug(prefix: str, host: str, ifname: str, address: str, *, segment: str, mtu: int) -> None:
    """Connect a host to a segment: an interface with an address in the host, a port with the host's name there."""
    segment_netns, netns = f"{prefix}-{segment}", f"{prefix}-{host}"
    ends = [host, "mtu", str(mtu), "type", "veth", "peer", "name", ifname, "mtu", str(mtu), "netns", netns]
    run("ip", "-n", segment_netns, "link", "add", *ends)
    run("ip", "-n", segment_netns, "link", "set", host, "master", _bridge(segment), "up")
    _set_up(netns, ifname)
    _add_address(netns, address, ifname)


def _add_tap(prefix: str, topology: Topology, node: Node) -> None:
    """Add the port by which a virtual machine is connected to the node's segment."""
    netns = f"{prefix}-{node.router or SEGMENT}"
    run("ip", "-n", netns, "tuntap", "add", "dev", node.name, "mode", "tap")
    run("ip", "-n", netns, "link", "set", node.name, "mtu", str(_mtu(topology, node)))
    run("ip", "-n", netns, "link", "set", node.name, "master", _bridge(node.router or SEGMENT), "up")


def _mtu(topology: Topology, node: Node) -> int:
    """Return the MTU of a node's eth0."""
    return topology.mtu if node.router is None else ETHERNET_MTU


def _bridge(segment: str) -> str:
    return SEGMENT if segment == SEGMENT else _LAN_BRIDGE


def _set_up(netns: str, ifname: str) -> None:
    """Set a link up, without duplicate address detection (RFC 4862): IPv6 addresses are usable at once."""
    settings = [f"net.ipv6.conf.{which}.accept_dad=0" for which in ("all", ifname)]
    run(*in_netns(netns, ["sysctl", "-qw", *settings]))
    run("ip", "-n", netns, "link", "set", ifname, "up")


def _remove_netns(name: str) -> None:
    """Remove a namespace, or its file if only that is left."""
    if attempt("ip", "netns", "delete", name).returncode != 0:
        Path(NETNS_DIR, name).unlink(missing_ok=True)
