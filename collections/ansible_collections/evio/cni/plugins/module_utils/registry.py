# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The registry of node subnets in etcd: claims and releases, each as one transaction that a race cannot split.

What is claimed is planned by claims from one snapshot; the transaction holds only if nothing of that snapshot that
matters has changed, and a lost race is planned again from the snapshot that the failed transaction brought back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .claims import (
    QUARANTINE,
    Claim,
    ClaimError,
    Keys,
    Released,
    Request,
    Snapshot,
    decode_claim,
    decode_pool,
    decode_released,
    encode_claim,
    encode_pool,
    encode_released,
    encode_subnet,
    plan_claims,
    plan_pools,
)
from .etcd import MAX_TXN_OPS, Compare, Delete, Etcd, Get, Operation, Put, TxnResult
from .subnets import Pool

_MOST_TRIES = 64
"""Each lost race means that another client has claimed: progress, but not without end."""


@dataclass(frozen=True)
class Outcome:
    """What a call has done, or in check mode would do."""

    claims: dict[str, Claim]
    """The claims asked for, by node; those to be made have epoch 0 in check mode."""
    before: Snapshot
    changed: tuple[str, ...]
    """The nodes whose claim was written or removed."""
    pool_changed: bool = False


class Registry:
    """One cluster's claims, in the etcd it is given."""

    def __init__(self, etcd: Etcd, cluster: str, *, clock: Callable[[], float] = time.time) -> None:
        self._etcd = etcd
        self._keys = Keys(cluster)
        self._clock = clock

    def read(self) -> Snapshot:
        """All there is, in one call."""
        return self._decode(self._etcd.txn([], self._reads()))

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

        A node that has its subnets keeps them. Raises ClaimError, and writes nothing, if one of them cannot have any.
        """
        before = snapshot = self.read()
        changed: list[str] = []
        for _try in range(_MOST_TRIES):
            pool_changed = plan_pools(pools, snapshot)
            planned = plan_claims(
                requests, pools, snapshot, reserved=reserved, now=self._clock(), quarantine=quarantine
            )
            if dry_run or not (planned or pool_changed):
                return self._outcome(requests, before, snapshot, planned, changed, pools)
            batch = self._first_batch(list(planned.values()), len(pools))
            result = self._write(batch, pools, snapshot)
            snapshot = self._decode(result)
            if result.succeeded:
                changed += [claim.node for claim in batch]
        raise ClaimError(f"the claims of {self._keys.prefix} change faster than they can be read; try again")

    def release(self, nodes: Sequence[str], *, dry_run: bool = False) -> Outcome:
        """Take the claims of these nodes away; their subnets rest until the quarantine is over."""
        before = snapshot = self.read()
        changed: list[str] = []
        for _try in range(_MOST_TRIES):
            held = [snapshot.claims[node] for node in nodes if node in snapshot.claims]
            if dry_run:
                return Outcome({}, before, tuple(claim.node for claim in held))
            if not held:
                return Outcome({}, before, tuple(changed))
            batch = self._first_batch(held, 2)
            result = self._remove(batch, snapshot)
            snapshot = self._decode(result)
            if result.succeeded:
                changed += [claim.node for claim in batch]
        raise ClaimError(f"the claims of {self._keys.prefix} change faster than they can be read; try again")

    def _write(self, batch: Sequence[Claim], pools: Sequence[Pool], snapshot: Snapshot) -> TxnResult:
        compares = [self._unchanged(self._keys.pool, snapshot)]
        puts: list[Operation] = [Put(self._keys.pool, encode_pool(pools))] if snapshot.pools != tuple(pools) else []
        for claim in batch:
            compares.append(self._unchanged(self._keys.node(claim.node), snapshot))
            puts.append(Put(self._keys.node(claim.node), encode_claim(claim)))
            held = snapshot.claims.get(claim.node)
            for cidr in claim.cidrs:
                if held is None or cidr not in held.cidrs:
                    compares.append(self._unchanged(self._keys.subnet(cidr), snapshot))
                    puts.append(Put(self._keys.subnet(cidr), encode_subnet(cidr, claim)))
        return self._etcd.txn(compares, [*puts, *self._reads()], self._reads())

    def _remove(self, batch: Sequence[Claim], snapshot: Snapshot) -> TxnResult:
        compares: list[Compare] = []
        changes: list[Operation] = []
        now = self._clock()
        for claim in batch:
            compares.append(self._unchanged(self._keys.node(claim.node), snapshot))
            changes.append(Delete(self._keys.node(claim.node)))
            changes += [
                Put(self._keys.subnet(cidr), encode_released(cidr, Released(claim.node, now))) for cidr in claim.cidrs
            ]
        return self._etcd.txn(compares, [*changes, *self._reads()], self._reads())

    def _unchanged(self, key: str, snapshot: Snapshot) -> Compare:
        return Compare(key, snapshot.revisions.get(key, 0))

    def _reads(self) -> list[Operation]:
        return [Get(self._keys.pool), Get(self._keys.nodes, prefix=True), Get(self._keys.subnets, prefix=True)]

    def _decode(self, result: TxnResult) -> Snapshot:
        pool, nodes, subnets = result.ranges
        claims = {}
        for pair in nodes:
            name = pair.key.removeprefix(self._keys.nodes)
            claims[name] = decode_claim(name, pair.value, pair.mod_revision)
        released = {}
        for pair in subnets:
            cidr, release = decode_released(pair.key, pair.value)
            if release is not None:
                released[cidr] = release
        revisions = {pair.key: pair.mod_revision for pairs in result.ranges for pair in pairs}
        return Snapshot(decode_pool(pool[0].value) if pool else None, claims, released, revisions)

    @staticmethod
    def _first_batch(claims: Sequence[Claim], families: int) -> Sequence[Claim]:
        return claims[: (MAX_TXN_OPS - len(_RESERVED_OPS)) // (1 + families)]

    @staticmethod
    def _outcome(
        requests: Sequence[Request],
        before: Snapshot,
        snapshot: Snapshot,
        planned: dict[str, Claim],
        changed: Sequence[str],
        pools: Sequence[Pool],
    ) -> Outcome:
        claims = {request.node: planned.get(request.node) or snapshot.claims[request.node] for request in requests}
        return Outcome(claims, before, (*changed, *planned), before.pools != tuple(pools))


_RESERVED_OPS = ("pool", "read pool", "read nodes", "read subnets")
"""What a transaction holds besides the claims of its batch."""


def plan_on_empty(
    requests: Sequence[Request], pools: Sequence[Pool], *, reserved: Sequence[str] = (), now: float = 0.0
) -> Outcome:
    """What Registry.claim would do in a registry that holds nothing yet."""
    planned = plan_claims(requests, pools, Snapshot(), reserved=reserved, now=now)
    return Outcome({node: replace(claim, epoch=0) for node, claim in planned.items()}, Snapshot(), tuple(planned), True)
