# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether addresses answer to pings of an exact size that nobody may fragment: one socket for all of them.

Which addresses, and what it means when one is silent, is the caller's affair.
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

INTERVAL = 0.25
"""Seconds between two pings of one address."""
GRACE = 1.0
"""Seconds for those that need not answer, once the others have."""
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DO = 2
"""include/uapi/linux/in.h, in6.h: Don't Fragment, and refuse what is over the known path MTU."""
_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}
_IP_HEADER = {4: 20, 6: 40}
_ICMP = struct.Struct("!BBHHH")


class ReachabilityError(EvioError):
    """Pings cannot be sent at all."""


def ping_all(
    addresses: Iterable[str], size: int, timeout: float, required: Iterable[str] | None = None
) -> dict[str, float | None]:
    """The round trip in ms of each address that answered a packet of ``size`` bytes (IP header included), else None.

    Returns when all have answered, a second after the last required one did (None: all are), or after timeout seconds.
    """
    wanted = list(dict.fromkeys(addresses))
    families: set[int] = {ip_address(address).version for address in wanted}
    with contextlib.ExitStack() as stack:
        sockets = {family: stack.enter_context(_socket(family)) for family in families}
        return _Round(sockets, wanted, set(wanted if required is None else required), size).run(timeout)


class _Round:
    def __init__(self, sockets: Mapping[int, socket.socket], wanted: list[str], required: set[str], size: int) -> None:
        self._sockets, self._wanted, self._required, self._size = sockets, wanted, required, size
        self._identity = os.urandom(8)
        self._sequence = 0
        self._sent: dict[tuple[str, int], float] = {}
        self._answers: dict[str, float | None] = dict.fromkeys(wanted)

    def run(self, timeout: float) -> dict[str, float | None]:
        deadline = time.monotonic() + timeout
        next_ping = 0.0
        is_enough = False
        while any(answer is None for answer in self._answers.values()):
            now = time.monotonic()
            if not is_enough and all(self._answers[address] is not None for address in self._required):
                is_enough = True
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

    def _ping(self) -> None:
        self._sequence += 1
        for address in self._wanted:
            if self._answers[address] is None:
                family = ip_address(address).version
                packet = _echo_request(family, self._sequence, self._identity, self._size - _IP_HEADER[family])
                self._sent[address, self._sequence] = time.monotonic()
                # No route yet, over the path MTU: it counts as silent, and is tried again.
                with contextlib.suppress(OSError):
                    self._sockets[family].sendto(packet, (address, 0))

    def _receive(self, ready: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            packet, (address, *_port) = ready.recvfrom(65535)
            family = 4 if ready.family == socket.AF_INET else 6
            if family == 4:
                packet = packet[(packet[0] & 0x0F) * 4 :]
            if len(packet) < _ICMP.size + 8 or packet[0] != _ECHO_REPLY[family]:
                return
            sequence = _ICMP.unpack_from(packet)[4]
            sent = self._sent.get((address, sequence))
            if sent is not None and packet[_ICMP.size : _ICMP.size + 8] == self._identity:
                self._answers[address] = (time.monotonic() - sent) * 1000


def _socket(family: int) -> socket.socket:
    try:
        if family == 4:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
            raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
        else:
            raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
    except OSError as error:
        raise ReachabilityError(f"cannot send pings: {error.strerror}; run as root") from error
    return raw


def _echo_request(family: int, sequence: int, identity: bytes, length: int) -> bytes:
    """RFC 792 and RFC 4443; of the latter the kernel makes the checksum."""
    sequence &= 0xFFFF
    body = identity.ljust(max(len(identity), length - _ICMP.size), b"\0")
    header = _ICMP.pack(_ECHO_REQUEST[family], 0, 0, 0, sequence)
    if family == 6:
        return header + body
    return _ICMP.pack(_ECHO_REQUEST[family], 0, _checksum(header + body), 0, sequence) + body


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
