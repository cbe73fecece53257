"""The lab's small internet: a namespace for each host, router and segment, joined by veths. Hosts' insides: nodes.py.

Nothing is put into the machine's own network namespace: every link is made inside the lab's, every setting is theirs.
"""

from __future__ import annotations

import os
from pathlib import Path

import mounts
from commands import NETNS_DIR, attempt, in_netns, run
from topology import INTERNET_ADDRESS, LAN_PREFIX, Node, Router, Topology

SEGMENT = "pub"
"""The namespace of the public segment; its bridge has this name and carries every packet that leaves a site."""
INTERNET = "internet"

_LAN_BRIDGE = "lan0"
_WAN = "wan0"

_ROUTER_RULES = """\
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{wan}" masquerade{how}
    }}
}}
table inet filter {{
    # A packet that nobody asked for is dropped before conntrack confirms it: a router that accepted it would have
    # its port taken, and translate the node's own packets to another one.
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "{wan}" ct state != {{ established, related }} drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "{lan}" oifname "{wan}" accept
        # Where the kernel shows bridged packets to this hook (br_netfilter), the LAN's own are among them.
        iifname "{lan}" oifname "{lan}" accept
    }}
}}
"""


def build(prefix: str, topology: Topology) -> None:
    """Make every namespace and link of the topology; names of namespaces start with the prefix."""
    _add_netns(f"{prefix}-{SEGMENT}")
    _add_bridge(f"{prefix}-{SEGMENT}", SEGMENT)
    _add_netns(f"{prefix}-{INTERNET}")
    _plug(prefix, INTERNET, "eth0", f"{INTERNET_ADDRESS}/24", segment=SEGMENT)
    for router in topology.routers:
        _build_router(prefix, router)
    for node in topology.nodes:
        build_node(prefix, node)


def build_node(prefix: str, node: Node) -> None:
    """Make one node's namespace, with eth0 on its segment and a default route, and nothing else in it."""
    _add_netns(f"{prefix}-{node.name}")
    _plug(prefix, node.name, "eth0", node.address, segment=node.router or SEGMENT)
    run("ip", "-n", f"{prefix}-{node.name}", "route", "add", "default", "via", node.gateway)


def remove_node(prefix: str, node: Node) -> None:
    """Remove one node's namespace, and its link at once: the kernel takes its time over a namespace."""
    run("ip", "-n", f"{prefix}-{node.router or SEGMENT}", "link", "delete", node.name)
    _remove_netns(f"{prefix}-{node.name}")


def set_nat(prefix: str, router: Router) -> None:
    """Put the router's rules in place of those it has."""
    how = " random,fully-random" if router.nat == "symmetric" else ""
    rules = _ROUTER_RULES.format(wan=_WAN, lan=_LAN_BRIDGE, how=how)
    run(*in_netns(f"{prefix}-{router.name}", ["nft", "-f", "-"]), stdin="flush ruleset\n" + rules)


def readdress(prefix: str, router: Router) -> None:
    """Give the router its public address in place of the one it has; what went out by that one is forgotten."""
    netns = f"{prefix}-{router.name}"
    run("ip", "-n", netns, "address", "flush", "dev", _WAN)
    run("ip", "-n", netns, "address", "add", f"{router.wan_address}/24", "dev", _WAN)
    run("ip", "-n", netns, "route", "replace", "default", "via", INTERNET_ADDRESS)


def set_uplink(prefix: str, port: str, *, is_up: bool) -> None:
    """Let the public segment pass or drop what goes through one port, which keeps its carrier: nobody is told."""
    # The bridge has no STP, so a port's state (linux/if_bridge.h: 0 disabled, 3 forwarding) stays as it is set.
    state = "3" if is_up else "0"
    run("bridge", "-n", f"{prefix}-{SEGMENT}", "link", "set", "dev", port, "state", state)


def uplink_is_up(prefix: str, port: str) -> bool:
    """Whether the public segment passes what goes through this port."""
    shown = run("ip", "-n", f"{prefix}-{SEGMENT}", "-d", "link", "show", port)
    return "bridge_slave state forwarding" in shown


def uplink_port(node: Node) -> str:
    """The public segment's port that a node's packets go through: its own, or its router's."""
    return node.router or node.name


def namespaces(prefix: str) -> list[str]:
    """Names of the lab's namespaces that exist, whoever made them and however far it got."""
    try:
        return sorted(name for name in os.listdir(NETNS_DIR) if name.startswith(f"{prefix}-"))
    except FileNotFoundError:
        return []


def remove(prefix: str) -> None:
    """Remove the lab's namespaces and all that is in them; and the directory of namespaces where it is empty now."""
    for name in namespaces(prefix):
        _remove_netns(name)
    if NETNS_DIR in mounts.mount_points() and not os.listdir(NETNS_DIR):
        # The machine's first `ip netns add` makes the directory and mounts it on itself; nobody ever takes it away.
        attempt("umount", "--lazy", NETNS_DIR)
        attempt("rmdir", NETNS_DIR)


def _build_router(prefix: str, router: Router) -> None:
    netns = f"{prefix}-{router.name}"
    _add_netns(netns)
    _add_bridge(netns, _LAN_BRIDGE)
    run("ip", "-n", netns, "address", "add", f"{LAN_PREFIX}1/24", "dev", _LAN_BRIDGE)
    _plug(prefix, router.name, _WAN, f"{router.wan_address}/24", segment=SEGMENT)
    run("ip", "-n", netns, "route", "add", "default", "via", INTERNET_ADDRESS)
    run(*in_netns(netns, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]))
    set_nat(prefix, router)


def _add_netns(name: str) -> None:
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def _add_bridge(netns: str, name: str) -> None:
    run("ip", "-n", netns, "link", "add", name, "type", "bridge")
    run("ip", "-n", netns, "link", "set", name, "up")


def _plug(prefix: str, host: str, ifname: str, address: str, *, segment: str) -> None:
    """Give a host an interface with an address on a segment; the segment's port has the host's name."""
    segment_netns, netns = f"{prefix}-{segment}", f"{prefix}-{host}"
    bridge = SEGMENT if segment == SEGMENT else _LAN_BRIDGE
    run("ip", "-n", segment_netns, "link", "add", host, "type", "veth", "peer", "name", ifname, "netns", netns)
    run("ip", "-n", segment_netns, "link", "set", host, "master", bridge, "up")
    run("ip", "-n", netns, "address", "add", address, "dev", ifname)
    run("ip", "-n", netns, "link", "set", ifname, "up")


def _remove_netns(name: str) -> None:
    """Also where only the file of its name is left."""
    if attempt("ip", "netns", "delete", name).returncode != 0:
        Path(NETNS_DIR, name).unlink(missing_ok=True)
