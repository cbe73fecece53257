# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the overlay agents of two direct peers say to each other: one JSON object a UDP datagram.

Pure. The messages carry no signature: they travel inside WireGuard, and the source address proves the sender's key.
When they are sent, and what follows from them, is overlay_paths' subject.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias

from ..endpoint import OverlayError, parse_endpoint

DOWN = "down"
INIT = "init"
UP = "up"
STATES = (DOWN, INIT, UP)
ROWS_IN_A_TABLE = 8
"""So that a table fits in the smallest overlay MTU: a row takes at most 120 bytes."""
_MOST_LAN_ENDPOINTS = 2
_MOST_BYTES = 9000


class MessageError(OverlayError):
    """A datagram is not a message of this protocol."""


@dataclass(frozen=True)
class Probe:
    """I am here, and this is what I hear of you."""

    state: str
    sent: int
    """The sender's clock in ms when it sent this."""
    echo: int | None = None
    """``sent`` of the last probe that the sender had from the receiver, and for how many ms it kept it."""
    held: int = 0
    lan: tuple[str, ...] = ()
    """``address:port`` of the sender in its own network."""


@dataclass(frozen=True)
class Sighting:
    """What a relay knows of one node."""

    address: str
    endpoint: str | None
    is_up: bool
    lan: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Some of a relay's sightings."""

    sightings: tuple[Sighting, ...]

    @classmethod
    def split(cls, sightings: Sequence[Sighting]) -> list[Table]:
        """As many tables as the sightings need to fit into datagrams."""
        return [
            cls(tuple(sightings[first : first + ROWS_IN_A_TABLE]))
            for first in range(0, len(sightings), ROWS_IN_A_TABLE)
        ]


Message: TypeAlias = "Probe | Table"


def encode(message: Message, size: int = 0) -> bytes:
    """The datagram, filled with blanks up to ``size`` bytes."""
    if isinstance(message, Probe):
        data: dict[str, Any] = {
            "probe": [message.state, message.sent, message.echo, message.held, message.lan[:_MOST_LAN_ENDPOINTS]]
        }
    else:
        data = {"table": [[row.address, row.endpoint, row.is_up, row.lan] for row in message.sightings]}
    return json.dumps(data, separators=(",", ":")).encode().ljust(size)


def decode(datagram: bytes) -> Message:
    """The message of a datagram; MessageError if it is none."""
    if len(datagram) > _MOST_BYTES:
        raise MessageError(f"{len(datagram)} bytes")
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
    """Only what needs no name server: WireGuard's tool would resolve anything else, and wait for it."""
    return None if value is None else parse_endpoint(str(value))


def _endpoints(values: Any) -> tuple[str, ...]:
    return tuple(parse_endpoint(str(value)) for value in values[:_MOST_LAN_ENDPOINTS])
