# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cookies of our flows: they say which port a flow is of, or that it is the bridge's own. Pure.

From the top, a cookie has 16 bits that all our flows have, two bits for the kinds below, and a hash of 44 bits.
"""

from __future__ import annotations

from ..names import short_hash
from .openflow import Selection

OURS, OURS_MASK = 0xE710 << 48, 0xFFFF << 48
"""The upper 16 bits of the cookies of all our flows."""

CLOSED_BIT = 1 << 47
"""Set for the flow that closes a port."""

_WHOLE_COOKIE = (1 << 64) - 1

_BRIDGE_BIT = 1 << 46
"""Set for the flows of a bridge that no port has for itself."""

BRIDGE_FLOWS = Selection(OURS | _BRIDGE_BIT, OURS_MASK | CLOSED_BIT | _BRIDGE_BIT)
"""Select the flows of a bridge that no port has for itself, of this configuration or of an earlier one."""


def cookie_of(host_ifname: str) -> int:
    """Return the cookie of a port's flows. It finds them even when the port is gone and its number forgotten."""
    return int(short_hash(host_ifname), 16) | OURS


def closed_port(host_ifname: str, ofport: int) -> Selection:
    """Select the flow that closes a port until it has its flows; its cookie is not that of the port's flows."""
    return Selection(cookie_of(host_ifname) | CLOSED_BIT, port=ofport)


def flows_of_number(ofport: int) -> Selection:
    """Select the flows of the port with this number, whatever its name, but not one that closes it."""
    return Selection(OURS, OURS_MASK | CLOSED_BIT, ofport)


def flows_of_removed_port(host_ifname: str, ofport: int) -> Selection:
    """Select all flows of a port that is gone, by its name too: the number may be another port's by now."""
    return Selection(cookie_of(host_ifname), _WHOLE_COOKIE & ~CLOSED_BIT, ofport)


def bridge_cookie(content: str) -> int:
    """Return the cookie of a bridge's own flows, which differs with the content that they are made from."""
    return int(short_hash(content), 16) | OURS | _BRIDGE_BIT
