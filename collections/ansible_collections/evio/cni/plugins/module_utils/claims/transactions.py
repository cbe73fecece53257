# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The conditions and operations by which claims, releases and pool configurations are written to etcd.

Pure. ``registry`` commits them. A condition fails if another client has changed what the plan was made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..etcd.client import MAX_TXN_OPS, Compare, Condition, Delete, Operation, Put, UnchangedSince
from .allocator import stale_releases
from .model import Claim, PoolConfig, Released, Snapshot
from .schema import Keys, encode_claim, encode_pool_config, encode_released, encode_subnet


@dataclass(frozen=True)
class Part:
    """A part of a transaction that is done as a whole or not at all."""

    conditions: tuple[Condition, ...]
    operations: tuple[Operation, ...]
    node: str = ""
    """The node whose claim it writes or removes; empty for a part that writes no claim."""
    writes_pool_config: bool = False


def claim_part(keys: Keys, claim: Claim, snapshot: Snapshot) -> Part:
    """Return the part that writes a claim: the node's claim is as in the snapshot, and no node has the new subnets."""
    key = keys.node(claim.node)
    conditions: list[Condition] = [Compare(key, snapshot.revisions.get(key, 0))]
    operations: list[Operation] = [Put(key, encode_claim(claim))]
    held = snapshot.claims.get(claim.node)
    for cidr in claim.cidrs:
        if held is None or cidr not in held.cidrs:
            conditions.append(Compare(keys.subnet(cidr), 0))
            operations.append(Put(keys.subnet(cidr), encode_subnet(cidr, claim)))
            if cidr in snapshot.released:
                operations.append(Delete(keys.release(cidr)))
    return Part(tuple(conditions), tuple(operations), claim.node)


def rename_part(keys: Keys, former: str, claim: Claim, snapshot: Snapshot) -> Part:
    """Return the part that moves the claim of ``former``, which is as in the snapshot, to ``claim.node``."""
    unchanged = Compare(keys.node(former), snapshot.revisions[keys.node(former)])
    operations: list[Operation] = [Delete(keys.node(former)), Put(keys.node(claim.node), encode_claim(claim))]
    operations += [Put(keys.subnet(cidr), encode_subnet(cidr, claim)) for cidr in claim.cidrs]
    return Part((unchanged, Compare(keys.node(claim.node), 0)), tuple(operations), claim.node)


def pins_part(keys: Keys, config: PoolConfig, snapshot: Snapshot) -> Part:
    """Return the part that writes a pool configuration which differs in its pins alone; the stored one is unchanged."""
    unchanged = Compare(keys.pool, snapshot.revisions[keys.pool])
    return Part((unchanged,), (Put(keys.pool, encode_pool_config(config)),), writes_pool_config=True)


def release_part(keys: Keys, claim: Claim, snapshot: Snapshot, now: float) -> Part:
    """Return the part that removes a claim which is as in the snapshot, and notes when its subnets were released."""
    key = keys.node(claim.node)
    operations: list[Operation] = [Delete(key)]
    for cidr in claim.cidrs:
        released = Put(keys.release(cidr), encode_released(cidr, Released(claim.node, now)))
        operations += [Delete(keys.subnet(cidr)), released]
    return Part((Compare(key, snapshot.revisions[key]),), tuple(operations), claim.node)


def moved_part(keys: Keys, claim: Claim, snapshot: Snapshot, now: float) -> Part:
    """Return the part that leaves a node the subnets of ``claim``, and notes when its other subnets were released."""
    key = keys.node(claim.node)
    operations: list[Operation] = [Put(key, encode_claim(claim))]
    for cidr in snapshot.claims[claim.node].cidrs:
        if cidr not in claim.cidrs:
            released = Put(keys.release(cidr), encode_released(cidr, Released(claim.node, now)))
            operations += [Delete(keys.subnet(cidr)), released]
    return Part((Compare(key, snapshot.revisions[key]),), tuple(operations), claim.node)


def restored_release_part(keys: Keys, cidr: str, released: Released) -> Part:
    """Return the part that notes an earlier release of a subnet which no node has, and of which no release is noted."""
    conditions = (Compare(keys.release(cidr), 0), Compare(keys.subnet(cidr), 0))
    return Part(conditions, (Put(keys.release(cidr), encode_released(cidr, released)),))


def pool_config_parts(keys: Keys, config: PoolConfig, snapshot: Snapshot) -> list[Part]:
    """Return the parts that write a pool configuration, as long as no claim was written since the snapshot.

    Released subnets that the new pools do not have are forgotten first.
    """
    stale = [Part((), (Delete(keys.release(cidr)),)) for cidr in stale_releases(config, snapshot)]
    no_new_claim = UnchangedSince(keys.nodes, snapshot.revision)
    put = Put(keys.pool, encode_pool_config(config))
    return [*stale, Part((no_new_claim,), (put,), writes_pool_config=True)]


def batches(parts: Sequence[Part], *, common: int) -> Iterator[list[Part]]:
    """Yield the parts in batches that fit into one transaction, which has ``common`` more conditions of its own."""
    batch: list[Part] = []
    conditions, operations = common, 0
    for part in parts:
        conditions, operations = conditions + len(part.conditions), operations + len(part.operations)
        if batch and max(conditions, operations) > MAX_TXN_OPS:
            yield batch
            batch, conditions, operations = [], common + len(part.conditions), len(part.operations)
        batch.append(part)
    if batch:
        yield batch
