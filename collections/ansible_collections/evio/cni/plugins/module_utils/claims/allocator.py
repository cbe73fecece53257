# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decide which node gets which subnet, from a snapshot of etcd. Pure: the transaction is made by registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

from ..paths import CONFLIST_NAME
from ..subnets import Pool, overlaps, reserved_places
from .model import (
    _NODE_NAME,
    QUARANTINE,
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


def check_pool_config(wanted: PoolConfig, snapshot: Snapshot) -> None:
    """Raise ClaimError if a live claim has no place in the wanted shape; the snapshot has every claim."""
    held = [(claim.node, cidr) for claim in snapshot.claims.values() for cidr in claim.cidrs]
    misfits = [f"{node} has {cidr}" for node, cidr in held if not any(cidr in pool for pool in wanted.pools)]
    if misfits:
        raise ClaimError(
            f"evio_pod_cidr and evio_node_bits say {describe(wanted.pools)}, but claims were made from "
            f"{describe(snapshot.shape.pools if snapshot.shape else ())} and {len(misfits)} would lose their place "
            f"({', '.join(misfits[:3])}); take a pool that holds them all, or release those nodes first"
        )


def stale_releases(wanted: PoolConfig, snapshot: Snapshot) -> list[str]:
    """Released subnets of another size than the wanted shape cuts: nobody has one of them, they may be forgotten."""
    lengths = {pool.family: pool.prefix_length for pool in wanted.pools}
    networks = ((cidr, ip_network(cidr)) for cidr in snapshot.released)
    return [cidr for cidr, one in networks if lengths.get(one.version, one.prefixlen) != one.prefixlen]


def plan_claims(
    requests: Sequence[Request],
    shape: PoolConfig,
    snapshot: Snapshot,
    searches: Mapping[str, Search],
    *,
    now: float,
    quarantine: float = QUARANTINE,
) -> dict[str, Claim]:
    """The claims to write, by node: those of nodes that have all they want already are not among them.

    Lowest free subnet first, of the places that ``searches`` has for each pod_cidr; one that was released comes after
    those never used, once its quarantine is over, the longest released first. Raises ClaimError if any of the requests
    cannot be met, ExhaustedError for want of a free subnet: then none is.
    """
    requests = [
        replace(one, pin=tuple(dict.fromkeys((*shape.pins.get(one.node, ()), *one.pins())))) for one in requests
    ]
    taken = snapshot.owners()
    _check_requests(requests, shape, snapshot, taken)
    kept = {cidr for request in requests for cidr in request.pin}.union(*shape.pins.values(), taken)
    planned: dict[str, Claim] = {}
    for pool in shape.pools:
        free = _free_subnets(pool, searches[pool.pod_cidr], snapshot, kept, shape.reserved, now, quarantine)
        for request in requests:
            held = planned.get(request.node) or snapshot.claims.get(request.node)
            if held is not None and any(cidr in pool for cidr in held.cidrs):
                continue
            cidr = next((pin for pin in request.pin if pin in pool), None) or next(free, None)
            if cidr is None:
                raise ExhaustedError(_exhausted(request.node, pool, snapshot, kept, now, quarantine))
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


def lost_reason(configured: LocalClaim, claim: Claim | None, revision: int) -> str | None:
    """Why the claim that a node is set up with does not hold any more; None if it does.

    ``claim`` is the one that etcd has for the node now, ``revision`` etcd's own: one that is behind the node's epoch
    is of an etcd that was wiped, or restored from a snapshot older than the claim. An epoch that etcd has raised, for
    a second family or another machine, takes nothing from the node.
    """
    if configured.epoch > revision:
        return f"etcd is only at revision {revision}: it was wiped, or restored from an older snapshot"
    if claim is None:
        return "etcd has no claim of it: it was released, or etcd was wiped or restored"
    lost = [cidr for cidr in configured.cidrs if cidr not in claim.cidrs]
    if lost:
        return f"etcd has {', '.join(claim.cidrs)} for it"
    return None


def lost_claims(configured: Mapping[str, LocalClaim], snapshot: Snapshot) -> dict[str, str]:
    """By node, those whose claim does not hold any more, and why not."""
    reasons = {
        node: lost_reason(claim, snapshot.claims.get(node), snapshot.revision) for node, claim in configured.items()
    }
    return {node: reason for node, reason in reasons.items() if reason is not None}


def _check_requests(
    requests: Sequence[Request], shape: PoolConfig, snapshot: Snapshot, taken: Mapping[str, str]
) -> None:
    _refuse_lost(requests, snapshot)
    wanted = {cidr: node for node, cidrs in shape.pins.items() for cidr in cidrs}
    names = Counter(request.node for request in requests)
    for request in requests:
        node = request.node
        if not _NODE_NAME.match(node):
            raise ClaimError(f"node name {node!r} cannot be a key in etcd; use letters, digits, '-', '_' and '.'")
        if names[node] > 1:
            raise ClaimError(f"node {node} is named twice")
        if not request.machine_id:
            raise ClaimError(f"node {node} has no machine-id; /etc/machine-id is empty or missing there")
        held = snapshot.claims.get(node)
        if held is not None and held.machine_id != request.machine_id and not request.replaced:
            raise ClaimError(
                f"node {node}: {', '.join(held.cidrs)} belongs to the machine {held.machine_id}, not to "
                f"{request.machine_id}; if the host was replaced, say so (replaced: true), if two hosts have one name, "
                "rename one"
            )
        for pin in request.pin:
            pool = next((pool for pool in shape.pools if pin in pool), None)
            if pool is None:
                raise ClaimError(f"node {node} is pinned to {pin}, which is no subnet of {describe(shape.pools)}")
            twin = next((other for other in request.pin if other != pin and other in pool), None)
            if twin is not None:
                raise ClaimError(f"node {node} is pinned to both {pin} and {twin}; take one pin off")
            if not (held and pin in held.cidrs):
                _refuse_reserved(node, pin, shape.reserved)
            owner = wanted.get(pin) or taken.get(pin)
            if owner not in (None, node):
                raise ClaimError(f"node {node} is pinned to {pin}, which {owner} has")
            other = next((cidr for cidr in (held.cidrs if held else ()) if cidr in pool and cidr != pin), None)
            if other is not None:
                raise ClaimError(f"node {node} is pinned to {pin} but has {other}; release it first")
            wanted[pin] = node


def _refuse_lost(requests: Sequence[Request], snapshot: Snapshot) -> None:
    known = {one.node: one.configured for one in requests if one.configured is not None and not one.restore}
    lost = lost_claims(known, snapshot)
    if lost:
        told = "; ".join(
            f"node {node} is set up with {', '.join(known[node].cidrs)} at epoch {known[node].epoch}, but {reason}"
            for node, reason in lost.items()
        )
        raise LostClaimError(
            f"{told}. Pods keep what they have. To claim again what a node is set up with, say so (restore: true); to "
            f"give it another subnet, drain it and remove its {CONFLIST_NAME}",
            lost,
        )


def _refuse_reserved(node: str, cidr: str, reserved: Sequence[str]) -> None:
    network = next((one for one in reserved if overlaps(ip_network(cidr), ip_network(one))), None)
    if network is not None:
        raise ClaimError(f"node {node} is pinned to {cidr}, but {network} is reserved")


def _free_subnets(
    pool: Pool,
    search: Search,
    snapshot: Snapshot,
    kept: set[str],
    reserved: Sequence[str],
    now: float,
    quarantine: float,
) -> Iterator[str]:
    """Those that may be given out, the next one first; an iterator, the pool may be large."""
    kept_out = reserved_places(pool, reserved)
    kept_places = {pool.index(cidr) for cidr in {*kept, *snapshot.released} if cidr in pool}

    def is_kept_out(place: int) -> bool:
        return any(place in places for places in kept_out)

    for places in search.places:
        for place in places:
            if place not in search.occupied and place not in kept_places and not is_kept_out(place):
                yield pool.subnet(place).cidr
    rested = sorted(
        (released.released, pool.index(cidr), cidr)
        for cidr, released in snapshot.released.items()
        if cidr in pool and cidr not in kept and now - released.released >= quarantine
    )
    for _released, place, cidr in rested:
        if not is_kept_out(place):
            yield cidr


def _exhausted(node: str, pool: Pool, snapshot: Snapshot, kept: set[str], now: float, quarantine: float) -> str:
    resting = [
        released.released + quarantine - now
        for cidr, released in snapshot.released.items()
        if cidr in pool and cidr not in kept and now - released.released < quarantine
    ]
    if resting:
        return (
            f"node {node}: no subnet of {pool.pod_cidr} is free; {len(resting)} are in quarantine, the first for "
            f"another {min(resting):.0f} s"
        )
    return (
        f"node {node}: no subnet of {pool.pod_cidr} is free, all {pool.size} are claimed or reserved; release nodes "
        "that are gone, or take more node bits"
    )
