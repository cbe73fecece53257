# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The registry of node subnets in etcd: claims and releases, each as one transaction that a race cannot split.

What is claimed is planned by claims, what a pool becomes by pool_changes, from what was read before; a transaction
holds only if nothing of that which matters has changed, and a lost race is read and planned again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..etcd.client import MAX_TXN_OPS, Compare, Condition, Delete, Etcd, Get, Operation, Put, TxnResult, UnchangedSince
from ..subnets import Pool, reserved_places
from .allocator import check_pool_config, lost_claims, plan_claims, stale_releases
from .model import (
    QUARANTINE,
    Claim,
    ClaimError,
    ExhaustedError,
    LocalClaim,
    PoolConfig,
    Released,
    Request,
    Search,
    Snapshot,
)
from .reshape import Changes, PoolPlan, plan_changes
from .schema import (
    Keys,
    decode_claim,
    decode_holder,
    decode_pool_config,
    decode_released,
    encode_claim,
    encode_pool_config,
    encode_released,
    encode_subnet,
)
from .upstream import UPSTREAM_PREFIX, parse_upstream_keys

_MOST_TRIES = 64
"""Each lost race means that another client has claimed: progress, but not without end."""
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.25
"""Seconds: all go for the lowest free subnet, so who has lost steps back for a random while, longer each time."""
_BLOCKS = 32
"""Into how many parts a pool is divided, whose claims are counted, so that only one with room must be read."""
_SMALLEST_BLOCK = 1024
"""Reading the keys of so many is no more work than counting them first."""
_MOST_SINGLE_KEYS = 48
"""Of nodes and pins; for more, one read of all nodes is less work."""


@dataclass(frozen=True)
class Outcome:
    """What a call has done, or in check mode would do."""

    claims: dict[str, Claim]
    """The claims asked for, by node; those to be made have epoch 0 in check mode."""
    before: Snapshot
    """As far as it was looked at: the shape, and the claims of the nodes that were asked for."""
    changed: tuple[str, ...]
    """The nodes whose claim was written or removed."""
    pool_changed: bool = False


@dataclass(frozen=True)
class PoolOutcome:
    """What a change of the pool has done, or in check mode would do."""

    before: Snapshot
    plan: PoolPlan
    released: tuple[str, ...]
    adopted: tuple[str, ...]
    changed: bool


@dataclass(frozen=True)
class _Part:
    """What a transaction does for one node, or for the shape: all of it or none."""

    node: str
    """Empty for the shape."""
    conditions: tuple[Condition, ...]
    operations: tuple[Operation, ...]


