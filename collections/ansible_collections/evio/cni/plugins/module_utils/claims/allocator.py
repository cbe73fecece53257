# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decide which node gets which subnet, and whether the claim that a node is set up with still holds.

Pure: from a snapshot of etcd to the claims that should be written. ``registry`` writes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

from ..defaults import QUARANTINE
from ..names import is_node_name
from ..paths import CONFLIST_NAME
from ..subnets import Pool, overlaps, reserved_places
from .model import (
    Claim,
    ClaimError,
    ExhaustedError,
    LocalClaim,
    LostClaimError,
    PoolConfig,
    Request,
    Search,
    Snapshot,
    describe,
)
from .pins import check_pin, refuse_two_pins_in_a_pool


def plan_claims(
    requests: Sequence[Request],
    config: PoolConfig,
    snapshot: Snapshot,
    searches: Mapping[str, Search],
    *,
    now: float,
    quarantine: float = QUARANTINE,
) -> dict[str, Claim]:
    """Return the claims to write, by node. A node that has all its subnets already is not among them.

    ``searches`` has the places to search in each pool, by its pod_cidr. The lowest subnet that was never used is taken
    first; then, of the released subnets whose quarantine (seconds) is over, the one that was released first.
    Raises ClaimError if a request cannot be met, ExhaustedError if no subnet is free; then no claim is planned at all.
    """
    requests = [_with_all_pins(request, config) for request in requests]
    owners = snapshot.owners()
    _check_requests(requests, config, snapshot)
    kept = {cidr for request in requests for cidr in request.pin}.union(*config.pins.values(), owners)
    planned: dict[str, Claim] = {}
    for pool in config.pools:
        free = _free_subnets(pool, searches[pool.pod_cidr], snapshot, kept, config.reserved, now, quarantine)
        for request in requests:
            held = planned.get(request.node) or snapshot.claims.get(request.node)
            if held is not None and any(cidr in pool for cidr in held.cidrs):
                continue
            cidr = next((pin for pin in request.pin if pin in pool), None) or next(free, None)
            if cidr is None:
                raise ExhaustedError(_no_free_subnet(request.node, pool, snapshot, kept, now, quarantine))
            if held is None:
                held = Claim(request.node, request.machine_id, (), now)
            planned[request.node] = replace(held, cidrs=(*held.cidrs, cidr), claimed=now, epoch=0)
    for request in requests:
        existing = snapshot.claims.get(request.node)
        if existing is not None and existing.machine_id != request.machine_id:
            planned[request.node] = replace(
                planned.get(request.node, existing), machine_id=request.machine_id, claimed=now, epoch=0
            )
    return planned


def plan_renames(requests: Sequence[Request], snapshot: Snapshot) -> dict[str, Claim]:
    """Return the claims that move to a node's new name, by the former name.

    A claim that has moved already is not among them. Raises ClaimError if the former name belongs to another machine,
    or if the new name has a claim of its own.
    """
    moves: dict[str, Claim] = {}
    for request in requests:
        claim = snapshot.claims.get(request.renamed_from) if request.renamed_from else None
        if claim is None:
            continue
        if claim.machine_id != request.machine_id:
            raise ClaimError(
                f"node {request.node} cannot take over the claim of {claim.node}: it belongs to the machine "
                f"{claim.machine_id}, not to {request.machine_id}"
            )
        if request.node in snapshot.claims:
            taken = ", ".join(snapshot.claims[request.node].cidrs)
            raise ClaimError(
                f"node {claim.node} cannot be renamed to {request.node}, which has {taken}; release that claim first"
            )
        moves[claim.node] = replace(claim, node=request.node)
    return moves


