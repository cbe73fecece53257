"""Where a node's WireGuard tunnels lead: straight to the other node, or to a public one that relays."""

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
    """How packets get from one node to another: `relay` is the node that passes them on, None if there is none."""

    source: str
    target: str
    endpoint: str
    relay: str | None


@dataclass(frozen=True)
class Peer:
    """One peer of an interface: address:port it is sent to ([address]:port with IPv6), and the networks sent to it."""

    endpoint: str
    allowed: tuple[ipaddress.IPv4Network, ...]


def path(lab: Lab, topology: Topology, source: Node, target: Node, pod_address: str) -> Path:
    """The path to a pod's address on the target. Raises LabError if no tunnel leads there."""
    dump = run(*nodes.command(lab, source, ["wg", "show", INTERFACE, "dump"]))
    peer = peer_for(ipaddress.IPv4Address(pod_address), peers_of(dump))
    if peer is None:
        raise LabError(f"{source.name}: no peer of {INTERFACE} has {pod_address} ({target.name}) in its allowed IPs")
    address = host_of(peer.endpoint)
    if address in (topology.public_address(target), target.host):
        return Path(source.name, target.name, peer.endpoint, None)
    for node in topology.nodes:
        if topology.public_address(node) == address:
            return Path(source.name, target.name, peer.endpoint, node.name)
    raise LabError(f"{source.name}: the tunnel to {target.name} ends at {peer.endpoint}, which is nobody's")


def mtu(lab: Lab, node: Node) -> int:
    """Bytes of an IP packet inside the node's tunnels."""
    return int(run(*nodes.command(lab, node, ["cat", f"/sys/class/net/{INTERFACE}/mtu"])))


def peers_of(dump: str) -> list[Peer]:
    """Of `wg show IF dump` (wg(8)): after the interface's line, one of tab-separated fields for each peer."""
    peers = []
    for line in dump.splitlines()[1:]:
        _, _, endpoint, allowed, *_ = line.split("\t")
        networks = [] if allowed == "(none)" else [ipaddress.ip_network(cidr) for cidr in allowed.split(",")]
        peers.append(Peer(endpoint, tuple(net for net in networks if isinstance(net, ipaddress.IPv4Network))))
    return peers


def host_of(endpoint: str) -> str:
    """The address of an endpoint."""
    return endpoint.rpartition(":")[0].strip("[]")


def peer_for(address: ipaddress.IPv4Address, peers: list[Peer]) -> Peer | None:
    """The peer whose allowed IPs hold the address most closely: WireGuard's own choice (cryptokey routing)."""
    closest = [(net.prefixlen, index) for index, peer in enumerate(peers) for net in peer.allowed if address in net]
    return peers[max(closest)[1]] if closest else None
