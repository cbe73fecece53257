# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Divide a pool into blocks: counting the claims of each tells where a large pool has room without reading all of it.

Pure. ``registry`` counts and reads, ``allocator`` takes free subnets from the blocks that were read.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..subnets import Pool, reserved_places
from .model import Snapshot

_BLOCKS = 32
"""The number of blocks of a large pool."""

_SMALLEST_BLOCK = 1024
"""Subnets. Reading this many keys is no more work for etcd than counting them."""


def blocks_of(pool: Pool) -> list[range]:
    """Return the blocks of a pool as ranges of indexes, in their order."""
    size = max(pool.size // _BLOCKS, _SMALLEST_BLOCK)
    return [range(first, min(first + size, pool.size)) for first in range(0, pool.size, size)]


def blocks_with_room(
    pool: Pool, counts: Sequence[int], snapshot: Snapshot, reserved: Sequence[str], needed: int
) -> list[range]:
    """Return the first blocks that surely have ``needed`` subnets which were never used, or else all with any room.

    ``counts`` has the number of claims in each block.
    """
    reserved_ranges = reserved_places(pool, reserved)
    released = [pool.index(cidr) for cidr in snapshot.released if cidr in pool]
    chosen: list[range] = []
    found = 0
    for block, count in zip(blocks_of(pool), counts, strict=True):
        if found >= needed:
            break
        room = len(block) - count - sum(place in block for place in released)
        blocked = [max(0, min(block.stop, out.stop) - max(block.start, out.start)) for out in reserved_ranges]
        if room > 0 and len(block) not in blocked:
            chosen.append(block)
            found += max(0, room - sum(blocked))
    return chosen