def check_pool_config(wanted: PoolConfig, snapshot: Snapshot) -> None:
    """Raise ClaimError if a claimed subnet is part of none of the wanted pools, or overlaps with what they give.

    The snapshot must have all claims.
    """
    held = [(claim.node, cidr) for claim in snapshot.claims.values() for cidr in claim.cidrs]
    misfits = [f"{node} has {cidr}" for node, cidr in held if not wanted.has_or_had(cidr)]
    if misfits:
        stored = snapshot.pool_config.pools if snapshot.pool_config else ()
        raise ClaimError(
            f"evio_pod_cidr and evio_node_bits say {describe(wanted.pools)}, but claims were made from "
            f"{describe(stored)} and {len(misfits)} would lose their place "
            f"({', '.join(misfits[:3])}); take a pool that holds them all, move the nodes to this one with "
            "change_pool.yml, or release those nodes first"
        )

    for node, cidr in held:
        pool = next((pool for pool in wanted.pools if overlaps(ip_network(cidr), pool.network)), None)
        if pool is not None and not wanted.has(cidr):
            raise ClaimError(
                f"{node} has {cidr} and cannot move to {describe([pool])}: these are the same addresses, divided "
                "otherwise, and would belong to two nodes meanwhile. Take a pool that does not overlap with it"
            )


def needed_former(former: Sequence[Pool], pools: Sequence[Pool], claims: Iterable[Claim]) -> tuple[Pool, ...]:
    """Return those former pools of which claims have subnets that are not part of ``pools``."""
    outside = [cidr for claim in claims for cidr in claim.cidrs if not any(cidr in pool for pool in pools)]
    return tuple(dict.fromkeys(pool for pool in former if any(cidr in pool for cidr in outside)))


def stale_releases(wanted: PoolConfig, snapshot: Snapshot) -> list[str]:
    """Return the released subnets of a size that no subnet of the pools, and of the former ones, has.

    They can be forgotten.
    """
    lengths: dict[int, set[int]] = {}
    for pool in (*wanted.pools, *wanted.former):
        lengths.setdefault(pool.family, set()).add(pool.prefix_length)
    networks = ((cidr, ip_network(cidr)) for cidr in snapshot.released)
    return [cidr for cidr, net in networks if net.prefixlen not in lengths.get(net.version, {net.prefixlen})]


def lost_reason(configured: LocalClaim, claim: Claim | None, revision: int) -> str | None:
    """Return why the claim that a node is set up with does not hold any more, or None if it holds.

    ``claim`` is the node's claim in etcd and ``revision`` etcd's own. A revision below the node's epoch means that etcd
    was wiped, or restored from a snapshot older than the claim. An epoch in etcd above the node's is no loss: it rises
    when the node gets a subnet of a second family, or when its machine is replaced.
    """
    if configured.epoch > revision:
        return f"etcd is only at revision {revision}: it was wiped, or restored from an older snapshot"
    if claim is None:
        return "etcd has no claim of it: it was released, or etcd was wiped or restored"
    if any(cidr not in claim.cidrs for cidr in configured.cidrs):
        return f"etcd has {', '.join(claim.cidrs)} for it"
    return None


def lost_claims(configured: Mapping[str, LocalClaim], snapshot: Snapshot) -> dict[str, str]:
    """Return the nodes whose claim does not hold any more, each with the reason."""
    reasons = {
        node: lost_reason(claim, snapshot.claims.get(node), snapshot.revision) for node, claim in configured.items()
    }
    return {node: reason for node, reason in reasons.items() if reason is not None}


def _with_all_pins(request: Request, config: PoolConfig) -> Request:
    """Return the request with the pins of the pool configuration among its own."""
    return replace(request, pin=tuple(dict.fromkeys((*config.pins.get(request.node, ()), *request.pins()))))


def _check_requests(requests: Sequence[Request], config: PoolConfig, snapshot: Snapshot) -> None:
    _refuse_lost(requests, snapshot)
    _refuse_duplicates(requests)
    for request in requests:
        _check_node(request)
        _check_machine(request, snapshot.claims.get(request.node))
    _check_pins(requests, config, snapshot)


