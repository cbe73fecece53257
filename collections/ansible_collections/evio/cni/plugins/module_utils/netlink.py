# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A raw netlink socket into a network namespace, and the attributes of its messages (linux/netlink.h).

What is said over it is the subject of rtnetlink (links, addresses, routes), node_rules (nftables), offload (ethtool).
"""

from __future__ import annotations

import _socket
import posix
from _struct import pack, unpack_from

from .errors import EvioError
from .netns import inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_GENERIC = 0, 12, 16
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x200, 0x400, 0x800
NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_NLMSG_ERROR, _NLMSG_DONE = 2, 3

_AF_NETLINK = 16
_SOCK_RAW, _SOCK_CLOEXEC = 3, 0o2000000
_SOL_SOCKET, _SO_RCVTIMEO = 1, 20
_TIMEOUT_SECONDS = 10


class NetlinkError(EvioError):
    """The kernel refuses a request; ``errno`` says why, ``place`` which message of the batch it was."""

    def __init__(self, what: str, errno: int, place: int = 0) -> None:
        super().__init__(f"{what}: {posix.strerror(errno)}")
        self.errno = errno
        self.place = place


class NetlinkSocket:
    """A socket of one netlink protocol in the caller's network namespace, or in that of a file descriptor."""

    def __init__(self, protocol: int, netns: int | None = None) -> None:
        self._sequence = 0
        self._socket = _open(protocol) if netns is None else inside(netns, lambda: _open(protocol))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_what: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def talk(self, what: str, batch: list[tuple[int, int, bytes]]) -> list[bytes]:
        """Send all messages in one write; the bodies of what comes back. A dump goes alone."""
        first = self._sequence + 1
        data = b""
        for kind, flags, body in batch:
            self._sequence += 1
            acknowledge = 0 if flags & NLM_F_DUMP == NLM_F_DUMP else NLM_F_ACK
            header = pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | acknowledge | flags, self._sequence, 0)
            data += header + body
        self._socket.send(data)
        bodies: list[bytes] = []
        failure: NetlinkError | None = None
        awaited = len(batch)
        while awaited:
            answer = self._socket.recv(65536)
            at = 0
            while at < len(answer):
                length, kind, sequence = unpack_from("=IH2xI4x", answer, at)
                if sequence >= first:
                    if kind == _NLMSG_DONE:
                        awaited -= 1
                    elif kind == _NLMSG_ERROR:
                        awaited -= 1
                        errno = -unpack_from("=i", answer, at + 16)[0]
                        if errno and failure is None:
                            failure = NetlinkError(what, errno, sequence - first)
                    else:
                        bodies.append(answer[at + 16 : at + length])
                at += (length + 3) & ~3
        if failure is not None:
            raise failure
        return bodies


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, value)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(message: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while at < len(message):
        length, kind = unpack_from("=HH", message, at)
        found[kind & _NLA_TYPE_MASK] = message[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _open(protocol: int) -> Any:
    netlink = _socket.socket(_AF_NETLINK, _SOCK_RAW | _SOCK_CLOEXEC, protocol)
    netlink.setsockopt(_SOL_SOCKET, _SO_RCVTIMEO, pack("=qq", _TIMEOUT_SECONDS, 0))
    netlink.bind((0, 0))
    return netlink
