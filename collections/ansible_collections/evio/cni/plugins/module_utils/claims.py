# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The claims on a pool's subnets: what is kept in etcd, under which keys, and who gets which subnet next.

Pure: it reads a snapshot and says what should be claimed; registry makes it so in etcd.

Below ``/evio/<cluster>/``: ``pool`` holds the pool's shape, ``nodes/<name>`` a node's claim, ``subnets/<address>`` who
has the subnet, ``released/<address>`` who had it last where nobody has. Addresses are padded with zeros, so that the
order of keys is the order of subnets, and a range of keys is a range of subnets.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from .errors import EvioError
from .paths import CONFLIST_NAME
from .subnets import NodeSubnet, Pool, overlaps, reserved_places

SCHEMA = 1
QUARANTINE = 3600.0
"""Seconds for which a released subnet is given to no other node."""

_NODE_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")


class ClaimError(EvioError):
    """The claim cannot be made; the message names node, subnet and owner."""


class LostClaimError(ClaimError):
    """Nodes are set up with claims that etcd does not have; ``lost`` says for each of them why not."""

    def __init__(self, message: str, lost: Mapping[str, str]) -> None:
        super().__init__(message)
        self.lost = dict(lost)


class ExhaustedError(ClaimError):
    """None of the places that were searched is free."""


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

    @property
    def released(self) -> str:
        return self.prefix + "released/"

    def node(self, name: str) -> str:
        return self.nodes + name

    def subnet(self, cidr: str) -> str:
        return self.subnets + padded(ip_network(cidr).network_address)

    def release(self, cidr: str) -> str:
        return self.released + padded(ip_network(cidr).network_address)

    def places(self, pool: Pool, places: range) -> tuple[str, str]:
        """The first key of these places of a pool, and the first one behind them."""
        first = int(pool.network.network_address)
        shift = pool.network.max_prefixlen - pool.prefix_length
        address = type(pool.network.network_address)
        # "~" sorts behind every digit: the last place of an address family has no address behind it.
        last = padded(address(first + (places.stop << shift) - 1))
        return self.subnets + padded(address(first + (places.start << shift))), f"{self.subnets}{last}~"

    def place(self, pool: Pool, key: str) -> int:
        """The place of a subnet's key."""
        digits = key.removeprefix(self.subnets)
        number = 0
        if pool.family == 4:
            for octet in digits.split("."):
                number = number << 8 | int(octet)
        else:
            number = int(digits.replace(":", ""), 16)
        return (number - int(pool.network.network_address)) >> (pool.network.max_prefixlen - pool.prefix_length)


def padded(address: IPv4Address | IPv6Address) -> str:
    """The address with zeros in front: ``010.244.003.000``, or all 32 digits of an IPv6 address."""
    if address.version == 4:
        return ".".join(f"{octet:03d}" for octet in address.packed)
    return address.exploded


@dataclass(frozen=True)
class Shape:
    """What the registry is told about the pod network, the same for all nodes."""

    pools: tuple[Pool, ...]
    reserved: tuple[str, ...] = ()
    """Networks that no node is given."""
    pins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By node: the subnets that are kept for it."""


@dataclass(frozen=True)
class Configured:
    """The claim that a node is set up with: its pods have addresses of these subnets."""

    cidrs: tuple[str, ...]
    epoch: int
    """0 for a node that was set up without a registry."""


@dataclass(frozen=True)
class Request:
    """What is wanted for one node."""

    node: str
    machine_id: str
    pin: tuple[str, ...] = ()
    """Subnets that the node shall have and no others, at most one a family."""
    replaced: bool = False
    """The operator says that this machine has taken the place of the one that made the claim."""
    configured: Configured | None = None
    """What the node is set up with: a claim that etcd does not have is refused, not silently made anew."""
    restore: bool = False
    """The operator says that the node shall claim again what it is set up with: etcd has lost it."""

    def pins(self) -> tuple[str, ...]:
        """Its pins, and what it is set up with where that is to be restored."""
        restored = self.configured.cidrs if self.restore and self.configured else ()
        return tuple(dict.fromkeys((*self.pin, *restored)))


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
class Search:
    """Where a pool is searched for free subnets: places, and which of them are claimed."""

    places: tuple[range, ...]
    occupied: frozenset[int]


@dataclass(frozen=True)
class Snapshot:
    """What is kept for a cluster, wholly or as far as it was looked at."""

    shape: Shape | None = None
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """By node."""
    released: Mapping[str, Released] = field(default_factory=dict)
    """By subnet; always wholly."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """The mod revision of the keys of shape and claims."""
    revision: int = 0
    """etcd's when it was read."""
    holders: Mapping[str, str] = field(default_factory=dict)
    """Who has a subnet, for those that were asked about by themselves."""

    def owners(self) -> dict[str, str]:
        """Who has each claimed subnet that is known of."""
        return {**self.holders, **{cidr: claim.node for claim in self.claims.values() for cidr in claim.cidrs}}

    def search(self, pool: Pool) -> Search:
        """The whole pool, for a snapshot that has every claim."""
        occupied = frozenset(pool.index(cidr) for cidr in self.owners() if cidr in pool)
        return Search((range(pool.size),), occupied)


