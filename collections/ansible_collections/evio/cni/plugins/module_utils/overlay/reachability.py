# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ping many addresses at once with packets of an exact size that must not be fragmented.

Which addresses are pinged, and what a missing answer means, is the caller's subject.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from ..errors import EvioError
from .path_mtu import forbid_fragmentation

INTERVAL = 0.25
"""Seconds between two pings of one address."""

GRACE = 1.0
"""Seconds for which the other addresses may still answer, once all required addresses have."""

_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}
"""Types of ICMP messages by IP version (RFC 792, RFC 4443)."""

_IP_HEADER = {4: 20, 6: 40}
"""Bytes by IP version."""

_ICMP = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number."""


class ReachabilityError(EvioError):
    """Pings cannot be sent."""


def ping_all(
    addresses: Iterable[str],
    size: int,
    timeout: float,
    required: Iterable[str] | None = None,
    *,
    needs_answer: bool = False,
) -> dict[str, float | None]:
    """Return each address's round trip in ms, None if it did not answer.

    ``size`` is in bytes and includes the IP header. The function returns once all addresses have answered, or GRACE
    seconds after all required addresses have (None: all are required), or after ``timeout`` seconds. With
    ``needs_answer``, at least one address has to answer too. Raises ReachabilityError.
    """
    wanted = list(dict.fromkeys(addresses))
    versions: set[int] = {ip_address(address).version for address in wanted}
    with contextlib.ExitStack() as stack:
        sockets = {version: stack.enter_context(_socket(version)) for version in versions}
        return _Pings(sockets, wanted, set(wanted if required is None else required), size, needs_answer).run(timeout)


class _Pings:
    """The pings of one call; sockets are by IP version."""

    def __init__(
        self,
        sockets: Mapping[int, socket.socket],
        wanted: list[str],
        required: set[str],
        size: int,
        needs_answer: bool,
    ) -> None:
        self._sockets, self._wanted, self._required, self._size = sockets, wanted, required, size
        self._needs_answer = needs_answer
        self._identity = os.urandom(8)
        self._sequence = 0
        self._sent: dict[tuple[str, int], float] = {}
        self._answers: dict[str, float | None] = dict.fromkeys(wanted)

    def run(self, timeout: float) -> dict[str, float | None]:
        deadline = time.monotonic() + timeout
        next_ping = 0.0
        required_answered = False
        while any(answer is None for answer in self._answers.values()):
            now = time.monotonic()
            if not required_answered and self._is_enough():
                required_answered = True
                deadline = min(deadline, now + GRACE)
            if now >= deadline:
                break
            if now >= next_ping:
                self._ping()
                next_ping = now + INTERVAL
            ready, _writable, _failed = select.select(
                list(self._sockets.values()), [], [], max(0.0, min(next_ping, deadline) - now)
            )
            for ready_socket in ready:
                self._receive(ready_socket)
        return self._answers

    def _is_enough(self) -> bool:
        answered = {address for address, answer in self._answers.items() if answer is not None}
        return self._required <= answered and (bool(answered) or not self._needs_answer)

    def _ping(self) -> None:
        self._sequence += 1
        for address in self._wanted:
            if self._answers[address] is None:
                version = ip_address(address).version
                packet = _echo_request(version, self._sequence, self._identity, self._size - _IP_HEADER[version])
                self._sent[address, self._sequence] = time.monotonic()
                # No route yet, or larger than the path MTU: it counts as no answer, and is tried again.
                with contextlib.suppress(OSError):
                    self._sockets[version].sendto(packet, (address, 0))

    def _receive(self, ready: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            packet, (address, *_port) = ready.recvfrom(65535)
            version = 4 if ready.family == socket.AF_INET else 6
            if version == 4:
                packet = packet[(packet[0] & 0x0F) * 4 :]
            if len(packet) < _ICMP.size + 8 or packet[0] != _ECHO_REPLY[version]:
                return
            sequence = _ICMP.unpack_from(packet)[4]
            sent = self._sent.get((address, sequence))
            if sent is not None and packet[_ICMP.size : _ICMP.size + 8] == self._identity:
                self._answers[address] = (time.monotonic() - sent) * 1000


def _socket(version: int) -> socket.socket:
    try:
        if version == 4:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        else:
            raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        forbid_fragmentation(raw)
    except OSError as error:
        raise ReachabilityError(f"cannot send pings: {error.strerror}; run as root") from error
    return raw


def _echo_request(version: int, sequence: int, identity: bytes, length: int) -> bytes:
    """Return an ICMP echo request of ``length`` bytes. The kernel fills in the checksum of ICMPv6."""
    sequence &= 0xFFFF
    body = identity.ljust(max(len(identity), length - _ICMP.size), b"\0")
    header = _ICMP.pack(_ECHO_REQUEST[version], 0, 0, 0, sequence)
    if version == 6:
        return header + body
    return _ICMP.pack(_ECHO_REQUEST[version], 0, _checksum(header + body), 0, sequence) + body


def _checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
