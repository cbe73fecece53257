# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A backup of the registry as a JSON file, and the plan by which it is written back into etcd.

Pure. ``registry`` reads and writes etcd; the modules claims_backup and claims_restore have the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..names import is_node_name
from ..subnets import Pool, check_network, parse_pool, parse_pools
from .model import Claim, ClaimError, LocalClaim, PoolConfig, Released, Snapshot, describe
from .pins import refuse_two_pins_in_a_pool

KIND = "evio.cni backup of claims"
VERSION = 1
"""Of the file's format."""

LARGEST_FILE = 32 << 20
"""Bytes. 65 536 claims of nodes with names of 30 characters need 12 MiB."""

_ABOUT = "The node subnets of one cluster as etcd had them. The playbook restore.yml writes them back."
_LONGEST_MACHINE_ID = 128
_MOST_CONTRADICTIONS = 5
"""So many contradictions are named in an error."""


@dataclass(frozen=True)
class Backup:
    """What the registry of one cluster held at one moment."""

    cluster: str
    cluster_id: str
    """The id of the etcd cluster, 16 hexadecimal digits. An etcd that was set up again has another id."""
    revision: int
    """The revision at which the registry was last written."""
    taken: float
    """Seconds since 1970."""
    pool_config: PoolConfig
    claims: Mapping[str, Claim]
    """By the node's name."""
    released: Mapping[str, Released]
    """By subnet."""

    @property
    def file_name(self) -> str:
        """A name that another state of the registry never has."""
        return f"claims-{self.cluster}-{self.cluster_id}-{self.revision}.json"


@dataclass(frozen=True)
class LiveNode:
    """What a node itself says that it is."""

    node: str
    machine_id: str
    configured: LocalClaim | None = None
    """The claim that its pods have their addresses from."""


@dataclass(frozen=True)
class RestorePlan:
    """What has to be written so that the registry holds the backup."""

    pool_config: PoolConfig
    claims: tuple[Claim, ...]
    released: Mapping[str, Released]

    def is_empty(self, snapshot: Snapshot) -> bool:
        """Return whether the registry holds all of it already."""
        return snapshot.pool_config is not None and not self.claims and not self.released


def backup_of(cluster: str, snapshot: Snapshot, now: float) -> Backup:
    """Return the backup of a complete snapshot. Raises ClaimError if the registry is empty."""
    if snapshot.pool_config is None:
        raise ClaimError(
            f"etcd has no claims of the cluster {cluster!r}, so there is nothing to back up; if it has lost them, "
            "restore the last backup"
        )
    return Backup(
        cluster,
        f"{snapshot.cluster_id:016x}",
        max(snapshot.revisions.values()),
        now,
        snapshot.pool_config,
        snapshot.claims,
        snapshot.released,
    )


def encode_backup(backup: Backup) -> str:
    """Return the content of the file."""
    config = backup.pool_config
    value = {
        "kind": KIND,
        "about": _ABOUT,
        "version": VERSION,
        "cluster": backup.cluster,
        "etcd_cluster_id": backup.cluster_id,
        "revision": backup.revision,
        "taken": datetime.fromtimestamp(backup.taken, timezone.utc).isoformat(timespec="seconds"),
        "pool": {
            "pools": _encode_pools(config.pools),
            "reserved": list(config.reserved),
            "pins": {node: list(cidrs) for node, cidrs in sorted(config.pins.items())},
            **({"former": _encode_pools(config.former)} if config.former else {}),
        },
        "claims": [
            {
                "node": claim.node,
                "machine_id": claim.machine_id,
                "cidrs": list(claim.cidrs),
                "claimed": claim.claimed,
                "epoch": claim.epoch,
            }
            for _node, claim in sorted(backup.claims.items())
        ],
        "released": [
            {"cidr": cidr, "node": entry.node, "released": entry.released}
            for cidr, entry in sorted(backup.released.items())
        ],
    }
    return json.dumps(value, indent=1) + "\n"


