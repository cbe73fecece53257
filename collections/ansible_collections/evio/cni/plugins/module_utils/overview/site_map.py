# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The picture of sites, nodes and ways: where each stands. Pure; the page's template draws it as SVG.

Public sites stand in the first rows, sites behind NATs below. Each node is a chip in the box of its site; a way is a
curve between two chips, by a relay's chip if it leads through a relay. Lengths are in CSS pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..node.model import IDLE
from .cluster import PUBLIC, Cluster, Site, Way
from .words import shortened

WIDE, NARROW = 1040, 325
"""Widths of the two pictures: for desks and for phones."""

_CHARACTER = 7.3
"""Width of a letter of 12.5 pixels."""
_LONGEST_NAME = 20
_CHIP_HEIGHT, _CHIP_GAP = 26, 8
_DOT = 13
"""From a chip's left edge to the middle of its dot."""
_PADDING, _HEADER = 12, 30
_SITE_GAP, _BAND_GAP = 22, 64
_BEND, _RELAYED_BEND = 0.16, 0.3
"""How far a curve is from the straight line in its middle, as parts of twice its length; by a relay more: a direct way
between the same nodes stays visible."""
_MOST_BEND = 90.0
_FEW_NODES = 12

_MOST_IDLE = 60
"""Idle ways that are drawn; more would hide the others."""

MANY_WAYS = 60
"""With more ways than these, the picture is drawn in thinner lines, and a way by a relay leads past it."""

CROWDED_WAYS = 400
"""With more ways than these, the lines are faint: a way is seen when its node is pointed at."""

_LABEL_CHARACTER = 6.7
"""Width of a letter of a site's name."""
_WIDEST_GAP = 150
"""Between the boxes of a row that has room."""


@dataclass(frozen=True)
class Chip:
    """A node."""

    node: str
    label: str
    """Its name, shortened."""
    state: str
    is_relay: bool
    x: float
    y: float
    width: float
    height: float = _CHIP_HEIGHT

    @property
    def dot(self) -> tuple[float, float]:
        """The middle of its dot, at which ways end."""
        return self.x + _DOT, self.y + self.height / 2


@dataclass(frozen=True)
class Box:
    """A site."""

    site: Site
    label: str
    x: float
    y: float
    width: float
    height: float

    @property
    def is_label_below(self) -> bool:
        """Whether the label stands below the nodes: ways to the public sites would cross it above them."""
        return self.site.kind != PUBLIC

    @property
    def label_y(self) -> float:
        """The baseline of the label."""
        return self.y + (self.height - 11 if self.is_label_below else 20)


@dataclass(frozen=True)
class Line:
    """A way."""

    way: Way
    path: str
    """SVG path data."""


