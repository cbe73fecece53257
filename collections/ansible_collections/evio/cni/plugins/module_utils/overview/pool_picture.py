# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The picture of a pod network: the state of each node subnet, as squares in the order of their addresses. Pure.

Up to MOST_CELLS subnets are cells of a table with their owners; of more, the picture has a small square for each, and
the claimed ones are listed beside it. A square stands for several subnets where there are more than MOST_SQUARES.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..subnets import Pool, reserved_places
from .cluster import Cluster

MOST_CELLS = 1024
MOST_SQUARES = 65536

CLAIMED, QUARANTINED, PINNED, RESERVED, FREE = "claimed", "quarantined", "pinned", "reserved", "free"
"""States of a subnet. A square that stands for several has the first of these that one of them has."""

STATES = (CLAIMED, QUARANTINED, PINNED, RESERVED, FREE)


@dataclass(frozen=True)
class Cell:
    """A node subnet that is not free, or one of a small pool."""

    index: int
    cidr: str
    state: str
    owner: str = ""
    """The node that has it, has had it, or alone may get it."""
    reserved: int | None = None
    size: int | None = None
    """How many addresses pods have, and can have; None if the node does not tell it."""
    age: float | None = None
    """Seconds since it was claimed or released."""

    @property
    def fill(self) -> int:
        """How full it is, in steps from 0 to 10. A subnet with one pod is not empty."""
        if not self.size or self.reserved is None:
            return 0
        return min(10, math.ceil(10 * self.reserved / self.size))


@dataclass(frozen=True)
class Squares:
    """Runs of squares of the same state, for a picture of many subnets."""

    columns: int
    rows: int
    subnets_each: int
    """How many subnets one square stands for."""
    runs: Mapping[str, str]
    """SVG path data by state; FREE squares are left out."""


@dataclass(frozen=True)
class PoolPicture:
    """One pool."""

    pod_cidr: str
    node_bits: int
    counts: Mapping[str, int]
    """Numbers of subnets, as the module subnet_pool_info counts them: size, claimed, quarantined, reserved, free."""
    cells: tuple[Cell, ...]
    """All subnets of a small pool; else those that have or had an owner, in the order of their addresses."""
    squares: Squares | None
    """None for a small pool."""


def pool_pictures(cluster: Cluster) -> list[PoolPicture]:
    """Return a picture of each pool that etcd has."""
    registry = cluster.registry
    return [_picture(pool, registry, _rooms(cluster)) for pool in registry["pools"]] if registry is not None else []


def _rooms(cluster: Cluster) -> dict[str, tuple[int, int]]:
    """Return by subnet how many addresses are taken, and how many there are."""
    return {
        room["subnet"]: (room["reserved"], room["size"])
        for answer in cluster.answers
        for network in (answer.status or {}).get("networks") or ()
        for room in network["room"]
    }


def _picture(
    counts: Mapping[str, Any], registry: Mapping[str, Any], rooms: Mapping[str, tuple[int, int]]
) -> PoolPicture:
    pool = Pool(counts["pod_cidr"], counts["node_bits"])
    owned = {cell.index: cell for cell in _owned(pool, registry, rooms)}
    kept_out = reserved_places(pool, registry["reserved_cidrs"])
    if pool.size <= MOST_CELLS:
        places = {place for places in kept_out for place in places}
        cells = [
            owned.get(index) or Cell(index, pool.subnet(index).cidr, RESERVED if index in places else FREE)
            for index in range(pool.size)
        ]
        return PoolPicture(pool.pod_cidr, pool.node_bits, counts, tuple(cells), None)
    squares = _squares(pool, owned, kept_out)
    return PoolPicture(pool.pod_cidr, pool.node_bits, counts, tuple(owned[index] for index in sorted(owned)), squares)


def _owned(pool: Pool, registry: Mapping[str, Any], rooms: Mapping[str, tuple[int, int]]) -> Iterator[Cell]:
    """Yield the cells that have an owner; of several with the same index, the last one counts."""
    for node, cidrs in registry["pins"].items():
        for cidr in cidrs:
            if cidr in pool:
                yield Cell(pool.index(cidr), cidr, PINNED, node)
    for entry in registry["released"]:
        if entry["cidr"] in pool:
            state = QUARANTINED if entry["state"] == "quarantined" else FREE
            yield Cell(pool.index(entry["cidr"]), entry["cidr"], state, entry["node"], age=entry["age"])
    for claim in registry["claims"]:
        for cidr in claim["cidrs"]:
            if cidr in pool:
                reserved, size = rooms.get(cidr, (None, None))
                yield Cell(pool.index(cidr), cidr, CLAIMED, claim["node"], reserved, size, claim["age"])


def _squares(pool: Pool, owned: Mapping[int, Cell], kept_out: list[range]) -> Squares:
    each = max(1, pool.size // MOST_SQUARES)
    number = pool.size // each
    columns = 1 << math.ceil(math.log2(number) / 2)
    states = [FREE] * number
    for places in kept_out:
        for square in range(places.start // each, (places.stop - 1) // each + 1):
            states[square] = RESERVED
    for index, cell in owned.items():
        square = index // each
        states[square] = min(states[square], cell.state, key=STATES.index)
    runs: dict[str, list[str]] = {}
    start = 0
    while start < number:
        end, limit = start + 1, (start // columns + 1) * columns
        while end < min(limit, number) and states[end] == states[start]:
            end += 1
        if states[start] != FREE:
            row, column = divmod(start, columns)
            runs.setdefault(states[start], []).append(f"M{column} {row}h{end - start}v1h{start - end}z")
        start = end
    return Squares(columns, math.ceil(number / columns), each, {state: "".join(paths) for state, paths in runs.items()})
