# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The messages between the overlay agents of two nodes: one JSON object in each UDP datagram.

Pure. The messages carry no signature: they travel inside WireGuard, where the source address proves the sender's key.
When they are sent, and what follows from them, is path_selection's subject; docs/overlay-paths.md shows it on a page.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, TypeAlias

from ...mtu import LEAST_OVERLAY_MTU, MOST_OVERLAY_MTU
from ..endpoint import LONGEST_ENDPOINT, OverlayError, parse_endpoint

DOWN, INIT, UP = "down", "init", "up"
STATES = (DOWN, INIT, UP)
"""States of a session, as in BFD (RFC 5880 section 6.2): the sender hears nothing, hears the receiver, and knows that
the receiver hears the sender too."""

SMALLEST_PAYLOAD = LEAST_OVERLAY_MTU[4] - 28
"""Bytes of the UDP payload that every overlay carries: its least MTU without the headers of IPv4 and UDP.
The longest call to one node takes 487 bytes."""

MOST_TARGETS = 50
"""Nodes that one call may be for."""

MOST_RELAYS = 4
"""Relays that a caller names: the first of those with which its session is up."""

LARGEST_NUMBER = (1 << 53) - 1
"""A clock in ms at most: the largest integer that every JSON reader keeps exactly (RFC 8259 section 6)."""

_MOST_LAN_ENDPOINTS = 2

_MOST_ROWS = 100
"""Rows that former versions accept in one table."""

_LONGEST_ROW = 39 + LONGEST_ENDPOINT + 16
"""Bytes of a row: address, endpoint, and what is around them."""

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
    is_poll: bool = False
    """Whether the receiver is to answer at once."""
    is_wanted: bool = False
    """Whether the sender has something to say to the receiver, or by the receiver if that is a relay."""
    seen: str | None = None
    """``address:port`` at which the sender sees the receiver; only a relay says it."""


@dataclass(frozen=True)
class Call:
    """A node's wish to talk to others, sent to a relay, which passes it on to each of them.

    A call without relays says that the relay which sent it does not reach the caller.
    """

    caller: str
    """The caller's host overlay address."""
    targets: tuple[str, ...]
    """The host overlay addresses of the nodes that are called."""
    relays: tuple[str, ...] = ()
    """The host overlay addresses of relays with which the caller's session is up."""
    endpoint: str | None = None
    """``address:port`` at which the relay sees the caller; None before a relay has added it."""
    lan: tuple[str, ...] = ()
    """The caller's endpoints, ``address:port``, in its own network."""
    is_answer: bool = False
    """Whether the call answers a call of the target, and so needs no answer itself."""
    sent: int = 0
    """The caller's clock in ms, the same as in its probes, if it hears nothing of the targets directly; else 0."""

    def split(self, size: int = SMALLEST_PAYLOAD) -> list[Call]:
        """Return calls for all targets that fit into datagrams of ``size`` bytes, at least SMALLEST_PAYLOAD."""
        calls: list[Call] = []
        empty = len(encode(replace(self, targets=())))
        chosen: list[str] = []
        used = empty
        for target in self.targets:
            length = len(target) + 3
            if chosen and (used + length > size or len(chosen) == MOST_TARGETS):
                calls.append(replace(self, targets=tuple(chosen)))
                chosen, used = [], empty
            chosen.append(target)
            used += length
        return [*calls, replace(self, targets=tuple(chosen))] if chosen else calls


@dataclass(frozen=True)
class Rekey:
    """The sender changes to its next key in this moment, while keys are rotated."""


@dataclass(frozen=True)
class FormerProbe:
    """The probe of former versions, which send it every second and know neither polls nor calls."""

    state: str
    sent: int
    echo: int | None = None
    held: int = 0
    lan: tuple[str, ...] = ()
    """The sender's endpoints, ``address:port``, in its own network."""


