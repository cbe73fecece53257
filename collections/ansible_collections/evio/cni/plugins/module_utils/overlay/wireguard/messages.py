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

from ...mtu import MOST_OVERLAY_MTU
from ..endpoint import OverlayError, parse_endpoint

DOWN, INIT, UP = "down", "init", "up"
STATES = (DOWN, INIT, UP)
"""States of a session, as in BFD (RFC 5880 section 6.2): the sender hears nothing, hears the receiver, and knows that
the receiver hears the sender too."""

ROWS_IN_A_TABLE = 8
"""Sightings in one datagram: a row takes at most 120 bytes, so that a table fits into an overlay MTU of 1200 bytes."""

_MOST_LAN_ENDPOINTS = 2


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
    def split(cls, sightings: Sequence[Sighting]) -> list[Table]:
        """Return the sightings as tables that fit into datagrams."""
        return [
            cls(tuple(sightings[first : first + ROWS_IN_A_TABLE]))
            for first in range(0, len(sightings), ROWS_IN_A_TABLE)
        ]


Message: TypeAlias = "Probe | Table"


def encode(message: Message, size: int = 0) -> bytes:
    """Return the datagram, filled with blanks up to ``size`` bytes."""
    if isinstance(message, Probe):
        data: dict[str, Any] = {
            "probe": [message.state, message.sent, message.echo, message.held, message.lan[:_MOST_LAN_ENDPOINTS]]
        }
    else:
        data = {"table": [[row.address, row.endpoint, row.is_up, row.lan] for row in message.sightings]}
    return json.dumps(data, separators=(",", ":")).encode().ljust(size)


def decode(datagram: bytes) -> Message:
    """Return the message of a datagram. Raises MessageError if it is none."""
    if len(datagram) > MOST_OVERLAY_MTU:
        raise MessageError(f"not a message of the overlay: {len(datagram)} bytes")
    try:
        data = json.loads(datagram)
        if "probe" in data:
            state, sent, echo, held, lan = data["probe"]
            if state not in STATES:
                raise ValueError(f"state {state!r}")
            return Probe(state, int(sent), None if echo is None else int(echo), int(held), _endpoints(lan))
        return Table(
            tuple(
                Sighting(str(ip_address(address)), _endpoint(endpoint), bool(is_up), _endpoints(lan))
                for address, endpoint, is_up, lan in data["table"]
            )
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverlayError) as error:
        raise MessageError(f"not a message of the overlay: {error!r}") from error


def _endpoint(value: Any) -> str | None:
    """Accept addresses only: WireGuard's tool would look up a name, and wait for the answer."""
    return None if value is None else parse_endpoint(str(value))


def _endpoints(values: Any) -> tuple[str, ...]:
    return tuple(parse_endpoint(str(value)) for value in values[:_MOST_LAN_ENDPOINTS])
