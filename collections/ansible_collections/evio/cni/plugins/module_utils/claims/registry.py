# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The registry of node subnets in etcd: claim, release and reshape, safe against clients that do the same.

Each call reads a snapshot, plans (``allocator``, ``reshape``), and commits the plan on condition that nothing it was
made from has changed (``transactions``). If another client was faster, it reads and plans again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..defaults import QUARANTINE
from ..etcd.client import Compare, Etcd, Get, TxnResult, UnchangedSince
from ..subnets import Pool
from .allocator import check_pool_config, lost_claims, needed_former, plan_claims, plan_renames
from .backup import Backup, LiveNode, RestorePlan, backup_of, plan_restore
from .blocks import blocks_of, blocks_with_room
from .model import Claim, ClaimError, ExhaustedError, LocalClaim, PoolConfig, Request, Search, Snapshot
from .reshape import Changes, PoolPlan, plan_changes
from .schema import Keys, decode_claim, decode_holder, decode_pool_config, decode_released
from .transactions import (
    Part,
    batches,
    claim_part,
    moved_part,
    pins_part,
    pool_config_parts,
    release_part,
    rename_part,
    restored_release_part,
)
from .upstream import UPSTREAM_PREFIX, parse_upstream_keys

_MOST_TRIES = 64
"""Each failed commit means that another client has changed something, but the tries must end some time."""

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.25
"""Seconds. All clients want the lowest free subnet: after a failed commit a client waits for a random time, up to a
limit that begins with the first pause and doubles up to the longest."""

_MOST_SINGLE_KEYS = 48
"""Nodes and pins that are looked up one by one. For more, reading all claims at once is less work."""


@dataclass(frozen=True)
class Outcome:
    """What a claim or release has done, or would do in a dry run."""

    claims: dict[str, Claim]
    """The claims of the requested nodes, by node; in a dry run, new claims have the epoch 0."""
    before: Snapshot
    """The state before: the pool configuration, and the claims of the requested nodes."""
    changed: tuple[str, ...]
    """The nodes whose claim was written or removed."""
    pool_changed: bool = False
    former: tuple[Pool, ...] = ()
    """The pools of which nodes still have subnets that they move away from."""


@dataclass(frozen=True)
class PoolOutcome:
    """What a change of the pool has done, or would do in a dry run."""

    before: Snapshot
    plan: PoolPlan
    released: tuple[str, ...]
    """The nodes whose claim was removed."""
    adopted: tuple[str, ...]
    """The nodes that were given one of upstream's subnets."""
    moved: tuple[str, ...]
    """The nodes whose subnets of former pools were released."""
    changed: bool


@dataclass(frozen=True)
class RestoreOutcome:
    """What a restore has done, or would do in a dry run."""

    before: Snapshot
    plan: RestorePlan
    """What was written."""
    after: Snapshot
    """The registry after it. In a dry run, restored claims have the epoch that the backup has."""


