# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The types of the node subnet registry: pool configuration, requests, claims, released subnets, and errors.

Pure. ``allocator`` decides which node gets which subnet, ``registry`` reads and writes etcd, ``schema`` has the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import EvioError
from ..subnets import NodeSubnet, Pool


class ClaimError(EvioError):
    """A subnet cannot be claimed; the message names the node, the subnet and its owner."""


class LostClaimError(ClaimError):
    """Nodes are set up with claims that etcd does not have. ``lost`` maps each of these nodes to the reason."""

    def __init__(self, message: str, lost: Mapping[str, str]) -> None:
        super().__init__(message)
        self.lost = dict(lost)


class ExhaustedError(ClaimError):
    """No subnet is free in the places that were searched."""


@dataclass(frozen=True)
class PoolConfig:
    """The pod network as the registry stores it; the same for all nodes."""

    pools: tuple[Pool, ...]
    """At most one pool per family."""
    reserved: tuple[str, ...] = ()
    """Networks (CIDR) from which no node gets a subnet."""
    pins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Subnets that are kept for a node, by the node's name."""
    former: tuple[Pool, ...] = ()
    """Pools of which nodes still have subnets, until they have moved to ``pools``. Nobody gets a subnet of them."""

    def has(self, cidr: str) -> bool:
        """Return whether this is a subnet of one of the pools."""
        return any(cidr in pool for pool in self.pools)

    def has_or_had(self, cidr: str) -> bool:
        """Return whether this is a subnet of one of the pools or of the former pools."""
        return self.has(cidr) or any(cidr in pool for pool in self.former)


@dataclass(frozen=True)
class LocalClaim:
    """The claim that a node's conflist was written from: its pods have addresses of these subnets."""

    cidrs: tuple[str, ...]
    epoch: int
    """0 for a node that was set up without a registry."""


@dataclass(frozen=True)
class Request:
    """The request to claim subnets for one node, one of each pool."""

    node: str
    machine_id: str
    pin: tuple[str, ...] = ()
    """The subnets that the node must get, at most one of each pool. Empty: any free subnet."""
    replaced: bool = False
    """The operator confirms that this machine has replaced the machine that made the node's claim."""
    configured: LocalClaim | None = None
    """The claim that the node is set up with. If etcd does not have it, the request is refused."""
    restore: bool = False
    """The operator confirms that etcd has lost the claim in ``configured``, and that it is to be claimed again."""
    renamed_from: str = ""
    """The name under which this machine has its claim until now; empty if its name stays."""

    def pins(self) -> tuple[str, ...]:
        """Return the pinned subnets, and those to be restored."""
        restored = self.configured.cidrs if self.restore and self.configured else ()
        return tuple(dict.fromkeys((*self.pin, *restored)))


@dataclass(frozen=True)
class Claim:
    """The subnets that a node has."""

    node: str
    machine_id: str
    """Of the machine that made the claim (machine-id(5))."""
    cidrs: tuple[str, ...]
    claimed: float
    """Time of the last change, in seconds since 1970."""
    epoch: int = 0
    """etcd's revision at the last change; 0 before the claim is written."""


@dataclass(frozen=True)
class Released:
    """A subnet that no node has now, but that a node has had."""

    node: str
    """The last owner."""
    released: float
    """Time of the release, in seconds since 1970."""

    def quarantine_left(self, now: float, quarantine: float) -> float:
        """Return for how many more seconds another node cannot get the subnet; 0 when its quarantine is over."""
        return max(0.0, self.released + quarantine - now)


@dataclass(frozen=True)
class Search:
    """The part of a pool in which to look for free subnets."""

    places: tuple[range, ...]
    """Indexes into the pool (``Pool.subnet``)."""
    occupied: frozenset[int]
    """The indexes among ``places`` whose subnets are claimed."""


@dataclass(frozen=True)
class Snapshot:
    """What etcd holds for a cluster at one revision: all of it, or the part that was read."""

    pool_config: PoolConfig | None = None
    """None before the first claim."""
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """By the node's name."""
    released: Mapping[str, Released] = field(default_factory=dict)
    """By subnet; always complete."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """The mod_revision of each key that was read."""
    revision: int = 0
    """etcd's revision at the read."""
    holders: Mapping[str, str] = field(default_factory=dict)
    """The owners of the subnets that were looked up one by one, by subnet."""
    cluster_id: int = 0
    """etcd's id of its cluster."""

    def owners(self) -> dict[str, str]:
        """Return the owner of each claimed subnet in the snapshot, by subnet."""
        return {**self.holders, **{cidr: claim.node for claim in self.claims.values() for cidr in claim.cidrs}}

    def search(self, pool: Pool) -> Search:
        """Return a search of the whole pool. The snapshot must have all claims."""
        occupied = frozenset(pool.index(cidr) for cidr in self.owners() if cidr in pool)
        return Search((range(pool.size),), occupied)


def describe(pools: Sequence[Pool]) -> str:
    """Return pools as text for messages and diffs: ``10.244.0.0/16 with 8 node bits``."""
    return " and ".join(f"{pool.pod_cidr} with {pool.node_bits} node bits" for pool in pools) or "no pool"


def table(claims: Iterable[Claim]) -> dict[str, str]:
    """Return claims as a diff shows them: the subnets as text, by the node's name."""
    return {claim.node: ", ".join(claim.cidrs) for claim in sorted(claims, key=lambda claim: claim.node)}


def subnets_of(claim: Claim, pools: Sequence[Pool], configured: LocalClaim | None = None) -> tuple[NodeSubnet, ...]:
    """Return the subnets from which the node's pods get addresses, one of each family.

    A node that moves to other pools has a subnet of the former and of the present pools for a while: it keeps the one
    that it is ``configured`` with until it is set up anew, which None stands for.
    """
    subnets: dict[int, NodeSubnet] = {}
    kept = configured.cidrs if configured is not None else ()
    for cidr in sorted(claim.cidrs, key=lambda cidr: (cidr not in kept, not any(cidr in pool for pool in pools))):
        subnet = NodeSubnet(cidr)
        subnets.setdefault(subnet.family, subnet)
    return tuple(subnet for subnet in map(NodeSubnet, claim.cidrs) if subnet in subnets.values())