def _encode_pools(pools: Iterable[Pool]) -> list[dict[str, Any]]:
    return [{"pod_cidr": pool.pod_cidr, "node_bits": pool.node_bits} for pool in pools]


def decode_backup(text: str) -> Backup:
    """Return the backup in a file. Raises ClaimError for whatever encode_backup would not have written."""
    if len(text) > LARGEST_FILE:
        raise ClaimError(f"the file is larger than {LARGEST_FILE >> 20} MiB, which no backup of claims is")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClaimError(f"the file is no JSON, or only a part of it: {error}") from None
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise ClaimError(f"the file is not of the kind {KIND!r}")
    if value.get("version") != VERSION:
        raise ClaimError(f"the file has version {value.get('version')!r}, this version of evio.cni knows {VERSION}")
    try:
        backup = _decode(value)
    except KeyError as error:
        raise ClaimError(f"the file is damaged: {error} is missing") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ClaimError(f"the file is damaged: {error}") from None
    _check(backup)
    return backup


def holds_the_same(one: Backup, other: Backup) -> bool:
    """Return whether both backups hold the same claims, whenever they were taken."""
    parts = [(each.cluster, each.cluster_id, each.pool_config, each.claims, each.released) for each in (one, other)]
    return parts[0] == parts[1]


def plan_restore(backup: Backup, cluster: str, snapshot: Snapshot, nodes: Sequence[LiveNode]) -> RestorePlan:
    """Return what has to be written. The snapshot must be complete.

    Raises ClaimError, which names the contradictions, if etcd or a live node knows something else than the backup.
    """
    if backup.cluster != cluster:
        raise ClaimError(f"the backup is of the cluster {backup.cluster!r}, not of {cluster!r}")
    contradictions = [*_contradictions_of_etcd(backup, snapshot), *_contradictions_of_nodes(backup, nodes)]
    if contradictions:
        more = len(contradictions) - _MOST_CONTRADICTIONS
        raise ClaimError(
            f"nothing was restored, because the backup is contradicted: "
            f"{'; '.join(contradictions[:_MOST_CONTRADICTIONS])}{f'; and {more} more' if more > 0 else ''}"
        )
    claims = tuple(claim for node, claim in sorted(backup.claims.items()) if node not in snapshot.claims)
    owners = snapshot.owners()
    released = {
        cidr: entry
        for cidr, entry in sorted(backup.released.items())
        if cidr not in snapshot.released and cidr not in owners
    }
    return RestorePlan(backup.pool_config, claims, released)


def _decode(value: Mapping[str, Any]) -> Backup:
    pool = value["pool"]
    pools = pool["pools"]
    if not pools:
        raise ClaimError("the file is damaged: it has no pool")
    config = PoolConfig(
        parse_pools(
            ",".join(_text(one["pod_cidr"]) for one in pools),
            ",".join(str(int(one["node_bits"])) for one in pools),
            names=("pod_cidr", "node_bits"),
        ),
        tuple(_texts(pool["reserved"])),
        {_text(node): tuple(_texts(cidrs)) for node, cidrs in pool["pins"].items()},
        tuple(
            parse_pool(_text(one["pod_cidr"]), int(one["node_bits"]), names=("pod_cidr", "node_bits"))
            for one in pool.get("former", ())
        ),
    )
    claims = [
        Claim(
            _text(one["node"]),
            _text(one["machine_id"]),
            tuple(_texts(one["cidrs"])),
            _time(one["claimed"]),
            int(one["epoch"]),
        )
        for one in value["claims"]
    ]
    released = [(_text(one["cidr"]), Released(_text(one["node"]), _time(one["released"]))) for one in value["released"]]
    _refuse_twice("node", [claim.node for claim in claims])
    _refuse_twice("subnet", [cidr for claim in claims for cidr in claim.cidrs] + [cidr for cidr, _entry in released])
    return Backup(
        _text(value["cluster"]),
        _text(value["etcd_cluster_id"]),
        int(value["revision"]),
        _time(datetime.fromisoformat(value["taken"]).timestamp()),
        config,
        {claim.node: claim for claim in claims},
        dict(released),
    )


