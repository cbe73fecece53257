# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The claims on a pool's subnets: what is kept in etcd, under which keys, and who gets which subnet next.

Pure: it reads a snapshot and says what should be claimed; registry makes it so in etcd.

Below ``/evio/<cluster>/``: ``pool`` holds the pool's shape, ``nodes/<name>`` a node's claim, ``subnets/<address>`` who
has the subnet, ``released/<address>`` who had it last where nobody has. Addresses are padded with zeros, so that the
order of keys is the order of subnets, and a range of keys is a range of subnets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import EvioError
from ..subnets import NodeSubnet, Pool

QUARANTINE = 3600.0
"""Seconds for which a released subnet is given to no other node."""
_NODE_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")


class ClaimError(EvioError):
    """The claim cannot be made; the message names node, subnet and owner."""


class LostClaimError(ClaimError):
    """Nodes are set up with claims that etcd does not have; ``lost`` says for each of them why not."""

    def __init__(self, message: str, lost: Mapping[str, str]) -> None:
        super().__init__(message)
        self.lost = dict(lost)


class ExhaustedError(ClaimError):
    """None of the places that were searched is free."""


@dataclass(frozen=True)
class PoolConfig:
    """What the registry is told about the pod network, the same for all nodes."""

    pools: tuple[Pool, ...]
    reserved: tuple[str, ...] = ()
    """Networks that no node is given."""
    pins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By node: the subnets that are kept for it."""


@dataclass(frozen=True)
class LocalClaim:
    """The claim that a node is set up with: its pods have addresses of these subnets."""

    cidrs: tuple[str, ...]
    epoch: int
    """0 for a node that was set up without a registry."""


@dataclass(frozen=True)
class Request:
    """What is wanted for one node."""

    node: str
    machine_id: str
    pin: tuple[str, ...] = ()
    """Subnets that the node shall have and no others, at most one a family."""
    replaced: bool = False
    """The operator says that this machine has taken the place of the one that made the claim."""
    configured: LocalClaim | None = None
    """What the node is set up with: a claim that etcd does not have is refused, not silently made anew."""
    restore: bool = False
    """The operator says that the node shall claim again what it is set up with: etcd has lost it."""

    def pins(self) -> tuple[str, ...]:
        """Its pins, and what it is set up with where that is to be restored."""
        restored = self.configured.cidrs if self.restore and self.configured else ()
        return tuple(dict.fromkeys((*self.pin, *restored)))


@dataclass(frozen=True)
class Claim:
    """A node's subnets. ``epoch`` is etcd's revision at which they were claimed, 0 before that is known."""

    node: str
    machine_id: str
    cidrs: tuple[str, ...]
    claimed: float
    """Seconds since 1970."""
    epoch: int = 0


@dataclass(frozen=True)
class Released:
    """A subnet that nobody has now."""

    node: str
    released: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Search:
    """Where a pool is searched for free subnets: places, and which of them are claimed."""

    places: tuple[range, ...]
    occupied: frozenset[int]


@dataclass(frozen=True)
class Snapshot:
    """What is kept for a cluster, wholly or as far as it was looked at."""

    shape: PoolConfig | None = None
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """By node."""
    released: Mapping[str, Released] = field(default_factory=dict)
    """By subnet; always wholly."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """The mod revision of the keys of shape and claims."""
    revision: int = 0
    """etcd's when it was read."""
    holders: Mapping[str, str] = field(default_factory=dict)
    """Who has a subnet, for those that were asked about by themselves."""

    def owners(self) -> dict[str, str]:
        """Who has each claimed subnet that is known of."""
        return {**self.holders, **{cidr: claim.node for claim in self.claims.values() for cidr in claim.cidrs}}

    def search(self, pool: Pool) -> Search:
        """The whole pool, for a snapshot that has every claim."""
        occupied = frozenset(pool.index(cidr) for cidr in self.owners() if cidr in pool)
        return Search((range(pool.size),), occupied)


def describe(pools: Sequence[Pool]) -> str:
    """Pools in words: ``10.244.0.0/16 with 8 node bits``."""
    return " and ".join(f"{pool.pod_cidr} with {pool.node_bits} node bits" for pool in pools) or "no pool"


def table(claims: Iterable[Claim]) -> dict[str, str]:
    """Claims as a diff shows them: node to its subnets."""
    return {claim.node: ", ".join(claim.cidrs) for claim in sorted(claims, key=lambda claim: claim.node)}


def subnets_of(claim: Claim) -> tuple[NodeSubnet, ...]:
    """The claim's subnets as the other rooms take them."""
    return tuple(NodeSubnet(cidr) for cidr in claim.cidrs)
