# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The messages between the overlay agents of two nodes: one JSON object in each UDP datagram.

Pure. The messages carry no signature: they travel inside WireGuard, where the source address proves the sender's key.
When they are sent, and what follows from them, is path_selection's subject.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias

from ...mtu import LEAST_OVERLAY_MTU, MOST_OVERLAY_MTU
from ..endpoint import LONGEST_ENDPOINT, OverlayError, parse_endpoint

DOWN, INIT, UP = "down", "init", "up"
STATES = (DOWN, INIT, UP)
"""States of a session, as in BFD (RFC 5880 section 6.2): the sender hears nothing, hears the receiver, and knows that
the receiver hears the sender too."""

SMALLEST_TABLE = LEAST_OVERLAY_MTU[4] - 28
"""Bytes of the UDP payload that every overlay carries: its least MTU without the headers of IPv4 and UDP.
The longest row takes 210 bytes."""

MOST_ROWS = 100
"""Sightings that are accepted in one datagram."""

LARGEST_NUMBER = (1 << 53) - 1
"""A clock in ms at most: the largest integer that every JSON reader keeps exactly (RFC 8259 section 6)."""

_MOST_LAN_ENDPOINTS = 2

_LONGEST_ADDRESS = 39
"""Characters of an IPv6 address."""


class MessageError(OverlayError):
    """A datagram is not a message of this protocol."""


@dataclass(frozen=True)
class Probe:
    """A sign of life of the sender, with its view of the session."""

    state: str
    """DOWN, INIT or UP."""
    sent: int
    """The sender's clock in ms at sending."""
    echo: int | None = None
    """``sent`` of the last probe that the sender got from the receiver; None if it got none."""
    held: int = 0
    """Time in ms between getting that probe and sending this one."""
    lan: tuple[str, ...] = ()
    """The sender's endpoints, ``address:port``, in its own network."""


@dataclass(frozen=True)
class Sighting:
    """A relay's report of one node."""

    address: str
    """The node's host overlay address."""
    endpoint: str | None
    """``address:port`` at which the relay's WireGuard sees the node; None if it does not."""
    is_up: bool
    """Whether the session between the relay and the node is up."""
    lan: tuple[str, ...] = ()
    """The node's endpoints in its own network."""


@dataclass(frozen=True)
class Table:
    """Sightings of a relay, as many as fit into a datagram."""

    sightings: tuple[Sighting, ...]

    @classmethod
    def split(cls, sightings: Sequence[Sighting], size: int = SMALLEST_TABLE) -> list[Table]:
        """Return the sightings as tables that fit into datagrams of ``size`` bytes, at least SMALLEST_TABLE."""
        tables: list[Table] = []
        rows: list[Sighting] = []
        used = _EMPTY_TABLE
        for sighting in sightings:
            length = len(_dumps(_row(sighting))) + 1
            if rows and (used + length > size or len(rows) == MOST_ROWS):
                tables.append(cls(tuple(rows)))
                rows, used = [], _EMPTY_TABLE
            rows.append(sighting)
            used += length
        return [*tables, cls(tuple(rows))] if rows else tables


_EMPTY_TABLE = len('{"table":[]}')

Message: TypeAlias = "Probe | Table"


def encode(message: Message, size: int = 0) -> bytes:
    """Return the datagram, filled with blanks up to ``size`` bytes."""
    if isinstance(message, Probe):
        data: dict[str, Any] = {
            "probe": [message.state, message.sent, message.echo, message.held, message.lan[:_MOST_LAN_ENDPOINTS]]
        }
    else:
        data = {"table": [_row(sighting) for sighting in message.sightings]}
    return _dumps(data).encode().ljust(size)


def decode(datagram: bytes) -> Message:
    """Return the message of a datagram. Raises MessageError if it is none.

    Nothing of a datagram is trusted: sizes, types, ranges and the number of elements are checked.
    """
    if len(datagram) > MOST_OVERLAY_MTU:
        raise MessageError(f"not a message of the overlay: {len(datagram)} bytes")
    try:
        data = json.loads(datagram.decode("ascii"))
        if not isinstance(data, dict) or len(data) != 1:
            raise ValueError("not an object of one member")
        if "probe" in data:
            return _probe(*_list(data["probe"], 5))
        rows = data["table"]
        if not isinstance(rows, list) or len(rows) > MOST_ROWS:
            raise ValueError(f"not a list of at most {MOST_ROWS} rows")
        return Table(tuple(_sighting(*_list(row, 4)) for row in rows))
    except (ValueError, KeyError, RecursionError, OverlayError) as error:
        raise MessageError(f"not a message of the overlay: {str(error)[:100]!r}") from error


def _row(sighting: Sighting) -> list[Any]:
    return [sighting.address, sighting.endpoint, sighting.is_up, sighting.lan[:_MOST_LAN_ENDPOINTS]]


def _dumps(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def _probe(state: Any, sent: Any, echo: Any, held: Any, lan: Any) -> Probe:
    if not isinstance(state, str) or state not in STATES:
        raise ValueError("unknown state")
    return Probe(state, _number(sent), None if echo is None else _number(echo), _number(held), _endpoints(lan))


def _sighting(address: Any, endpoint: Any, is_up: Any, lan: Any) -> Sighting:
    if not isinstance(is_up, bool):
        raise ValueError("a row without true or false")
    text = _string(address, _LONGEST_ADDRESS)
    if "%" in text:
        raise ValueError("an address with a scope id")
    return Sighting(str(ip_address(text)), None if endpoint is None else _endpoint(endpoint), is_up, _endpoints(lan))


def _list(value: Any, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError(f"not a list of {length} elements")
    return value


def _number(value: Any) -> int:
    """Accept whole numbers only. JSON's 1e999 is a float, and so is NaN; true is an int to Python."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_NUMBER:
        raise ValueError("not a number of milliseconds")
    return value


def _string(value: Any, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"not a string of at most {longest} characters")
    return value


def _endpoint(value: Any) -> str:
    """Accept addresses only: WireGuard's tool would look up a name, and wait for the answer."""
    return parse_endpoint(_string(value, LONGEST_ENDPOINT))


def _endpoints(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or len(values) > _MOST_LAN_ENDPOINTS:
        raise ValueError(f"not a list of at most {_MOST_LAN_ENDPOINTS} endpoints")
    return tuple(_endpoint(value) for value in values)