def _refuse_lost(requests: Sequence[Request], snapshot: Snapshot) -> None:
    known = {
        request.node: request.configured
        for request in requests
        if request.configured is not None and not request.restore
    }
    lost = lost_claims(known, snapshot)
    if lost:
        causes = "; ".join(
            f"node {node} is set up with {', '.join(known[node].cidrs)} at epoch {known[node].epoch}, but {reason}"
            for node, reason in lost.items()
        )
        raise LostClaimError(
            f"{causes}. Pods keep their addresses. To claim the same subnets again, set restore: true (-e "
            "evio_node_subnet_restore=true for a playbook); to give a node another subnet, drain it and remove its "
            f"{CONFLIST_NAME}",
            lost,
        )


def _refuse_duplicates(requests: Sequence[Request]) -> None:
    for node, count in Counter(request.node for request in requests).items():
        if count > 1:
            raise ClaimError(f"node {node} is named twice")


def _check_node(request: Request) -> None:
    if not is_node_name(request.node):
        raise ClaimError(f"node name {request.node!r} cannot be a key in etcd; use letters, digits, '-', '_' and '.'")
    if not request.machine_id:
        raise ClaimError(f"node {request.node} has no machine-id; /etc/machine-id is empty or missing there")


def _check_machine(request: Request, held: Claim | None) -> None:
    if held is not None and held.machine_id != request.machine_id and not request.replaced:
        raise ClaimError(
            f"node {request.node}: {', '.join(held.cidrs)} belongs to the machine {held.machine_id}, not to "
            f"{request.machine_id}; if the host was replaced, set replaced: true; if two hosts have the same name, "
            "rename one of them"
        )


def _check_pins(requests: Sequence[Request], config: PoolConfig, snapshot: Snapshot) -> None:
    owners = {**snapshot.owners(), **{cidr: node for node, cidrs in config.pins.items() for cidr in cidrs}}
    for request in requests:
        refuse_two_pins_in_a_pool(request.node, request.pin, config.pools)
        for cidr in request.pin:
            check_pin(request.node, cidr, config, claims=snapshot.claims, owners=owners)
            owners[cidr] = request.node


def _free_subnets(
    pool: Pool,
    search: Search,
    snapshot: Snapshot,
    kept: set[str],
    reserved: Sequence[str],
    now: float,
    quarantine: float,
) -> Iterator[str]:
    """Yield the subnets that can be given out, in the order in which they are. Lazy: a pool can be large."""
    reserved_ranges = reserved_places(pool, reserved)
    kept_places = {pool.index(cidr) for cidr in {*kept, *snapshot.released} if cidr in pool}

    def is_reserved(place: int) -> bool:
        return any(place in places for places in reserved_ranges)

    for places in search.places:
        for place in places:
            if place not in search.occupied and place not in kept_places and not is_reserved(place):
                yield pool.subnet(place).cidr
    rested = sorted(
        (released.released, pool.index(cidr), cidr)
        for cidr, released in snapshot.released.items()
        if cidr in pool and cidr not in kept and not released.quarantine_left(now, quarantine)
    )
    for _released, place, cidr in rested:
        if not is_reserved(place):
            yield cidr


def _no_free_subnet(node: str, pool: Pool, snapshot: Snapshot, kept: set[str], now: float, quarantine: float) -> str:
    """Return why a node cannot get a subnet of this pool, and what the operator can do."""
    left = [
        released.quarantine_left(now, quarantine)
        for cidr, released in snapshot.released.items()
        if cidr in pool and cidr not in kept and released.quarantine_left(now, quarantine)
    ]
    if left:
        return (
            f"node {node}: no subnet of {pool.pod_cidr} is free; {len(left)} are in quarantine, the first for "
            f"another {min(left):.0f} s"
        )
    return (
        f"node {node}: no subnet of {pool.pod_cidr} is free, all {pool.size} are claimed or reserved; release nodes "
        "that are gone, or take more node bits"
    )