@dataclass(frozen=True)
class FormerTable:
    """What relays tell nodes of former versions: the nodes that they reach, and where they see them.

    Nothing is used of a table that comes from a relay of a former version.
    """

    reached: tuple[tuple[str, str | None], ...] = ()
    """The host overlay address of each node, and the ``address:port`` at which the relay sees it."""

    def split(self, size: int) -> list[FormerTable]:
        """Return tables of the same rows that fit into datagrams of ``size`` bytes, at least SMALLEST_PAYLOAD."""
        rows = max(1, min(_MOST_ROWS, (size - 20) // _LONGEST_ROW))
        return [FormerTable(self.reached[first : first + rows]) for first in range(0, len(self.reached), rows)]


Message: TypeAlias = "Probe | Call | Rekey | FormerProbe | FormerTable"


def encode(message: Message, size: int = 0) -> bytes:
    """Return the datagram, filled with blanks up to ``size`` bytes."""
    data: dict[str, Any]
    if isinstance(message, Probe):
        values = [message.state, message.sent, message.echo, message.held, message.is_wanted]
        data = {"poll" if message.is_poll else "answer": values if message.seen is None else [*values, message.seen]}
    elif isinstance(message, Call):
        data = {
            "call": [
                message.caller,
                message.targets,
                message.relays[:MOST_RELAYS],
                message.endpoint,
                message.lan[:_MOST_LAN_ENDPOINTS],
                message.is_answer,
                message.sent,
            ]
        }
    elif isinstance(message, Rekey):
        data = {"rekey": []}
    elif isinstance(message, FormerProbe):
        data = {"probe": [message.state, message.sent, message.echo, message.held, message.lan[:_MOST_LAN_ENDPOINTS]]}
    else:
        data = {"table": [[address, endpoint, True, []] for address, endpoint in message.reached]}
    return json.dumps(data, separators=(",", ":")).encode().ljust(size)


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
        [(kind, content)] = data.items()
        if kind in ("poll", "answer"):
            return _probe(kind == "poll", *_list(content, 5, 6))
        if kind == "call":
            return _call(*_list(content, 7, 7))
        if kind == "rekey":
            _list(content, 0, 0)
            return Rekey()
        if kind == "probe":
            return _former_probe(*_list(content, 5, 5))
        if kind == "table":
            return FormerTable()
        raise ValueError("unknown kind")
    except (ValueError, RecursionError, OverlayError) as error:
        raise MessageError(f"not a message of the overlay: {str(error)[:100]!r}") from error


def _probe(is_poll: bool, state: Any, sent: Any, echo: Any, held: Any, is_wanted: Any, seen: Any = None) -> Probe:
    return Probe(
        _state(state),
        _number(sent),
        None if echo is None else _number(echo),
        _number(held),
        is_poll,
        _boolean(is_wanted),
        None if seen is None else _endpoint(seen),
    )


def _call(caller: Any, targets: Any, relays: Any, endpoint: Any, lan: Any, is_answer: Any, sent: Any) -> Call:
    return Call(
        _address(caller),
        tuple(_address(target) for target in _list(targets, 1, MOST_TARGETS)),
        tuple(_address(relay) for relay in _list(relays, 0, MOST_RELAYS)),
        None if endpoint is None else _endpoint(endpoint),
        _endpoints(lan),
        _boolean(is_answer),
        _number(sent),
    )


def _former_probe(state: Any, sent: Any, echo: Any, held: Any, lan: Any) -> FormerProbe:
    number = None if echo is None else _number(echo)
    return FormerProbe(_state(state), _number(sent), number, _number(held), _endpoints(lan))


def _list(value: Any, least: int, most: int) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ValueError(f"not a list of {least} to {most} elements")
    return value


def _state(value: Any) -> str:
    if not isinstance(value, str) or value not in STATES:
        raise ValueError("unknown state")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("not true or false")
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


def _address(value: Any) -> str:
    text = _string(value, _LONGEST_ADDRESS)
    if "%" in text:
        raise ValueError("an address with a scope id")
    return str(ip_address(text))


def _endpoint(value: Any) -> str:
    """Accept addresses only: WireGuard's tool would look up a name, and wait for the answer."""
    return parse_endpoint(_string(value, LONGEST_ENDPOINT))


def _endpoints(values: Any) -> tuple[str, ...]:
    return tuple(_endpoint(value) for value in _list(values, 0, _MOST_LAN_ENDPOINTS))
