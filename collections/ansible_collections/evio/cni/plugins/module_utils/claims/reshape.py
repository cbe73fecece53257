# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plan a change of the whole pool: other networks, reserved ranges, pins, dead nodes, subnets taken over from upstream.

Nodes move to another pool in three steps. First the pool changes and ``keeps_former`` lets claims keep their subnets of
the former pool. Then nodes claim subnets of the new pool besides, are set up with them one by one, and at last are
``moved_nodes``, which give back the former subnets. A former pool of which nobody has a subnet is forgotten.

Pure: one snapshot of all claims in, one plan out. ``registry`` carries it out; ``allocator`` plans claims of nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from ..subnets import Pool, check_network, overlaps
from .allocator import check_pool_config, needed_former, plan_claims
from .model import Claim, ClaimError, PoolConfig, Request, Search, Snapshot, describe
from .pins import check_pin


@dataclass(frozen=True)
class Changes:
    """The wanted changes; None leaves a part as it is."""

    pools: tuple[Pool, ...] | None = None
    keeps_former: bool = False
    """Nodes keep subnets outside of ``pools`` until they are among moved_nodes."""
    moved_nodes: tuple[str, ...] = ()
    """Nodes that are set up with subnets of the present pools: their subnets of former pools are released."""
    reserved: tuple[str, ...] | None = None
    pins: Mapping[str, tuple[str, ...]] | None = None
    live_nodes: tuple[str, ...] | None = None
    """The names of all nodes that exist: the claims of all others are released."""
    adopt: tuple[Request, ...] = ()
    """Nodes that have a subnet from upstream's generator; each request is pinned to that subnet."""


@dataclass(frozen=True)
class PoolPlan:
    """The pool after the changes."""

    pool_config: PoolConfig
    claims: Mapping[str, Claim]
    """All claims, by node, including the adopted ones."""
    released: tuple[Claim, ...]
    """The claims of nodes that do not exist any more."""
    moved: tuple[Claim, ...]
    """The claims of moved nodes that had subnets of former pools, without these."""
    adopted: Mapping[str, Claim]
    """The new claims on upstream's subnets, by node."""
    unowned: tuple[str, ...]
    """Upstream's subnets that no request names; they are reserved."""


def plan_changes(changes: Changes, snapshot: Snapshot, upstream: Mapping[str, str], *, now: float) -> PoolPlan:
    """Return the pool after the changes. ``upstream`` has upstream's keys by their subnets; ``now`` is a Unix time.

    Raises ClaimError, which names the node, if a change would break a claim.
    """
    released = _claims_of_dead_nodes(changes.live_nodes, snapshot)
    live = {node: claim for node, claim in snapshot.claims.items() if claim not in released}
    moved = _without_former(changes.moved_nodes, live, snapshot)
    live.update(moved)
    config = _changed_config(changes, snapshot, live)
    after = replace(snapshot, claims=live)
    adopted, unowned = _adopt(changes.adopt, config, after, upstream, now)
    given = {cidr for claim in adopted.values() for cidr in claim.cidrs}
    reserved = dict.fromkeys((*config.reserved, *unowned))
    config = replace(config, reserved=tuple(cidr for cidr in reserved if cidr not in given))
    claims = {**live, **adopted}
    check_pool_config(config, replace(after, claims=claims))
    _check_reserved(config, claims)
    _check_pins(config, claims)
    return PoolPlan(config, claims, released, tuple(moved.values()), adopted, unowned)


def _claims_of_dead_nodes(live_nodes: Sequence[str] | None, snapshot: Snapshot) -> tuple[Claim, ...]:
    if live_nodes is None:
        return ()
    if not live_nodes:
        raise ClaimError("live_nodes names no node, so every claim would be released; name all nodes that exist")
    return tuple(claim for node, claim in snapshot.claims.items() if node not in live_nodes)


def _without_former(nodes: Sequence[str], claims: Mapping[str, Claim], snapshot: Snapshot) -> dict[str, Claim]:
    """Return the claims of these nodes that have subnets of former pools, without these subnets."""
    config = snapshot.pool_config
    if config is None:
        return {}
    moved: dict[str, Claim] = {}
    for claim in (claims[node] for node in nodes if node in claims):
        kept = tuple(cidr for cidr in claim.cidrs if config.has(cidr))
        families = [{ip_network(cidr).version for cidr in cidrs} for cidrs in (claim.cidrs, kept)]
        if families[0] != families[1]:
            raise ClaimError(
                f"node {claim.node} has {', '.join(claim.cidrs)} and none of {describe(config.pools)} for each family "
                "yet; claim one before the former subnet is released"
            )
        if kept != claim.cidrs:
            moved[claim.node] = replace(claim, cidrs=kept)
    return moved


def _changed_config(changes: Changes, snapshot: Snapshot, claims: Mapping[str, Claim]) -> PoolConfig:
    """Return the pool configuration after the changes; ``claims`` are those that stay."""
    stored = snapshot.pool_config
    pools = changes.pools or (stored.pools if stored else None)
    if pools is None:
        raise ClaimError("there is no pool yet; give pod_cidr and node_bits to make one")
    config = stored or PoolConfig(pools)
    former = (*config.former, *config.pools) if changes.keeps_former else config.former
    return PoolConfig(
        pools,
        config.reserved if changes.reserved is None else changes.reserved,
        config.pins if changes.pins is None else changes.pins,
        needed_former(former, pools, claims.values()),
    )


def _adopt(
    requests: Sequence[Request], config: PoolConfig, snapshot: Snapshot, upstream: Mapping[str, str], now: float
) -> tuple[dict[str, Claim], tuple[str, ...]]:
    """Return the claims of the requested nodes, and upstream's subnets that have no owner then."""
    if not requests:
        return {}, ()
    for request in requests:
        unknown = next((cidr for cidr in request.pin if cidr not in upstream), None)
        if unknown is not None or not request.pin:
            raise ClaimError(f"node {request.node}: upstream has no key of {unknown or 'its subnet'} in etcd")
    searches = {pool.pod_cidr: Search((), frozenset()) for pool in config.pools}
    reserved = tuple(cidr for cidr in config.reserved if cidr not in upstream)
    adopted = plan_claims(requests, replace(config, reserved=reserved), snapshot, searches, now=now)
    owned = {cidr for claims in (snapshot.claims, adopted) for claim in claims.values() for cidr in claim.cidrs}
    return adopted, tuple(cidr for cidr in upstream if cidr not in owned)


def _check_reserved(config: PoolConfig, claims: Mapping[str, Claim]) -> None:
    for reserved in config.reserved:
        check_network("reserved_cidrs", reserved)
        for claim in claims.values():
            held = next((cidr for cidr in claim.cidrs if overlaps(ip_network(cidr), ip_network(reserved))), None)
            if held is not None:
                raise ClaimError(f"{reserved} cannot be reserved: {claim.node} has {held}; release it first")


def _check_pins(config: PoolConfig, claims: Mapping[str, Claim]) -> None:
    owners = {cidr: claim.node for claim in claims.values() for cidr in claim.cidrs}
    for node, cidrs in config.pins.items():
        for cidr in cidrs:
            check_pin(node, cidr, config, claims=claims, owners=owners)
            owners[cidr] = node