class Registry:
    """One cluster's claims, in the etcd it is given."""

    def __init__(self, etcd: Etcd, cluster: str, *, clock: Callable[[], float] = time.time) -> None:
        self._etcd = etcd
        self._keys = Keys(cluster)
        self._clock = clock

    def read(self) -> Snapshot:
        """All there is, in one call."""
        return self._decode(self._etcd.txn([], self._all()))

    def lost(self, configured: Mapping[str, LocalClaim]) -> dict[str, str]:
        """Of nodes that are set up with claims: those whose claim does not hold any more, and why not. Reads only."""
        return lost_claims(configured, self._look(list(configured)))

    def unclaimed(self, nodes: Sequence[str]) -> list[str]:
        """Those of the nodes that have no claim. Reads only."""
        claims = self._look(nodes).claims if nodes else {}
        return [node for node in nodes if node not in claims]

    def claim(
        self,
        requests: Sequence[Request],
        pools: Sequence[Pool],
        *,
        reserved: Sequence[str] = (),
        quarantine: float = QUARANTINE,
        dry_run: bool = False,
    ) -> Outcome:
        """Give every node its subnets, in one transaction for as many nodes as etcd takes at once (62 of one family).

        A node that has its subnets keeps them. Networks in ``reserved`` are kept out besides those that the registry
        knows of, and are remembered where this call makes the pool. Raises ClaimError, and writes nothing, if one of
        the nodes cannot have any.
        """
        before: Snapshot | None = None
        done: dict[str, Claim] = {}
        is_whole = False
        for lost in range(_MOST_TRIES):
            pins = [cidr for request in requests for cidr in request.pins()]
            snapshot = self._look([request.node for request in requests], pins, pools)
            before = before or snapshot
            shape = _wanted_pool_config(snapshot, pools, reserved)
            searched = replace(shape, reserved=tuple(dict.fromkeys((*shape.reserved, *reserved))))
            searches = self._search(requests, searched, snapshot, whole=is_whole)
            try:
                planned = plan_claims(requests, searched, snapshot, searches, now=self._clock(), quarantine=quarantine)
            except ExhaustedError:
                if is_whole:
                    raise
                # Others may have filled between counting and reading what had room; only the whole pool tells.
                is_whole = True
                continue
            is_complete = True
            if not dry_run:
                planned, is_complete = self._write(planned.values(), shape, snapshot)
            done.update(planned)
            if is_complete:
                claims = {request.node: done.get(request.node) or snapshot.claims[request.node] for request in requests}
                return Outcome(claims, before, tuple(done), before.shape != shape)
            _step_back(lost)
        raise self._restless()

    def release(self, nodes: Sequence[str], *, dry_run: bool = False) -> Outcome:
        """Take the claims of these nodes away; their subnets rest until the quarantine is over."""
        before: Snapshot | None = None
        done: list[str] = []
        for lost in range(_MOST_TRIES):
            snapshot = self._look(nodes)
            before = before or snapshot
            held = [snapshot.claims[node] for node in nodes if node in snapshot.claims]
            removed, is_complete = ([claim.node for claim in held], True) if dry_run else self._remove(held, snapshot)
            done += removed
            if is_complete:
                return Outcome({}, before, tuple(done))
            _step_back(lost)
        raise self._restless()

    def reshape(self, changes: Changes, *, dry_run: bool = False) -> PoolOutcome:
        """Change the pool: its networks, reserved ranges and pins, prune dead nodes, adopt upstream's.

        Raises ClaimError, and writes nothing, for what would break a live claim.
        """
        first: tuple[Snapshot, PoolPlan] | None = None
        released: list[str] = []
        for lost in range(_MOST_TRIES):
            result = self._etcd.txn([], [*self._all(), *([Get(UPSTREAM_PREFIX, prefix=True)] if changes.adopt else [])])
            snapshot = self._decode(result)
            upstream = {pair.key for pair in result.ranges[-1]} if changes.adopt else set()
            plan = plan_changes(changes, snapshot, parse_upstream_keys(upstream), now=self._clock())
            first = first or (snapshot, plan)
            if dry_run:
                released = [claim.node for claim in plan.released]
                return self._reshaped(first, plan, released, list(plan.adopted))
            if plan.released:
                released += self._remove(plan.released, snapshot)[0]
                continue
            written, is_complete = self._write(plan.adopted.values(), plan.shape, snapshot)
            if is_complete:
                return self._reshaped(first, plan, released, list(written))
            _step_back(lost)
        raise self._restless()

    @staticmethod
    def _reshaped(
        first: tuple[Snapshot, PoolPlan], plan: PoolPlan, released: Sequence[str], adopted: Sequence[str]
    ) -> PoolOutcome:
        before = first[0]
        changed = bool(released or adopted) or before.shape != plan.shape
        return PoolOutcome(before, plan, tuple(released), tuple(adopted), changed)

    def _look(self, nodes: Sequence[str], pins: Sequence[str] = (), pools: Sequence[Pool] | None = None) -> Snapshot:
        """What concerns these nodes and subnets; all claims where the pool's networks are to become these."""
        if len(nodes) + len(pins) > _MOST_SINGLE_KEYS:
            return self.read()
        held = [Get(self._keys.node(node)) for node in nodes] + [Get(self._keys.subnet(cidr)) for cidr in pins]
        snapshot = self._decode(self._etcd.txn([], [*self._all()[:2], *held]))
        if pools is not None and snapshot.shape is not None and snapshot.shape.pools != tuple(pools):
            return self.read()
        return snapshot

    def _search(
        self, requests: Sequence[Request], shape: PoolConfig, snapshot: Snapshot, *, whole: bool
    ) -> dict[str, Search]:
        """Where to look for what these nodes need: all of a pool or blocks with room, and what is claimed there."""
        needed = {pool: sum(not _has(snapshot, request.node, pool) for request in requests) for pool in shape.pools}
        searched = [pool for pool in shape.pools if needed[pool]]
        chosen: dict[Pool, list[range]] = {pool: [] for pool in shape.pools}
        if whole:
            chosen.update((pool, _blocks(pool)) for pool in searched)
        else:
            counts = self._count(searched)
            chosen.update(
                (pool, _roomy(pool, counts[pool], snapshot, shape.reserved, needed[pool])) for pool in searched
            )
        gets = [
            Get(start, end=end, keys_only=True)
            for pool, blocks in chosen.items()
            for start, end in (self._keys.places(pool, block) for block in blocks)
        ]
        found = iter(self._etcd.txn([], gets).ranges if gets else ())
        return {
            pool.pod_cidr: Search(
                tuple(blocks),
                frozenset(self._keys.place(pool, pair.key) for _block in blocks for pair in next(found)),
            )
            for pool, blocks in chosen.items()
        }

    def _count(self, pools: Sequence[Pool]) -> dict[Pool, list[int]]:
        """How many claims there are in each block; a pool of one block is not counted, it is read."""
        gets = [
            Get(start, end=end, count_only=True)
            for pool in pools
            if len(_blocks(pool)) > 1
            for start, end in (self._keys.places(pool, block) for block in _blocks(pool))
        ]
        counts = iter(self._etcd.txn([], gets).counts if gets else ())
        return {
            pool: [next(counts) for _block in blocks] if len(blocks) > 1 else [0]
            for pool, blocks in ((pool, _blocks(pool)) for pool in pools)
        }

    def _write(self, claims: Iterable[Claim], shape: PoolConfig, snapshot: Snapshot) -> tuple[dict[str, Claim], bool]:
        """Write claims and, where it is another one, the shape; what was written, and whether that is all of it."""
        planned = {claim.node: claim for claim in claims}
        parts = [self._part(claim, snapshot) for claim in planned.values()]
        if shape != snapshot.shape:
            parts = [*self._reshaping(shape, snapshot), *parts]
        rested = UnchangedSince(self._keys.released, snapshot.revision)
        pool = Compare(self._keys.pool, snapshot.revisions.get(self._keys.pool, 0))
        written: dict[str, Claim] = {}
        for batch in _batches(parts, 2):
            result = self._commit(batch, [pool, rested])
            if not result.succeeded:
                return written, False
            if any(Put(self._keys.pool, encode_pool_config(shape)) in part.operations for part in batch):
                pool = Compare(self._keys.pool, result.revision)
            written.update(
                (part.node, replace(planned[part.node], epoch=result.revision)) for part in batch if part.node
            )
        return written, True

    def _reshaping(self, shape: PoolConfig, snapshot: Snapshot) -> list[_Part]:
        """The shape, as long as nobody has claimed what it may not hold, and before it what it forgets."""
        stale = [_Part("", (), (Delete(self._keys.release(cidr)),)) for cidr in stale_releases(shape, snapshot)]
        still = UnchangedSince(self._keys.nodes, snapshot.revision)
        return [*stale, _Part("", (still,), (Put(self._keys.pool, encode_pool_config(shape)),))]

    def _part(self, claim: Claim, snapshot: Snapshot) -> _Part:
        key = self._keys.node(claim.node)
        conditions: list[Condition] = [Compare(key, snapshot.revisions.get(key, 0))]
        operations: list[Operation] = [Put(key, encode_claim(claim))]
        held = snapshot.claims.get(claim.node)
        for cidr in claim.cidrs:
            if held is None or cidr not in held.cidrs:
                conditions.append(Compare(self._keys.subnet(cidr), 0))
                operations.append(Put(self._keys.subnet(cidr), encode_subnet(cidr, claim)))
                if cidr in snapshot.released:
                    operations.append(Delete(self._keys.release(cidr)))
        return _Part(claim.node, tuple(conditions), tuple(operations))

    def _remove(self, claims: Iterable[Claim], snapshot: Snapshot) -> tuple[list[str], bool]:
        """Release claims; the nodes that have none now, and whether these are all."""
        now, parts = self._clock(), []
        for claim in claims:
            key = self._keys.node(claim.node)
            operations: list[Operation] = [Delete(key)]
            for cidr in claim.cidrs:
                released = Put(self._keys.release(cidr), encode_released(cidr, Released(claim.node, now)))
                operations += [Delete(self._keys.subnet(cidr)), released]
            parts.append(_Part(claim.node, (Compare(key, snapshot.revisions[key]),), tuple(operations)))
        removed: list[str] = []
        for batch in _batches(parts, 0):
            if not self._commit(batch, []).succeeded:
                return removed, False
            removed += [part.node for part in batch]
        return removed, True

    def _commit(self, batch: Sequence[_Part], conditions: Sequence[Condition]) -> TxnResult:
        return self._etcd.txn(
            [*conditions, *(condition for part in batch for condition in part.conditions)],
            [operation for part in batch for operation in part.operations],
        )

    def _all(self) -> list[Get]:
        return [Get(self._keys.pool), Get(self._keys.released, prefix=True), Get(self._keys.nodes, prefix=True)]

    def _decode(self, result: TxnResult) -> Snapshot:
        pairs = [pair for pairs in result.ranges for pair in pairs]
        shape = next((decode_pool_config(pair.value) for pair in pairs if pair.key == self._keys.pool), None)
        nodes = {
            pair.key.removeprefix(self._keys.nodes): pair for pair in pairs if pair.key.startswith(self._keys.nodes)
        }
        return Snapshot(
            shape,
            {name: decode_claim(name, pair.value, pair.mod_revision) for name, pair in nodes.items()},
            dict(decode_released(pair.key, pair.value) for pair in pairs if pair.key.startswith(self._keys.released)),
            {pair.key: pair.mod_revision for pair in pairs},
            result.revision,
            dict(decode_holder(pair.key, pair.value) for pair in pairs if pair.key.startswith(self._keys.subnets)),
        )

    def _restless(self) -> ClaimError:
        return ClaimError(f"the claims of {self._keys.prefix} change faster than they can be read; try again")


