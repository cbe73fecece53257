# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What flows a bridge has, by OpenFlow's multipart requests (ONF TS-006 section 7.3.5)."""

from __future__ import annotations

from _struct import pack, unpack_from

from .openflow import ALL_TABLES, ANY, IN_PORT, OpenFlow, Selection, match

_MULTIPART_REQUEST = 18
_FLOW_STATS, _AGGREGATE = 1, 2


def count(bridge: OpenFlow, selection: Selection) -> int:
    """How many of the flows the bridge has."""
    [answer] = bridge.talk([(_MULTIPART_REQUEST, _statistics(_AGGREGATE, selection))])
    return int(unpack_from("!I", answer, 8 + 16)[0])


def ports(bridge: OpenFlow, selection: Selection) -> set[int]:
    """The ports that flows match, those flows that match one."""
    found = set()
    for answer in bridge.talk([(_MULTIPART_REQUEST, _statistics(_FLOW_STATS, selection))]):
        at = 8
        while at < len(answer):
            [length] = unpack_from("!H", answer, at)
            field, end = at + 52, at + 48 + unpack_from("!H", answer, at + 50)[0]
            while field < end:
                header = unpack_from("!HBB", answer, field)
                if header[:2] == (0x8000, IN_PORT << 1):
                    found.add(int(unpack_from("!I", answer, field + 4)[0]))
                field += 4 + header[2]
            at += length
    return found


def _statistics(kind: int, selection: Selection) -> bytes:
    query = pack("!HHIB3xII4xQQ", kind, 0, 0, ALL_TABLES, ANY, ANY, selection.cookie, selection.mask)
    return query + match(selection.fields)