def encode_shape(shape: Shape) -> str:
    return _dumps(
        {
            "v": SCHEMA,
            "pools": [{"pod_cidr": pool.pod_cidr, "node_bits": pool.node_bits} for pool in shape.pools],
            "reserved": list(shape.reserved),
            "pins": {node: list(cidrs) for node, cidrs in shape.pins.items()},
        }
    )


def encode_claim(claim: Claim) -> str:
    return _dumps({"machine_id": claim.machine_id, "cidrs": list(claim.cidrs), "claimed": claim.claimed})


def encode_subnet(cidr: str, claim: Claim) -> str:
    return _dumps({"cidr": cidr, "node": claim.node})


def encode_released(cidr: str, released: Released) -> str:
    return _dumps({"cidr": cidr, "node": released.node, "released": released.released})


def decode_shape(text: str) -> Shape:
    value = _loads("pool", text)
    if value.get("v") != SCHEMA:
        raise ClaimError(f"the registry has schema {value.get('v')!r}, this version knows {SCHEMA}; upgrade evio.cni")
    return Shape(
        tuple(Pool(str(pool["pod_cidr"]), int(pool["node_bits"])) for pool in value["pools"]),
        tuple(value.get("reserved", ())),
        {node: tuple(cidrs) for node, cidrs in value.get("pins", {}).items()},
    )


def decode_claim(node: str, text: str, epoch: int) -> Claim:
    value = _loads(f"nodes/{node}", text)
    return Claim(node, str(value["machine_id"]), tuple(value["cidrs"]), float(value["claimed"]), epoch)


def decode_released(key: str, text: str) -> tuple[str, Released]:
    value = _loads(key, text)
    return str(value["cidr"]), Released(str(value["node"]), float(value["released"]))


def decode_holder(key: str, text: str) -> tuple[str, str]:
    """A subnet, and the node that has it."""
    value = _loads(key, text)
    return str(value["cidr"]), str(value["node"])


def check_shape(wanted: Shape, snapshot: Snapshot) -> None:
    """Raise ClaimError if a live claim has no place in the wanted shape; the snapshot has every claim."""
    held = [(claim.node, cidr) for claim in snapshot.claims.values() for cidr in claim.cidrs]
    misfits = [f"{node} has {cidr}" for node, cidr in held if not any(cidr in pool for pool in wanted.pools)]
    if misfits:
        raise ClaimError(
            f"evio_pod_cidr and evio_node_bits say {describe(wanted.pools)}, but claims were made from "
            f"{describe(snapshot.shape.pools if snapshot.shape else ())} and {len(misfits)} would lose their place "
            f"({', '.join(misfits[:3])}); take a pool that holds them all, or release those nodes first"
        )


def stale_releases(wanted: Shape, snapshot: Snapshot) -> list[str]:
    """Released subnets of another size than the wanted shape cuts: nobody has one of them, they may be forgotten."""
    lengths = {pool.family: pool.prefix_length for pool in wanted.pools}
    networks = ((cidr, ip_network(cidr)) for cidr in snapshot.released)
    return [cidr for cidr, one in networks if lengths.get(one.version, one.prefixlen) != one.prefixlen]


def plan_claims(
    requests: Sequence[Request],
    shape: Shape,
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


def why_lost(configured: Configured, claim: Claim | None, revision: int) -> str | None:
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


def lost_claims(configured: Mapping[str, Configured], snapshot: Snapshot) -> dict[str, str]:
    """By node, those whose claim does not hold any more, and why not."""
    reasons = {
        node: why_lost(claim, snapshot.claims.get(node), snapshot.revision) for node, claim in configured.items()
    }
    return {node: reason for node, reason in reasons.items() if reason is not None}


def describe(pools: Sequence[Pool]) -> str:
    """Pools in words: ``10.244.0.0/16 with 8 node bits``."""
    return " and ".join(f"{pool.pod_cidr} with {pool.node_bits} node bits" for pool in pools) or "no pool"


def table(claims: Iterable[Claim]) -> dict[str, str]:
    """Claims as a diff shows them: node to its subnets."""
    return {claim.node: ", ".join(claim.cidrs) for claim in sorted(claims, key=lambda claim: claim.node)}


def _check_requests(requests: Sequence[Request], shape: Shape, snapshot: Snapshot, taken: Mapping[str, str]) -> None:
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