def plan_on_empty(
    requests: Sequence[Request], pools: Sequence[Pool], *, reserved: Sequence[str] = (), now: float = 0.0
) -> Outcome:
    """What Registry.claim would do in a registry that holds nothing yet: nodes that are set up keep what they have."""
    requests = [replace(request, restore=True) for request in requests]
    shape, nothing = PoolConfig(tuple(pools), tuple(reserved)), Snapshot()
    searches = {pool.pod_cidr: nothing.search(pool) for pool in pools}
    planned = plan_claims(requests, shape, nothing, searches, now=now)
    return Outcome(planned, nothing, tuple(planned), True)


def _step_back(lost: int) -> None:
    time.sleep(random.uniform(0, min(_FIRST_PAUSE * 2**lost, _LONGEST_PAUSE)))


def _wanted_pool_config(snapshot: Snapshot, pools: Sequence[Pool], reserved: Sequence[str]) -> PoolConfig:
    if snapshot.shape is None:
        return PoolConfig(tuple(pools), tuple(reserved))
    if snapshot.shape.pools == tuple(pools):
        return snapshot.shape
    wanted = replace(snapshot.shape, pools=tuple(pools))
    check_pool_config(wanted, snapshot)
    return wanted


def _has(snapshot: Snapshot, node: str, pool: Pool) -> bool:
    return node in snapshot.claims and any(cidr in pool for cidr in snapshot.claims[node].cidrs)


