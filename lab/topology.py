"""The lab's plan: public nodes, nodes behind routers, and their addresses. Nothing is built here; network.py does.

With IPv4 every router has the same LAN, 192.168.1.0/24, gives its nodes the same addresses, and translates them to its
own address (NAT), as home routers do. With IPv6 every site has its own prefix, nodes keep their addresses on the
internet, and the router is a firewall that drops unsolicited packets (RFC 6092). It can be made to translate as well
(NAT66).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_interface, ip_network
from typing import Any

from commands import LabError

PUBLIC_NETWORKS = {4: ip_network("198.51.100.0/24"), 6: ip_network("2001:db8::/32")}
"""The lab's internet by IP version: TEST-NET-2 (RFC 5737), and the documentation prefix (RFC 3849), whose first /64 is
the public segment; each site has another /64."""
ETHERNET_MTU = 1500
LOWEST_MTU = 1280
"""Bytes that every IPv6 link must carry (RFC 8200 section 5); tunnels and cellular links may carry no more."""

RELEASES = ("bookworm", "trixie")
"""Debian releases that a node can run, by their code names: Debian 12, which is the default, and Debian 13."""

NAT_TYPES = ("preserving", "symmetric", "none")
"""preserving: one outer port for all destinations; symmetric: a random outer port for each destination; none: no
translation, which only IPv6 sites can have."""

_LINK_LOCAL_GATEWAY = "fe80::1"
"""Address of an IPv6 site's router on its LAN: it stays the same when the site gets another prefix."""
_MOST_PUBLIC, _MOST_NODES = 9, 200


@dataclass(frozen=True)
class Node:
    """One host: `address` is its own in CIDR notation; `router` is the router in front of it, None if it is public.

    `release` is the Debian release that it runs (RELEASES).
    """

    name: str
    address: str
    gateway: str
    router: str | None
    release: str = RELEASES[0]

    @property
    def host(self) -> str:
        """Its address without the prefix length."""
        return self.address.split("/")[0]


@dataclass(frozen=True)
class Router:
    """A site's router: its address on the public segment, that on its LAN (CIDR), and how it translates (NAT_TYPES)."""

    name: str
    wan_address: str
    lan_address: str
    nat: str

    @property
    def prefix(self) -> str:
        """The network of its LAN."""
        return str(ip_interface(self.lan_address).network)


@dataclass(frozen=True)
class Topology:
    """The whole lab: `version` is the underlay's IP version, `mtu` the MTU of its public segment in bytes.

    If it `has_kubernetes`, its nodes have what Kubernetes' packages bring to a host. If it `has_machines`, its nodes
    are virtual machines with a kernel of their own.
    The sites' LANs have an MTU of 1500 whatever the public segment has, as behind DSL or cellular uplinks: a node
    learns of a smaller MTU only from its router's ICMP messages.
    """

    nodes: tuple[Node, ...]
    routers: tuple[Router, ...]
    version: int = 4
    mtu: int = ETHERNET_MTU
    has_kubernetes: bool = False
    has_machines: bool = False

    @property
    def internet_address(self) -> str:
        """Address of the internet host, which every node reaches and which routes to the prefixes of IPv6 sites."""
        return _public_address(self.version, 254)

    @property
    def public_length(self) -> int:
        """Length of the public segment's prefix in bits."""
        return _public_length(self.version)

    @property
    def releases(self) -> tuple[str, ...]:
        """The Debian releases of its nodes, in the order of RELEASES."""
        return tuple(release for release in RELEASES if any(node.release == release for node in self.nodes))

    def node(self, name: str) -> Node:
        """Return the node of this name. Raises LabError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(f"there is no node {name!r}: the lab has {', '.join(node.name for node in self.nodes)}")

    def router_of(self, node: Node) -> Router | None:
        """Return the router in front of a node; None for a public node."""
        return next((router for router in self.routers if router.name == node.router), None)

    def nodes_of(self, router: Router) -> tuple[Node, ...]:
        """Return the nodes behind a router."""
        return tuple(node for node in self.nodes if node.router == router.name)

    def public_address(self, node: Node) -> str:
        """Return the address under which the internet sees a node: its own, or its router's if that translates."""
        router = self.router_of(node)
        return node.host if router is None or router.nat == "none" else router.wan_address

    def with_nat(self, router: Router, nat: str) -> Topology:
        """Return the topology with another NAT type of one router. Raises LabError for IPv4 with "none"."""
        if nat == "none" and self.version == 4:
            raise LabError(f"{router.name}: all sites have the same private addresses, so it must translate")
        return replace(self, routers=tuple(replace(each, nat=nat) if each == router else each for each in self.routers))

    def with_other_address(self, router: Router) -> Topology:
        """Return the topology with another public address of one router; with IPv6 also another prefix of its site."""
        number = next(n for n in range(1, 254) if _public_address(self.version, n) not in set(self._taken()))
        moved = _router(self.version, router.name, number, router.nat)
        places = {node.name: place for place, node in enumerate(self.nodes_of(router))}
        nodes = tuple(
            replace(_behind(self.version, node.name, moved, places[node.name]), release=node.release)
            if node.name in places
            else node
            for node in self.nodes
        )
        return replace(self, nodes=nodes, routers=tuple(moved if each == router else each for each in self.routers))

    def with_releases(self, choices: Iterable[str]) -> Topology:
        """Return the topology with other Debian releases of its nodes.

        A choice is "trixie", for all nodes, or "node3=trixie"; a later one overrides an earlier one. Raises LabError if
        there is no such node or release.
        """
        topology = self
        for choice in choices:
            name, _, release = choice.rpartition("=")
            if release not in RELEASES:
                raise LabError(f"--release {choice}: nodes run {' or '.join(RELEASES)}, not {release!r}")
            changed = {self.node(name)} if "=" in choice else set(self.nodes)
            names = {node.name for node in changed}
            nodes = (replace(node, release=release) if node.name in names else node for node in topology.nodes)
            topology = replace(topology, nodes=tuple(nodes))
        return topology

    def as_dict(self) -> dict[str, Any]:
        """Return the topology as JSON holds it; from_dict is the reverse."""
        return asdict(self)

    def _taken(self) -> Iterator[str]:
        yield self.internet_address
        yield from (node.host for node in self.nodes if node.router is None)
        yield from (router.wan_address for router in self.routers)


