"""Who is where in the lab: public nodes, nodes behind routers, and their addresses. Pure; network.py builds it.

With IPv4, every router has the same LAN, 192.168.1.0/24, gives its nodes the same addresses, and hides them behind its
own (NAT), as routers at homes do. With IPv6 every site has a prefix of its own, its nodes keep their addresses on the
internet, and the router is a firewall in front of them (RFC 6092): what nobody inside has asked for does not get in. It
can be made to translate too (NAT66), which is rarer and harder to get through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_interface, ip_network
from typing import Any

from commands import LabError

PUBLIC_NETWORKS = {4: ip_network("198.51.100.0/24"), 6: ip_network("2001:db8::/32")}
"""The lab's internet by IP version: TEST-NET-2 (RFC 5737), one segment; and the documentation prefix (RFC 3849), of
which the segment is the first /64 and each site another one."""
ETHERNET_MTU = 1500
LOWEST_MTU = 1280
"""Bytes that every link with IPv6 carries (RFC 8200 section 5); sites on tunnels and cellular networks get no more."""

NAT_TYPES = ("preserving", "symmetric", "none")
"""preserving: one outer port for all destinations; symmetric: another one, at random, for each destination; none: the
router lets a site's own addresses through, which only IPv6 has."""

_LINK_LOCAL_GATEWAY = "fe80::1"
"""A site's router on its LAN: it stays when the site is given another prefix."""
_MOST_PUBLIC, _MOST_NODES = 9, 200


@dataclass(frozen=True)
class Node:
    """One host. `address` is its own in CIDR, `router` the name of the router it is behind; None: it is public."""

    name: str
    address: str
    gateway: str
    router: str | None

    @property
    def host(self) -> str:
        """Its address without the prefix length."""
        return self.address.split("/")[0]


@dataclass(frozen=True)
class Router:
    """A site's router: its addresses on the public segment and on its LAN (CIDR), and how it translates (NAT_TYPES)."""

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
    """The whole lab: `version` is the internet protocol of the underlay, `mtu` what its public segment carries.

    The sites' own networks carry Ethernet's 1500 bytes whatever the public segment does, as they do behind DSL or
    cellular uplinks: a node sees of a narrow one only what routers say (ICMP).
    """

    nodes: tuple[Node, ...]
    routers: tuple[Router, ...]
    version: int = 4
    mtu: int = ETHERNET_MTU

    @property
    def internet_address(self) -> str:
        """Of the host that everybody reaches, and that routes to the sites which have prefixes."""
        return _public_address(self.version, 254)

    @property
    def public_length(self) -> int:
        """Bits of the public segment's prefix."""
        return _public_length(self.version)

    def node(self, name: str) -> Node:
        """Raises LabError if there is none of that name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(f"there is no node {name!r}: the lab has {', '.join(node.name for node in self.nodes)}")

    def router_of(self, node: Node) -> Router | None:
        """The router a node is behind; None for a public one."""
        return next((router for router in self.routers if router.name == node.router), None)

    def nodes_of(self, router: Router) -> tuple[Node, ...]:
        """The nodes behind a router."""
        return tuple(node for node in self.nodes if node.router == router.name)

    def public_address(self, node: Node) -> str:
        """The address under which the internet sees the node: its own, or its router's where that translates."""
        router = self.router_of(node)
        return node.host if router is None or router.nat == "none" else router.wan_address

    def with_nat(self, router: Router, nat: str) -> Topology:
        """The same with one router's way of translating changed. Raises LabError if IPv4 is to do without."""
        if nat == "none" and self.version == 4:
            raise LabError(f"{router.name}: all sites have the same private addresses, so it has to translate")
        return replace(self, routers=tuple(replace(one, nat=nat) if one == router else one for one in self.routers))

    def with_other_address(self, router: Router) -> Topology:
        """The same with another public address for one router; and with IPv6 another prefix for its whole site."""
        number = next(n for n in range(1, 254) if _public_address(self.version, n) not in set(self._taken()))
        moved = _router(self.version, router.name, number, router.nat)
        places = {node.name: place for place, node in enumerate(self.nodes_of(router))}
        nodes = tuple(
            _behind(self.version, node.name, moved, places[node.name]) if node.name in places else node
            for node in self.nodes
        )
        return replace(self, nodes=nodes, routers=tuple(moved if one == router else one for one in self.routers))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; from_dict reads it back."""
        return asdict(self)

    def _taken(self) -> Iterator[str]:
        yield self.internet_address
        yield from (node.host for node in self.nodes if node.router is None)
        yield from (router.wan_address for router in self.routers)


def from_dict(described: dict[str, Any]) -> Topology:
    """What Topology.as_dict made."""
    return Topology(
        nodes=tuple(Node(**node) for node in described["nodes"]),
        routers=tuple(Router(**router) for router in described["routers"]),
        version=described["version"],
        mtu=described["mtu"],
    )


def plan(nodes: int, *, public: int = 1, per_router: int = 1, version: int = 4, mtu: int = ETHERNET_MTU) -> Topology:
    """Lay out node1 to nodeN: the first `public` ones on the public segment, the rest `per_router` to a router.

    Raises LabError if that many nodes do not fit, none would be public, or the MTU is none that the underlay can have.
    """
    if not 1 <= public <= min(nodes, _MOST_PUBLIC):
        raise LabError(f"--public {public}: from 1 to {min(nodes, _MOST_PUBLIC)} of {nodes} nodes can be public")
    if nodes > _MOST_NODES:
        raise LabError(f"{nodes} nodes: the public segment has room for {_MOST_NODES}")
    if per_router < 1:
        raise LabError(f"--per-router {per_router}: a router has at least one node behind it")
    if not LOWEST_MTU <= mtu <= ETHERNET_MTU:
        raise LabError(f"--mtu {mtu}: the public segment carries from {LOWEST_MTU} to {ETHERNET_MTU} bytes")
    planned = [_public_node(version, n) for n in range(1, public + 1)]
    routers = []
    for first in range(public + 1, nodes + 1, per_router):
        kind, nat = ("nat", "preserving") if version == 4 else ("fw", "none")
        router = _router(version, f"{kind}{first}", 20 + first, nat)
        routers.append(router)
        for place, n in enumerate(range(first, min(first + per_router, nodes + 1))):
            planned.append(_behind(version, f"node{n}", router, place))
    return Topology(tuple(planned), tuple(routers), version, mtu)


def _public_node(version: int, number: int) -> Node:
    address = f"{_public_address(version, 10 + number)}/{_public_length(version)}"
    return Node(f"node{number}", address, _public_address(version, 254), None)


def _router(version: int, name: str, number: int, nat: str) -> Router:
    """The router that has this number on the public segment, and with IPv6 in its site's prefix."""
    lan_address = "192.168.1.1/24" if version == 4 else f"2001:db8:{number}::1/64"
    return Router(name, _public_address(version, number), lan_address, nat)


def _behind(version: int, name: str, router: Router, place: int) -> Node:
    """The node that is the router's first (place 0), second ..."""
    lan = ip_interface(router.lan_address)
    gateway = str(lan.ip) if version == 4 else _LINK_LOCAL_GATEWAY
    host = f"192.168.1.{10 + place}" if version == 4 else f"{lan.network.network_address}{10 + place}"
    return Node(name, f"{host}/{lan.network.prefixlen}", gateway, router.name)


def _public_address(version: int, number: int) -> str:
    """The address of this number on the public segment; with IPv6 its digits are the number's, for people."""
    return f"198.51.100.{number}" if version == 4 else f"2001:db8::{number}"


def _public_length(version: int) -> int:
    return 24 if version == 4 else 64
