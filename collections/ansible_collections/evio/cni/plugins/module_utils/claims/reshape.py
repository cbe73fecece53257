# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of a pool that is changed as a whole: grown, reserved from, pinned, pruned, taken over from upstream.

Pure: a plan from one snapshot of all claims; the registry makes it so. Single claims are the subject of claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from ..subnets import Pool, overlaps, refuse_overlaps
from .allocator import check_pool_config, plan_claims
from .model import Claim, ClaimError, PoolConfig, Request, Search, Snapshot, describe


@dataclass(frozen=True)
class Changes:
    """What is asked for; None leaves a thing as it is."""

    pools: tuple[Pool, ...] | None = None
    reserved: tuple[str, ...] | None = None
    pins: Mapping[str, tuple[str, ...]] | None = None
    live_nodes: tuple[str, ...] | None = None
    """All nodes there are: the claims of any other are released."""
    adopt: tuple[Request, ...] = ()
    """Nodes that upstream's generator gave a subnet, each pinned to it."""


@dataclass(frozen=True)
class PoolPlan:
    """The pool as it will be."""

    shape: PoolConfig
    claims: Mapping[str, Claim]
    """All of them, by node, adopted ones among them."""
    released: tuple[Claim, ...]
    adopted: Mapping[str, Claim]
    unowned: tuple[str, ...]
    """Subnets of upstream's keys that no node was named for; they are reserved."""


def plan_changes(changes: Changes, snapshot: Snapshot, upstream: Mapping[str, str], *, now: float) -> PoolPlan:
    """The pool as these changes make it. ``upstream`` has the subnets of upstream's keys.

    Raises ClaimError, which names the node, for what would break a live claim.
    """
    released = _dead(changes.live_nodes, snapshot)
    live = {node: claim for node, claim in snapshot.claims.items() if claim not in released}
    shape = _pool_config(changes, snapshot)
    after = replace(snapshot, claims=live)
    adopted, unowned = _adopt(changes.adopt, shape, after, upstream, now)
    given = {cidr for claim in adopted.values() for cidr in claim.cidrs}
    reserved = dict.fromkeys((*shape.reserved, *unowned))
    shape = replace(shape, reserved=tuple(cidr for cidr in reserved if cidr not in given))
    claims = {**live, **adopted}
    check_pool_config(shape, replace(after, claims=claims))
    _check_reserved(shape, claims)
    _check_pins(shape, claims)
    return PoolPlan(shape, claims, released, adopted, unowned)


def _dead(live_nodes: Sequence[str] | None, snapshot: Snapshot) -> tuple[Claim, ...]:
    if live_nodes is None:
        return ()
    if not live_nodes:
        raise ClaimError("live_nodes names no node, so every claim would be released; name those that live")
    return tuple(claim for node, claim in snapshot.claims.items() if node not in live_nodes)


def _pool_config(changes: Changes, snapshot: Snapshot) -> PoolConfig:
    stored = snapshot.shape
    pools = changes.pools or (stored.pools if stored else None)
    if pools is None:
        raise ClaimError("there is no pool yet; give pod_cidr and node_bits to make one")
    shape = stored or PoolConfig(pools)
    return PoolConfig(
        pools,
        shape.reserved if changes.reserved is None else changes.reserved,
        shape.pins if changes.pins is None else changes.pins,
    )


def _adopt(
    requests: Sequence[Request], shape: PoolConfig, snapshot: Snapshot, upstream: Mapping[str, str], now: float
) -> tuple[dict[str, Claim], tuple[str, ...]]:
    """The claims of the named nodes, and the subnets of upstream's that are left without an owner."""
    if not requests:
        return {}, ()
    for request in requests:
        strange = next((cidr for cidr in request.pin if cidr not in upstream), None)
        if strange is not None or not request.pin:
            raise ClaimError(f"node {request.node}: upstream has no key of {strange or 'its subnet'} in etcd")
    searches = {pool.pod_cidr: Search((), frozenset()) for pool in shape.pools}
    reserved = tuple(cidr for cidr in shape.reserved if cidr not in upstream)
    adopted = plan_claims(requests, replace(shape, reserved=reserved), snapshot, searches, now=now)
    owned = {cidr for claims in (snapshot.claims, adopted) for claim in claims.values() for cidr in claim.cidrs}
    return adopted, tuple(cidr for cidr in upstream if cidr not in owned)


def _check_reserved(shape: PoolConfig, claims: Mapping[str, Claim]) -> None:
    for reserved in shape.reserved:
        refuse_overlaps({"reserved_cidrs": reserved})
        for claim in claims.values():
            held = next((cidr for cidr in claim.cidrs if overlaps(ip_network(cidr), ip_network(reserved))), None)
            if held is not None:
                raise ClaimError(f"{reserved} cannot be reserved: {claim.node} has {held}; release it first")


def _check_pins(shape: PoolConfig, claims: Mapping[str, Claim]) -> None:
    owners = {cidr: claim.node for claim in claims.values() for cidr in claim.cidrs}
    pinned: dict[str, str] = {}
    for node, cidrs in shape.pins.items():
        for cidr in cidrs:
            pool = next((pool for pool in shape.pools if cidr in pool), None)
            if pool is None:
                raise ClaimError(f"node {node} is pinned to {cidr}, which is no subnet of {describe(shape.pools)}")
            reserved = next((one for one in shape.reserved if overlaps(ip_network(cidr), ip_network(one))), None)
            if reserved is not None:
                raise ClaimError(f"node {node} is pinned to {cidr}, but {reserved} is reserved")
            owner = pinned.get(cidr) or owners.get(cidr, node)
            if owner != node:
                raise ClaimError(f"node {node} is pinned to {cidr}, which {owner} has")
            held = claims.get(node)
            other = next((one for one in (held.cidrs if held else ()) if one in pool and one != cidr), None)
            if other is not None:
                raise ClaimError(f"node {node} is pinned to {cidr} but has {other}; release it first")
            pinned[cidr] = node
