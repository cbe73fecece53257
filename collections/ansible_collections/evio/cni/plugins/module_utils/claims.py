# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The claims on a pool's subnets: what is kept in etcd, under which keys, and who gets which subnet next.

Pure: it reads a snapshot and says what should be claimed; registry makes it so in etcd.

Below ``/evio/<cluster>/``: ``pool`` holds the pool, ``nodes/<name>`` a node's claim, ``subnets/<address>`` who has the
subnet or had it last. Addresses are padded with zeros, so that the order of keys is the order of subnets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

from .errors import EvioError
from .subnets import NodeSubnet, Pool, reserved_places

SCHEMA = 1
QUARANTINE = 3600.0
"""Seconds for which a released subnet is given to no other node."""

_NODE_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")


class ClaimError(EvioError):
    """The claim cannot be made; the message names node, subnet and owner."""


@dataclass(frozen=True)
class Keys:
    """The keys of one cluster."""

    cluster: str

    def __post_init__(self) -> None:
        if not _NODE_NAME.match(self.cluster):
            raise ClaimError(f"cluster {self.cluster!r} cannot be a key in etcd; use letters, digits, '-', '_' and '.'")

    @property
    def prefix(self) -> str:
        return f"/evio/{self.cluster}/"

    @property
    def pool(self) -> str:
        return self.prefix + "pool"

    @property
    def nodes(self) -> str:
        return self.prefix + "nodes/"

    @property
    def subnets(self) -> str:
        return self.prefix + "subnets/"

    def node(self, name: str) -> str:
        return self.nodes + name

    def subnet(self, cidr: str) -> str:
        return self.subnets + padded(cidr)


def padded(cidr: str) -> str:
    """The network address with zeros in front: ``010.244.003.000``, or all 32 digits of an IPv6 address."""
    address = ip_network(cidr).network_address
    if address.version == 4:
        return ".".join(f"{octet:03d}" for octet in address.packed)
    return address.exploded


