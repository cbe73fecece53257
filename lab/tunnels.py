"""Where a node's WireGuard tunnels lead: directly to the other node, or to a public node that relays."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import nodes
from commands import LabError, run
from state import Lab
from topology import Node, Topology

INTERFACE = "evio0"


@dataclass(frozen=True)
class Path:
    """The path from one node to another: `relay` is the node that relays the packets, None if the path is direct."""

    source: str
    target: str
    endpoint: str
    relay: str | None


@dataclass(frozen=True)
class Peer:
    """A peer of a WireGuard interface: its endpoint, address:port or [address]:port, and its IPv4 allowed IPs."""

    endpoint: str
    allowed: tuple[ipaddress.IPv4Network, ...]


def path(lab: Lab, topology: Topology, source: Node, target: Node, pod_address: str) -> Path:
    """Return the path to the address of a pod on the target. Raises LabError if no tunnel leads there."""
    dump = run(*nodes.command(lab, source, ["wg", "show", INTERFACE, "dump"]))
    peer = peer_for(ipaddress.IPv4Address(pod_address), peers_of(dump))
    if peer is None:
        raise LabError(
            f"{source.name}: no peer of {INTERFACE} has {pod_address}, a pod of {target.name}, in its allowed IPs; "
            f"look at: lab/lab ssh {source.name} wg show {INTERFACE}"
        )
    address = host_of(peer.endpoint)
    if address in (topology.public_address(target), target.host):
        return Path(source.name, target.name, peer.endpoint, None)
    for node in topology.nodes:
        if topology.public_address(node) == address:
            return Path(source.name, target.name, peer.endpoint, node.name)
    raise LabError(f"{source.name}: the tunnel to {target.name} ends at {peer.endpoint}, which is no node's address")


def mtu(lab: Lab, node: Node) -> int:
    """Return the MTU of the node's tunnels in bytes."""
    return int(run(*nodes.command(lab, node, ["cat", f"/sys/class/net/{INTERFACE}/mtu"])))


def peers_of(dump: str) -> list[Peer]:
    """Return the peers in the output of `wg show IF dump` (wg(8)): tab-separated lines after the first."""
    peers = []
    for line in dump.splitlines()[1:]:
        _, _, endpoint, allowed, *_ = line.split("\t")
        networks = [] if allowed == "(none)" else [ipaddress.ip_network(cidr) for cidr in allowed.split(",")]
        peers.append(Peer(endpoint, tuple(net for net in networks if isinstance(net, ipaddress.IPv4Network))))
    return peers


def host_of(endpoint: str) -> str:
    """Return the address of an endpoint, without port and brackets."""
    return endpoint.rpartition(":")[0].strip("[]")


def peer_for(address: ipaddress.IPv4Address, peers: list[Peer]) -> Peer | None:
    """Return the peer with the longest matching prefix in its allowed IPs, as WireGuard chooses (cryptokey routing)."""
    closest = [(net.prefixlen, index) for index, peer in enumerate(peers) for net in peer.allowed if address in net]
    return peers[max(closest)[1]] if closest else None