def _check(backup: Backup) -> None:
    config = backup.pool_config
    names = [*backup.claims, *config.pins, *(entry.node for entry in backup.released.values())]
    for name in [backup.cluster, *names]:
        if not is_node_name(name):
            raise ClaimError(f"the file is damaged: {name[:60]!r} cannot be the name of a node or a cluster")
    if len(backup.cluster_id) != 16 or backup.cluster_id.strip("0123456789abcdef"):
        raise ClaimError(f"the file is damaged: etcd_cluster_id is {backup.cluster_id[:60]!r}, not 16 digits")
    for cidr in (*config.reserved, *backup.released):
        check_network("subnet in the file", cidr)
    owned = [(claim.node, claim.cidrs) for claim in backup.claims.values()]
    for node, cidrs in [*owned, *config.pins.items()]:
        for cidr in cidrs:
            if not config.has_or_had(cidr):
                raise ClaimError(f"the file is damaged: {node} has {cidr}, no subnet of {describe(config.pools)}")
        refuse_two_pins_in_a_pool(node, cidrs, config.pools)
    for claim in backup.claims.values():
        if not (claim.cidrs and claim.machine_id.isprintable() and 0 < len(claim.machine_id) <= _LONGEST_MACHINE_ID):
            raise ClaimError(f"the file is damaged: the claim of {claim.node} has no subnet, or no machine-id")


def _contradictions_of_etcd(backup: Backup, snapshot: Snapshot) -> Iterable[str]:
    found = snapshot.pool_config
    if found is not None and found != backup.pool_config:
        what = "reserved networks or pins" if found.pools == backup.pool_config.pools else describe(found.pools)
        yield f"etcd has another pool ({what}); the backup has {describe(backup.pool_config.pools)}"
    owners = snapshot.owners()
    for node, claim in sorted(backup.claims.items()):
        held = snapshot.claims.get(node)
        if held is not None and set(held.cidrs) != set(claim.cidrs):
            yield f"etcd has {', '.join(held.cidrs)} for {node}; the backup has {', '.join(claim.cidrs)}"
        elif held is not None and held.machine_id != claim.machine_id:
            yield f"{node} is the machine {held.machine_id} in etcd, and {claim.machine_id} in the backup"
        for cidr in claim.cidrs:
            if owners.get(cidr, node) != node:
                yield f"{owners[cidr]} has {cidr} in etcd; the backup has it for {node}"
            elif held is None and cidr in snapshot.released:
                yield f"{cidr} of {node} was released in etcd after the backup was taken"


def _contradictions_of_nodes(backup: Backup, nodes: Sequence[LiveNode]) -> Iterable[str]:
    owners = {cidr: claim.node for claim in backup.claims.values() for cidr in claim.cidrs}
    for live in nodes:
        claim = backup.claims.get(live.node)
        if claim is not None and claim.machine_id != live.machine_id:
            yield f"{live.node} is the machine {live.machine_id}; the backup has the machine {claim.machine_id} for it"
        for cidr in live.configured.cidrs if live.configured is not None else ():
            if owners.get(cidr, live.node) != live.node:
                yield f"{live.node} is set up with {cidr}; the backup has it for {owners[cidr]}"
            elif claim is not None and cidr not in claim.cidrs:
                yield f"{live.node} is set up with {cidr}; the backup has {', '.join(claim.cidrs)} for it"


def _refuse_twice(what: str, values: Sequence[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ClaimError(f"the file is damaged: it has the {what} {value[:60]!r} twice")
        seen.add(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ClaimError(f"the file is damaged: {str(value)[:60]!r} is no text")
    return value


def _texts(values: object) -> list[str]:
    if not isinstance(values, list):
        raise ClaimError(f"the file is damaged: {str(values)[:60]!r} is no list")
    return [_text(value) for value in values]


def _time(value: object) -> float:
    seconds = float(str(value))
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ClaimError(f"the file is damaged: {value!r} is no time")
    return seconds