@dataclass(frozen=True)
class Request:
    """What is wanted for one node."""

    node: str
    machine_id: str
    pin: tuple[str, ...] = ()
    """Subnets that the node shall have and no others, at most one a family."""
    replaced: bool = False
    """The operator says that this machine has taken the place of the one that made the claim."""


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
class Snapshot:
    """All that is kept for a cluster at one revision."""

    pools: tuple[Pool, ...] | None = None
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """By node."""
    released: Mapping[str, Released] = field(default_factory=dict)
    """By subnet."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """The mod revision of every key there is."""

    def owners(self) -> dict[str, str]:
        """Who has each claimed subnet."""
        return {cidr: claim.node for claim in self.claims.values() for cidr in claim.cidrs}


def encode_pool(pools: Sequence[Pool]) -> str:
    return _dumps({"v": SCHEMA, "pools": [{"pod_cidr": pool.pod_cidr, "node_bits": pool.node_bits} for pool in pools]})


def encode_claim(claim: Claim) -> str:
    return _dumps({"machine_id": claim.machine_id, "cidrs": list(claim.cidrs), "claimed": claim.claimed})


def encode_subnet(cidr: str, claim: Claim) -> str:
    return _dumps({"cidr": cidr, "node": claim.node})


def encode_released(cidr: str, released: Released) -> str:
    return _dumps({"cidr": cidr, "node": released.node, "released": released.released})


def decode_pool(text: str) -> tuple[Pool, ...]:
    value = _loads("pool", text)
    if value.get("v") != SCHEMA:
        raise ClaimError(f"the registry has schema {value.get('v')!r}, this version knows {SCHEMA}; upgrade evio.cni")
    return tuple(Pool(str(pool["pod_cidr"]), int(pool["node_bits"])) for pool in value["pools"])


def decode_claim(node: str, text: str, epoch: int) -> Claim:
    value = _loads(f"nodes/{node}", text)
    return Claim(node, str(value["machine_id"]), tuple(value["cidrs"]), float(value["claimed"]), epoch)


def decode_released(key: str, text: str) -> tuple[str, Released | None]:
    """The subnet of a key, and its release where nobody has it."""
    value = _loads(key, text)
    if "released" not in value:
        return str(value["cidr"]), None
    return str(value["cidr"]), Released(str(value["node"]), float(value["released"]))


def plan_pools(wanted: Sequence[Pool], snapshot: Snapshot) -> bool:
    """Whether the pools must be written. Raises ClaimError if a live claim has no place in the wanted ones."""
    if snapshot.pools == tuple(wanted):
        return False
    misfits = [
        f"{claim.node} has {cidr}"
        for claim in snapshot.claims.values()
        for cidr in claim.cidrs
        if not any(cidr in pool for pool in wanted)
    ]
    if misfits:
        raise ClaimError(
            f"evio_pod_cidr and evio_node_bits say {describe(wanted)}, but claims were made from "
            f"{describe(snapshot.pools or ())} and {len(misfits)} would lose their place ({', '.join(misfits[:3])}); "
            "take a pool that holds them all, or release those nodes first"
        )
    return True


def plan_claims(
    requests: Sequence[Request],
    pools: Sequence[Pool],
    snapshot: Snapshot,
    *,
    reserved: Sequence[str] = (),
    now: float,
    quarantine: float = QUARANTINE,
) -> dict[str, Claim]:
    """The claims to write, by node: those of nodes that have all they want already are not among them.

    Lowest free subnet first; one that was released comes after those never used, once its quarantine is over, the
    longest released first. Raises ClaimError if any of the requests cannot be met: then none is.
    """
    taken = dict(snapshot.owners())
    _check_requests(requests, pools, snapshot, taken)
    pinned = {cidr: request.node for request in requests for cidr in request.pin}
    planned: dict[str, Claim] = {}
    for pool in pools:
        free = _free_subnets(pool, snapshot, {**taken, **pinned}, reserved, now, quarantine)
        for request in requests:
            held = planned.get(request.node) or snapshot.claims.get(request.node)
            if held is not None and any(cidr in pool for cidr in held.cidrs):
                continue
            cidr = next((pin for pin in request.pin if pin in pool), None) or next(free, None)
            if cidr is None:
                raise ClaimError(_exhausted(request.node, pool, taken, snapshot, now, quarantine))
            if held is None:
                held = Claim(request.node, request.machine_id, (), now)
            planned[request.node] = replace(held, cidrs=(*held.cidrs, cidr), claimed=now, epoch=0)
            taken[cidr] = request.node
    for request in requests:
        existing = snapshot.claims.get(request.node)
        if existing is not None and existing.machine_id != request.machine_id:
            planned[request.node] = replace(
                planned.get(request.node, existing), machine_id=request.machine_id, claimed=now, epoch=0
            )
    return planned


def describe(pools: Sequence[Pool]) -> str:
    """Pools in words: ``10.244.0.0/16 with 8 node bits``."""
    return " and ".join(f"{pool.pod_cidr} with {pool.node_bits} node bits" for pool in pools) or "no pool"


def table(claims: Iterable[Claim]) -> dict[str, str]:
    """Claims as a diff shows them: node to its subnets."""
    return {claim.node: ", ".join(claim.cidrs) for claim in sorted(claims, key=lambda claim: claim.node)}


def _check_requests(
    requests: Sequence[Request], pools: Sequence[Pool], snapshot: Snapshot, taken: Mapping[str, str]
) -> None:
    wanted: dict[str, str] = {}
    names = [request.node for request in requests]
    for request in requests:
        node = request.node
        if not _NODE_NAME.match(node):
            raise ClaimError(f"node name {node!r} cannot be a key in etcd; use letters, digits, '-', '_' and '.'")
        if names.count(node) > 1:
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
            pool = next((pool for pool in pools if pin in pool), None)
            if pool is None:
                raise ClaimError(f"node {node} is pinned to {pin}, which is no subnet of {describe(pools)}")
            owner = wanted.get(pin) or taken.get(pin)
            if owner not in (None, node):
                raise ClaimError(f"node {node} is pinned to {pin}, which {owner} has")
            other = next((cidr for cidr in (held.cidrs if held else ()) if cidr in pool and cidr != pin), None)
            if other is not None:
                raise ClaimError(f"node {node} is pinned to {pin} but has {other}; release it first")
            wanted[pin] = node


def _free_subnets(
    pool: Pool,
    snapshot: Snapshot,
    taken: Mapping[str, str],
    reserved: Sequence[str],
    now: float,
    quarantine: float,
) -> Iterator[str]:
    """Those that may be given out, the next one first; an iterator, the pool may be large."""
    kept_out = reserved_places(pool, reserved)
    rested = sorted(
        (released.released, cidr)
        for cidr, released in snapshot.released.items()
        if cidr in pool and cidr not in taken and now - released.released >= quarantine
    )

    def candidates() -> Iterator[str]:
        for place in range(pool.size):
            cidr = pool.subnet(place).cidr
            if cidr in taken or cidr in snapshot.released or any(place in places for places in kept_out):
                continue
            yield cidr
        for _released, cidr in rested:
            if not any(pool.index(cidr) in places for places in kept_out):
                yield cidr

    return candidates()


def _exhausted(
    node: str, pool: Pool, taken: Mapping[str, str], snapshot: Snapshot, now: float, quarantine: float
) -> str:
    resting = [
        released.released + quarantine - now
        for cidr, released in snapshot.released.items()
        if cidr in pool and cidr not in taken and now - released.released < quarantine
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


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _loads(key: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ClaimError(f"the registry's key {key} holds no JSON: {text[:60]!r}") from error
    if not isinstance(value, dict):
        raise ClaimError(f"the registry's key {key} holds no object: {text[:60]!r}")
    return value


def subnets_of(claim: Claim) -> tuple[NodeSubnet, ...]:
    """The claim's subnets as the other rooms take them."""
    return tuple(NodeSubnet(cidr) for cidr in claim.cidrs)