def from_dict(described: dict[str, Any]) -> Topology:
    """Return the topology that Topology.as_dict described."""
    return Topology(
        nodes=tuple(Node(**node) for node in described["nodes"]),
        routers=tuple(Router(**router) for router in described["routers"]),
        version=described["version"],
        mtu=described["mtu"],
        has_kubernetes=described["has_kubernetes"],
        # A lab that was built before there were such labs is described without it.
        has_machines=described.get("has_machines", False),
    )


def plan(
    nodes: int,
    *,
    public: int = 1,
    per_router: int = 1,
    version: int = 4,
    mtu: int = ETHERNET_MTU,
    has_kubernetes: bool = False,
    has_machines: bool = False,
) -> Topology:
    """Plan node1 to nodeN: the first `public` nodes on the public segment, the others `per_router` to a router.

    Raises LabError if so many nodes do not fit, no node would be public, or the underlay cannot have this MTU.
    """
    if not 1 <= public <= min(nodes, _MOST_PUBLIC):
        raise LabError(f"--public {public}: from 1 to {min(nodes, _MOST_PUBLIC)} of {nodes} nodes can be public")
    if nodes > _MOST_NODES:
        raise LabError(f"{nodes} nodes: the public segment has room for {_MOST_NODES}")
    if per_router < 1:
        raise LabError(f"--per-router {per_router}: a router has at least one node behind it")
    if not LOWEST_MTU <= mtu <= ETHERNET_MTU:
        raise LabError(f"--mtu {mtu}: the public segment carries from {LOWEST_MTU} to {ETHERNET_MTU} bytes")
    if has_machines and (version == 6 or has_kubernetes):
        raise LabError("--machines: virtual machines have neither an IPv6 underlay nor Kubernetes' packages")
    planned = [_public_node(version, n) for n in range(1, public + 1)]
    routers = []
    for first in range(public + 1, nodes + 1, per_router):
        kind, nat = ("nat", "preserving") if version == 4 else ("fw", "none")
        router = _router(version, f"{kind}{first}", 20 + first, nat)
        routers.append(router)
        for place, n in enumerate(range(first, min(first + per_router, nodes + 1))):
            planned.append(_behind(version, f"node{n}", router, place))
    return Topology(tuple(planned), tuple(routers), version, mtu, has_kubernetes, has_machines)


def _public_node(version: int, number: int) -> Node:
    address = f"{_public_address(version, 10 + number)}/{_public_length(version)}"
    return Node(f"node{number}", address, _public_address(version, 254), None)


def _router(version: int, name: str, number: int, nat: str) -> Router:
    """Return the router with this number in its public address, and with IPv6 in its site's prefix."""
    lan_address = "192.168.1.1/24" if version == 4 else f"2001:db8:{number}::1/64"
    return Router(name, _public_address(version, number), lan_address, nat)


def _behind(version: int, name: str, router: Router, place: int) -> Node:
    """Return a node behind a router: its first node has place 0."""
    lan = ip_interface(router.lan_address)
    gateway = str(lan.ip) if version == 4 else _LINK_LOCAL_GATEWAY
    host = f"192.168.1.{10 + place}" if version == 4 else f"{lan.network.network_address}{10 + place}"
    return Node(name, f"{host}/{lan.network.prefixlen}", gateway, router.name)


def _public_address(version: int, number: int) -> str:
    """Return the address on the public segment that ends with this number; with IPv6 in its decimal digits."""
    return f"198.51.100.{number}" if version == 4 else f"2001:db8::{number}"


def _public_length(version: int) -> int:
    return 24 if version == 4 else 64