class Registry:
    """The claims of one cluster."""

    def __init__(self, etcd: Etcd, cluster: str, *, clock: Callable[[], float] = time.time) -> None:
        """Raises ClaimError for a cluster name that cannot be part of a key."""
        self._etcd = etcd
        self._keys = Keys(cluster)
        self._clock = clock

    def read(self) -> Snapshot:
        """Return everything the registry holds, read in one call."""
        return self._decode(self._etcd.txn([], self._gets_of_everything()))

    def read_if_changed(self, revision: int) -> Snapshot | None:
        """Return everything the registry holds; None if nothing was written since this revision of etcd.

        An etcd whose data were restored has an earlier revision: everything is returned then.
        """
        unchanged = UnchangedSince(self._keys.prefix, revision)
        result = self._etcd.txn([unchanged], [], self._gets_of_everything())
        if not result.succeeded:
            return self._decode(result)
        return None if result.revision >= revision else self.read()

    def lost(self, configured: Mapping[str, LocalClaim]) -> dict[str, str]:
        """Return the nodes whose claim does not hold any more, each with the reason. Writes nothing.

        ``configured`` has the claim that each node is set up with.
        """
        return lost_claims(configured, self._look_up(list(configured)))

    def claims_of(self, nodes: Sequence[str]) -> dict[str, Claim]:
        """Return the claims of those of these nodes that have one. Writes nothing."""
        claims = self._look_up(nodes).claims if nodes else {}
        return {node: claims[node] for node in nodes if node in claims}

    def claim(
        self,
        requests: Sequence[Request],
        pools: Sequence[Pool],
        *,
        reserved: Sequence[str] = (),
        quarantine: float = QUARANTINE,
        dry_run: bool = False,
    ) -> Outcome:
        """Claim a subnet of each pool for each node; a node keeps the subnets that it has.

        One transaction claims for as many nodes as etcd takes at once: 62 with one family. No node gets a subnet of
        the networks in ``reserved``, or of the reserved networks in the registry. A call that creates the pool stores
        ``reserved`` there. A node that was renamed takes over the claim of its former name. Raises ClaimError, and
        writes nothing, if one of the nodes cannot get its subnets.
        """
        before: Snapshot | None = None
        done: dict[str, Claim] = {}
        is_whole = False
        pins = [cidr for request in requests for cidr in request.pins()]
        names = [request.node for request in requests] + [one.renamed_from for one in requests if one.renamed_from]
        renamed: list[str] = []
        for failures in range(_MOST_TRIES):
            snapshot = self._look_up(names, pins, pools)
            before = before or snapshot
            moves = plan_renames(requests, snapshot)
            if moves and not dry_run:
                renamed += self._rename(moves, snapshot)
                continue
            if moves:
                renamed = [claim.node for claim in moves.values()]
                snapshot = _with_renames(snapshot, moves)
            config = _wanted_pool_config(snapshot, pools, reserved)
            effective = replace(config, reserved=tuple(dict.fromkeys((*config.reserved, *reserved))))
            searches = self._search(requests, effective, snapshot, whole=is_whole)
            try:
                planned = plan_claims(requests, effective, snapshot, searches, now=self._clock(), quarantine=quarantine)
            except ExhaustedError:
                if is_whole:
                    raise
                # Other clients may have filled a block between its counting and its reading: read the whole pool.
                is_whole = True
                continue
            is_complete = True
            if not dry_run:
                planned, is_complete = self._write(planned.values(), config, snapshot)
            done.update(planned)
            if is_complete:
                claims = {request.node: done.get(request.node) or snapshot.claims[request.node] for request in requests}
                changed = tuple(dict.fromkeys((*renamed, *done)))
                return Outcome(claims, before, changed, before.pool_config != config, config.former)
            _pause(failures)
        raise self._too_many_tries()

    def release(self, nodes: Sequence[str], *, dry_run: bool = False) -> Outcome:
        """Remove the claims of these nodes. Their subnets rest until their quarantine is over."""
        before: Snapshot | None = None
        done: list[str] = []
        for failures in range(_MOST_TRIES):
            snapshot = self._look_up(nodes)
            before = before or snapshot
            held = [snapshot.claims[node] for node in nodes if node in snapshot.claims]
            removed, is_complete = ([claim.node for claim in held], True) if dry_run else self._remove(held, snapshot)
            done += removed
            if is_complete:
                return Outcome({}, before, tuple(done))
            _pause(failures)
        raise self._too_many_tries()

    def reshape(self, changes: Changes, *, dry_run: bool = False) -> PoolOutcome:
        """Change the pool: its networks, reserved ranges and pins; release dead nodes and the former subnets of moved
        nodes; adopt upstream's subnets.

        Raises ClaimError, and writes nothing, if a change would break a claim.
        """
        before: Snapshot | None = None
        released: list[str] = []
        moved: list[str] = []
        for failures in range(_MOST_TRIES):
            snapshot, upstream = self._read_with_upstream() if changes.adopt else (self.read(), {})
            before = before or snapshot
            plan = plan_changes(changes, snapshot, upstream, now=self._clock())
            if dry_run:
                gone, stay = ([claim.node for claim in claims] for claims in (plan.released, plan.moved))
                return _pool_outcome(before, plan, gone, list(plan.adopted), stay)
            if plan.released or plan.moved:
                released += self._remove(plan.released, snapshot)[0]
                moved += self._move(plan.moved, snapshot)
                continue
            written, is_complete = self._write(plan.adopted.values(), plan.pool_config, snapshot)
            if is_complete:
                return _pool_outcome(before, plan, released, list(written), moved)
            _pause(failures)
        raise self._too_many_tries()

    def backup(self) -> Backup:
        """Return all that the registry holds. Raises ClaimError if it is empty."""
        return backup_of(self._keys.cluster, self.read(), self._clock())

    def restore(self, backup: Backup, nodes: Sequence[LiveNode], *, dry_run: bool = False) -> RestoreOutcome:
        """Write what the backup holds and the registry does not; what the registry holds besides stays.

        One transaction writes it all if it fits into one: 63 claims with one family. If a restore of more is cut off,
        the next one writes the rest. Raises ClaimError, and writes nothing, if the registry or one of the nodes
        contradicts the backup.
        """
        before: Snapshot | None = None
        first_plan: RestorePlan | None = None
        for failures in range(_MOST_TRIES):
            snapshot = self.read()
            plan = plan_restore(backup, self._keys.cluster, snapshot, nodes)
            before, first_plan = before or snapshot, first_plan or plan
            if dry_run:
                restored = {claim.node: claim for claim in plan.claims}
                after = replace(snapshot, pool_config=plan.pool_config, claims={**snapshot.claims, **restored})
                return RestoreOutcome(before, first_plan, after)
            if plan.is_empty(snapshot):
                return RestoreOutcome(before, first_plan, snapshot)
            if not self._write_back(plan, snapshot):
                _pause(failures)
        raise self._too_many_tries()

    def _write_back(self, plan: RestorePlan, snapshot: Snapshot) -> bool:
        """Write a plan, on condition that nobody else writes. Return whether all was written."""
        parts = [claim_part(self._keys, claim, snapshot) for claim in plan.claims]
        parts += [restored_release_part(self._keys, cidr, entry) for cidr, entry in plan.released.items()]
        if snapshot.pool_config is None:
            parts = [*pool_config_parts(self._keys, plan.pool_config, snapshot), *parts]
        unchanged = UnchangedSince(self._keys.prefix, snapshot.revision)
        for batch in batches(parts, common=1):
            result = self._commit(batch, unchanged)
            if not result.succeeded:
                return False
            unchanged = UnchangedSince(self._keys.prefix, result.revision)
        return True

    def _look_up(self, nodes: Sequence[str], pins: Sequence[str] = (), pools: Sequence[Pool] | None = None) -> Snapshot:
        """Read the claims of these nodes and the owners of these subnets; all claims if they are many.

        All claims are read too if ``pools`` differ from those in etcd: each claim must have a place in the new ones.
        """
        if len(nodes) + len(pins) > _MOST_SINGLE_KEYS:
            return self.read()
        held = [Get(self._keys.node(node)) for node in nodes] + [Get(self._keys.subnet(cidr)) for cidr in pins]
        snapshot = self._decode(self._etcd.txn([], [*self._gets_of_pool(), *held]))
        if pools is not None and snapshot.pool_config is not None and snapshot.pool_config.pools != tuple(pools):
            return self.read()
        return snapshot

    def _read_with_upstream(self) -> tuple[Snapshot, dict[str, str]]:
        """Read everything, and upstream's keys by their subnets."""
        result = self._etcd.txn([], [*self._gets_of_everything(), Get(UPSTREAM_PREFIX, prefix=True)])
        return self._decode(result), parse_upstream_keys({pair.key for pair in result.ranges[-1]})

    def _gets_of_pool(self) -> list[Get]:
        return [Get(self._keys.pool), Get(self._keys.released, prefix=True)]

    def _gets_of_everything(self) -> list[Get]:
        return [*self._gets_of_pool(), Get(self._keys.nodes, prefix=True)]

    def _decode(self, result: TxnResult) -> Snapshot:
        pairs = [pair for pairs in result.ranges for pair in pairs]
        config = next((decode_pool_config(pair.value) for pair in pairs if pair.key == self._keys.pool), None)
        nodes = {
            pair.key.removeprefix(self._keys.nodes): pair for pair in pairs if pair.key.startswith(self._keys.nodes)
        }
        return Snapshot(
            config,
            {name: decode_claim(name, pair.value, pair.mod_revision) for name, pair in nodes.items()},
            dict(decode_released(pair.key, pair.value) for pair in pairs if pair.key.startswith(self._keys.released)),
            {pair.key: pair.mod_revision for pair in pairs},
            result.revision,
            dict(decode_holder(pair.key, pair.value) for pair in pairs if pair.key.startswith(self._keys.subnets)),
            result.cluster_id,
        )

    def _search(
        self, requests: Sequence[Request], config: PoolConfig, snapshot: Snapshot, *, whole: bool
    ) -> dict[str, Search]:
        """Read where these nodes can find free subnets, by pod_cidr: whole pools, or the blocks that have room."""
        needed = {pool: sum(not _has(snapshot, request.node, pool) for request in requests) for pool in config.pools}
        searched = [pool for pool in config.pools if needed[pool]]
        chosen: dict[Pool, list[range]] = {pool: [] for pool in config.pools}
        if whole:
            chosen.update((pool, blocks_of(pool)) for pool in searched)
        else:
            counts = self._count(searched)
            chosen.update(
                (pool, blocks_with_room(pool, counts[pool], snapshot, config.reserved, needed[pool]))
                for pool in searched
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
        """Return how many claims each block has. A pool of a single block is not counted: it is read anyway."""
        gets = [
            Get(start, end=end, count_only=True)
            for pool in pools
            if len(blocks_of(pool)) > 1
            for start, end in (self._keys.places(pool, block) for block in blocks_of(pool))
        ]
        counts = iter(self._etcd.txn([], gets).counts if gets else ())
        return {
            pool: [next(counts) for _block in blocks] if len(blocks) > 1 else [0]
            for pool, blocks in ((pool, blocks_of(pool)) for pool in pools)
        }

    def _write(self, claims: Iterable[Claim], config: PoolConfig, snapshot: Snapshot) -> tuple[dict[str, Claim], bool]:
        """Write claims, and the pool configuration if it differs. Return what was written, and whether that is all."""
        planned = {claim.node: claim for claim in claims}
        parts = [claim_part(self._keys, claim, snapshot) for claim in planned.values()]
        if config != snapshot.pool_config:
            parts = [*pool_config_parts(self._keys, config, snapshot), *parts]
        no_new_release = UnchangedSince(self._keys.released, snapshot.revision)
        same_pool = Compare(self._keys.pool, snapshot.revisions.get(self._keys.pool, 0))
        written: dict[str, Claim] = {}
        for batch in batches(parts, common=2):
            result = self._commit(batch, no_new_release, same_pool)
            if not result.succeeded:
                return written, False
            if any(part.writes_pool_config for part in batch):
                same_pool = Compare(self._keys.pool, result.revision)
            written.update(
                (part.node, replace(planned[part.node], epoch=result.revision)) for part in batch if part.node
            )
        return written, True

    def _rename(self, moves: Mapping[str, Claim], snapshot: Snapshot) -> list[str]:
        """Move claims and pins to other names, by the former name. Return the new names that were written."""
        written: list[str] = []
        parts = [rename_part(self._keys, former, claim, snapshot) for former, claim in moves.items()]
        config = _with_renamed_pins(snapshot.pool_config, moves)
        if config is not None and config != snapshot.pool_config:
            parts.insert(0, pins_part(self._keys, config, snapshot))
        for batch in batches(parts, common=0):
            if not self._commit(batch).succeeded:
                break
            written += [part.node for part in batch if part.node]
        return written

    def _remove(self, claims: Iterable[Claim], snapshot: Snapshot) -> tuple[list[str], bool]:
        """Release claims. Return the nodes whose claims were removed, and whether these are all."""
        now = self._clock()
        removed: list[str] = []
        for batch in batches([release_part(self._keys, claim, snapshot, now) for claim in claims], common=0):
            if not self._commit(batch).succeeded:
                return removed, False
            removed += [part.node for part in batch]
        return removed, True

    def _move(self, claims: Iterable[Claim], snapshot: Snapshot) -> list[str]:
        """Release the subnets that these claims no longer have. Return the nodes whose claims were written."""
        now = self._clock()
        written: list[str] = []
        for batch in batches([moved_part(self._keys, claim, snapshot, now) for claim in claims], common=0):
            if not self._commit(batch).succeeded:
                break
            written += [part.node for part in batch]
        return written

    def _commit(self, batch: Sequence[Part], *conditions: Compare | UnchangedSince) -> TxnResult:
        return self._etcd.txn(
            [*conditions, *(condition for part in batch for condition in part.conditions)],
            [operation for part in batch for operation in part.operations],
        )

    def _too_many_tries(self) -> ClaimError:
        return ClaimError(f"the claims of {self._keys.prefix} change faster than they can be read; try again")


def plan_on_empty(
    requests: Sequence[Request], pools: Sequence[Pool], *, reserved: Sequence[str] = (), now: float = 0.0
) -> Outcome:
    """Return what ``Registry.claim`` would do in an empty registry; nodes that are set up keep their subnets."""
    requests = [replace(request, restore=True) for request in requests]
    config, nothing = PoolConfig(tuple(pools), tuple(reserved)), Snapshot()
    searches = {pool.pod_cidr: nothing.search(pool) for pool in pools}
    planned = plan_claims(requests, config, nothing, searches, now=now)
    return Outcome(planned, nothing, tuple(planned), True)


def _with_renames(snapshot: Snapshot, moves: Mapping[str, Claim]) -> Snapshot:
    claims = {node: claim for node, claim in snapshot.claims.items() if node not in moves}
    return replace(
        snapshot,
        pool_config=_with_renamed_pins(snapshot.pool_config, moves),
        claims={**claims, **{claim.node: claim for claim in moves.values()}},
    )


def _with_renamed_pins(config: PoolConfig | None, moves: Mapping[str, Claim]) -> PoolConfig | None:
    """Return the pool configuration in which each pin of a former name is one of the new name."""
    if config is None:
        return None
    pins = {moves[node].node if node in moves else node: cidrs for node, cidrs in config.pins.items()}
    return replace(config, pins=pins)


def _wanted_pool_config(snapshot: Snapshot, pools: Sequence[Pool], reserved: Sequence[str]) -> PoolConfig:
    if snapshot.pool_config is None:
        return PoolConfig(tuple(pools), tuple(reserved))
    if snapshot.pool_config.pools == tuple(pools):
        return snapshot.pool_config
    former = needed_former(snapshot.pool_config.former, pools, snapshot.claims.values())
    wanted = replace(snapshot.pool_config, pools=tuple(pools), former=former)
    check_pool_config(wanted, snapshot)
    return wanted


def _pause(failures: int) -> None:
    time.sleep(random.uniform(0, min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE)))


def _pool_outcome(
    before: Snapshot, plan: PoolPlan, released: Sequence[str], adopted: Sequence[str], moved: Sequence[str]
) -> PoolOutcome:
    changed = bool(released or adopted or moved) or before.pool_config != plan.pool_config
    return PoolOutcome(before, plan, tuple(released), tuple(adopted), tuple(moved), changed)


def _has(snapshot: Snapshot, node: str, pool: Pool) -> bool:
    return node in snapshot.claims and any(cidr in pool for cidr in snapshot.claims[node].cidrs)