@dataclass(frozen=True)
class SiteMap:
    """The picture."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    chips: tuple[Chip, ...]
    lines: tuple[Line, ...]
    idle_left_out: int
    """Idle ways that are not drawn."""


def site_map(cluster: Cluster, width: int = WIDE) -> SiteMap:
    """Return the picture of a cluster; it has the width, and the height that it needs."""
    band_gap = _BAND_GAP if len(cluster.answers) > _FEW_NODES else 1.6 * _BAND_GAP
    names = [answer.name for answer in cluster.answers]
    longest = min(_LONGEST_NAME, max(map(len, names), default=1))
    chip_width = math.ceil(longest * _CHARACTER) + _DOT + 18
    public = [site for site in cluster.sites if site.kind == PUBLIC]
    hidden = [site for site in cluster.sites if site.kind != PUBLIC]
    boxes, top = _rows(public, chip_width, width, 1.0)
    if public and hidden:
        top += band_gap - _SITE_GAP
    below, bottom = _rows(hidden, chip_width, width, top)
    boxes += below
    states, relays = cluster.states, cluster.relays
    chips = [chip for box in boxes for chip in _chips(box, chip_width, states, relays)]
    by_node = {chip.node: chip for chip in chips}
    idle = [way for way in cluster.ways if way.kind == IDLE]
    drawn = [way for way in cluster.ways if way.kind != IDLE or len(idle) <= _MOST_IDLE]
    lines = [Line(way, _path(way, by_node, is_by_relay=len(drawn) <= MANY_WAYS)) for way in drawn]
    left_out = len(cluster.ways) - len(drawn)
    return SiteMap(width, math.ceil(bottom - _SITE_GAP + 1), tuple(boxes), tuple(chips), tuple(lines), left_out)


def _rows(sites: Sequence[Site], chip_width: int, width: int, top: float) -> tuple[list[Box], float]:
    """Return the boxes in rows that are centred, and where the next row begins."""
    boxes: list[Box] = []
    row: list[tuple[Site, float, float]] = []
    room = width - 2

    def finish() -> None:
        nonlocal top
        used = sum(size for _site, size, _height in row)
        gap = max(_SITE_GAP, min(_WIDEST_GAP, (width - used) / (len(row) + 1)))
        left = (width - used - gap * (len(row) - 1)) / 2
        for site, size, height in row:
            letters = int((size - 2 * _PADDING) / _LABEL_CHARACTER)
            boxes.append(Box(site, shortened(_label(site), letters), left, top, size, height))
            left += size + gap
        top += max(height for _site, _size, height in row) + _SITE_GAP
        row.clear()

    for site in sites:
        columns = _columns(len(site.nodes), chip_width, room)
        lines = math.ceil(len(site.nodes) / columns)
        label = min(_LABEL_CHARACTER * len(_label(site)) + 2, room - 2 * _PADDING)
        size = max(columns * (chip_width + _CHIP_GAP) - _CHIP_GAP, label) + 2 * _PADDING
        height = _HEADER + lines * (_CHIP_HEIGHT + _CHIP_GAP) - _CHIP_GAP + _PADDING
        if row and sum(size for _site, size, _height in row) + _SITE_GAP * len(row) + size > room:
            finish()
        row.append((site, float(size), float(height)))
    if row:
        finish()
    return boxes, top


def _columns(nodes: int, chip_width: int, room: float) -> int:
    """Return how many chips stand beside each other: boxes are about twice as wide as high."""
    most = max(1, int((room - 2 * _PADDING + _CHIP_GAP) // (chip_width + _CHIP_GAP)))
    wanted = math.ceil(math.sqrt(2 * nodes * (_CHIP_HEIGHT + _CHIP_GAP) / (chip_width + _CHIP_GAP)))
    return max(1, min(most, wanted, nodes))


def _label(site: Site) -> str:
    words = {PUBLIC: "public"}.get(site.kind, f"behind {site.kind}" if site.address else "outside address not known")
    return f"{site.name}, {words}" if site.address or site.name != "not known" else words


def _chips(box: Box, chip_width: int, states: dict[str, str], relays: set[str]) -> list[Chip]:
    columns = max(1, int((box.width - 2 * _PADDING + _CHIP_GAP) // (chip_width + _CHIP_GAP)))
    used = min(columns, len(box.site.nodes)) * (chip_width + _CHIP_GAP) - _CHIP_GAP
    left = box.x + (box.width - used) / 2
    top = box.y + (_PADDING if box.is_label_below else _HEADER)
    return [
        Chip(
            node,
            shortened(node, _LONGEST_NAME),
            states[node],
            node in relays,
            left + (number % columns) * (chip_width + _CHIP_GAP),
            top + (number // columns) * (_CHIP_HEIGHT + _CHIP_GAP),
            chip_width,
        )
        for number, node in enumerate(box.site.nodes)
    ]


def _path(way: Way, chips: dict[str, Chip], *, is_by_relay: bool) -> str:
    """Return the curve of a way; a way that is drawn by its relay is two curves."""
    first, last = (chips[end].dot for end in way.ends)
    relay = chips.get(way.relay or "") if is_by_relay else None
    if relay is None:
        return _curve(first, last, _BEND)
    return f"{_curve(first, relay.dot, _RELAYED_BEND)} {_curve(relay.dot, last, _RELAYED_BEND)}"


def _curve(start: tuple[float, float], end: tuple[float, float], bend: float) -> str:
    across, down = end[0] - start[0], end[1] - start[1]
    distance = math.hypot(across, down) or 1.0
    bend = min(_MOST_BEND / distance, bend)
    # Bent to the left of the direction: the two halves of a way by a relay do not lie upon each other.
    x, y = (start[0] + end[0]) / 2 + bend * down, (start[1] + end[1]) / 2 - bend * across
    return f"M{start[0]:.1f} {start[1]:.1f}Q{x:.1f} {y:.1f} {end[0]:.1f} {end[1]:.1f}"