def _blocks(pool: Pool) -> list[range]:
    size = max(pool.size // _BLOCKS, _SMALLEST_BLOCK)
    return [range(first, min(first + size, pool.size)) for first in range(0, pool.size, size)]


def _roomy(pool: Pool, counts: Sequence[int], snapshot: Snapshot, reserved: Sequence[str], needed: int) -> list[range]:
    """The first blocks that have this many subnets which were never used, for certain; all with room, if fewer have."""
    kept_out = reserved_places(pool, reserved)
    released = [pool.index(cidr) for cidr in snapshot.released if cidr in pool]
    chosen: list[range] = []
    found = 0
    for block, count in zip(_blocks(pool), counts, strict=True):
        room = len(block) - count - sum(place in block for place in released)
        blocked = [max(0, min(block.stop, out.stop) - max(block.start, out.start)) for out in kept_out]
        if found >= needed:
            break
        if room > 0 and len(block) not in blocked:
            chosen.append(block)
            found += max(0, room - sum(blocked))
    return chosen


def _batches(parts: Sequence[_Part], common: int) -> Iterator[list[_Part]]:
    """As many parts as a transaction takes, that has this many conditions in common."""
    batch: list[_Part] = []
    conditions, operations = common, 0
    for part in parts:
        conditions, operations = conditions + len(part.conditions), operations + len(part.operations)
        if batch and max(conditions, operations) > MAX_TXN_OPS:
            yield batch
            batch, conditions, operations = [], common + len(part.conditions), len(part.operations)
        batch.append(part)
    if batch:
        yield batch
