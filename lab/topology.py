"""Who is where in the lab: public nodes, nodes behind NAT routers, and their addresses. Pure; network.py builds it.

Every router has the same LAN, 192.168.1.0/24, and gives its nodes the same addresses, as routers at homes do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from commands import LabError

PUBLIC_PREFIX = "198.51.100."
"""TEST-NET-2 (RFC 5737): the lab's internet, one /24 segment."""
INTERNET_ADDRESS = PUBLIC_PREFIX + "254"
LAN_PREFIX = "192.168.1."
NAT_TYPES = ("preserving", "symmetric")
"""preserving: one outer port for all destinations; symmetric: another one, at random, for each destination."""

_MOST_PUBLIC, _MOST_NODES = 9, 200


@dataclass(frozen=True)
class Node:
    """One host. `address` is its own in CIDR, `router` the name of the router it is behind; None: it is public."""

    name: str
    address: str
    gateway: str
    router: str | None


@dataclass(frozen=True)
class Router:
    """A NAT router: its address on the public segment, and how it translates ports (see NAT_TYPES)."""

    name: str
    wan_address: str
    nat: str = "preserving"


@dataclass(frozen=True)
class Topology:
    """The whole lab."""

    nodes: tuple[Node, ...]
    routers: tuple[Router, ...]

    def node(self, name: str) -> Node:
        """Raises LabError if there is none of that name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(f"there is no node {name!r}: the lab has {', '.join(node.name for node in self.nodes)}")

    def router_of(self, node: Node) -> Router | None:
        """The router a node is behind; None for a public one."""
        return next((router for router in self.routers if router.name == node.router), None)

    def public_address(self, node: Node) -> str:
        """The address under which the internet sees the node: its own, or its router's."""
        router = self.router_of(node)
        return router.wan_address if router else node.address.split("/")[0]

    def with_nat(self, router: Router, nat: str) -> Topology:
        """The same with one router's way of translating changed."""
        routers = tuple(replace(one, nat=nat) if one == router else one for one in self.routers)
        return replace(self, routers=routers)

    def with_address(self, router: Router, wan_address: str) -> Topology:
        """The same with one router's public address changed."""
        routers = tuple(replace(one, wan_address=wan_address) if one == router else one for one in self.routers)
        return replace(self, routers=routers)

    def free_public_address(self) -> str:
        """One of the public segment that nobody has."""
        taken = {INTERNET_ADDRESS, *(self.public_address(node) for node in self.nodes)}
        return next(address for n in range(1, 255) if (address := f"{PUBLIC_PREFIX}{n}") not in taken)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; from_dict reads it back."""
        return asdict(self)


def from_dict(described: dict[str, Any]) -> Topology:
    """What Topology.as_dict made."""
    return Topology(
        nodes=tuple(Node(**node) for node in described["nodes"]),
        routers=tuple(Router(**router) for router in described["routers"]),
    )


def plan(nodes: int, *, public: int = 1, per_router: int = 1) -> Topology:
    """Lay out node1 to nodeN: the first `public` ones on the public segment, the rest `per_router` to a router.

    Raises LabError if that many nodes do not fit, or none would be public.
    """
    if not 1 <= public <= min(nodes, _MOST_PUBLIC):
        raise LabError(f"--public {public}: from 1 to {min(nodes, _MOST_PUBLIC)} of {nodes} nodes can be public")
    if nodes > _MOST_NODES:
        raise LabError(f"{nodes} nodes: the public segment has room for {_MOST_NODES}")
    if per_router < 1:
        raise LabError(f"--per-router {per_router}: a router has at least one node behind it")
    planned = [Node(f"node{n}", f"{PUBLIC_PREFIX}{10 + n}/24", INTERNET_ADDRESS, None) for n in range(1, public + 1)]
    routers = []
    for first in range(public + 1, nodes + 1, per_router):
        router = Router(f"nat{first}", f"{PUBLIC_PREFIX}{20 + first}")
        routers.append(router)
        for place, n in enumerate(range(first, min(first + per_router, nodes + 1))):
            planned.append(Node(f"node{n}", f"{LAN_PREFIX}{10 + place}/24", f"{LAN_PREFIX}1", router.name))
    return Topology(tuple(planned), tuple(routers))
