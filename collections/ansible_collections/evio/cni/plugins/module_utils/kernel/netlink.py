# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A raw netlink socket, and the attributes of netlink messages (linux/netlink.h).

The messages themselves are built in ``links``, ``rtnetlink`` (addresses, routes) and ``firewall.network_rules``
(nftables). ``ethtool`` uses the socket for its ioctls.
"""

from __future__ import annotations

import _socket
import fcntl
import posix
from _struct import pack, unpack_from

from ..deadline import seconds_left
from ..errors import EvioError
from .numbers import AF_NETLINK, SO_RCVTIMEO, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300

NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x200, 0x400, 0x800

_NLA_F_NESTED = 0x8000

_NLA_TYPE_MASK = 0x3FFF

_NLMSG_ERROR, _NLMSG_DONE = 2, 3

_TIMEOUT_SECONDS = 10.0
"""Where no call of the runtime has begun."""


class NetlinkError(EvioError):
    """The kernel refuses a request or does not answer it. ``errno`` is the kernel's number of the reason."""

    def __init__(self, what: str, errno: int) -> None:
        super().__init__(f"{what}: {posix.strerror(errno)}")
        self.errno = errno


class NetlinkSocket:
    """A socket of one netlink protocol, in the network namespace of the thread that opens it.

    ``what`` in its methods begins the message of the NetlinkError that they raise.
    """

    def __init__(self, protocol: int) -> None:
        """Open the socket. Raises NetlinkError."""
        self._sequence = 0
        try:
            self._socket = _open(protocol)
        except OSError as error:
            raise NetlinkError("netlink", error.errno or 0) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def change(self, what: str, requests: list[tuple[int, int, bytes]]) -> None:
        """Send all requests (type, flags, body) in one write, and wait until the kernel has carried them out.

        Raises NetlinkError for the first request that is refused; the kernel carries out the requests after it too.
        """
        first, last = self._sequence + 1, self._sequence + len(requests)
        # Only the last request asks for an acknowledgement: the kernel reports refusals without being asked.
        self._send(
            [
                (kind, flags | (NLM_F_ACK if sequence == last else 0), body)
                for sequence, (kind, flags, body) in enumerate(requests, first)
            ]
        )
        failure: NetlinkError | None = None
        for kind, sequence, body in self._answers(first):
            if kind == _NLMSG_ERROR:
                errno = -unpack_from("=i", body)[0]
                if errno and failure is None:
                    failure = NetlinkError(what, errno)
                if sequence == last:
                    break
        if failure is not None:
            raise failure

    def ask(self, what: str, kind: int, body: bytes) -> bytes:
        """Send a request of this type and return the body of its answer. Raises NetlinkError."""
        self._send([(kind, 0, body)])
        for answer, _sequence, content in self._answers(self._sequence):
            if answer == _NLMSG_ERROR:
                raise NetlinkError(what, -unpack_from("=i", content)[0])
            return content
        raise AssertionError("_answers never ends by itself")

    def dump(self, what: str, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of all objects that a dump request of this type lists. Raises NetlinkError."""
        self._send([(kind, NLM_F_DUMP, body)])
        bodies = []
        for answer, _sequence, content in self._answers(self._sequence):
            if answer == _NLMSG_ERROR:
                raise NetlinkError(what, -unpack_from("=i", content)[0])
            if answer == _NLMSG_DONE:
                break
            bodies.append(content)
        return bodies

    def ioctl(self, what: str, request: int, argument: bytes) -> bytes:
        """Return the argument of an ioctl (netdevice(7)) as the kernel has filled it in. Raises NetlinkError."""
        try:
            return fcntl.ioctl(self._socket.fileno(), request, argument)
        except OSError as error:
            raise NetlinkError(what, error.errno or 0) from None

    def _send(self, requests: list[tuple[int, int, bytes]]) -> None:
        data = b""
        for kind, flags, body in requests:
            self._sequence += 1
            data += pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | flags, self._sequence, 0) + body
        try:
            self._socket.send(data)
        except OSError as error:
            raise NetlinkError("netlink", error.errno or 0) from None

    def _answers(self, first: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield the answers (type, sequence, body) to the requests from sequence ``first`` on. It never ends."""
        while True:
            try:
                answers = self._socket.recv(65536)
            except OSError as error:
                raise NetlinkError("netlink", error.errno or 0) from None
            at = 0
            while at < len(answers):
                length, kind, sequence = unpack_from("=IH2xI4x", answers, at)
                if sequence >= first:
                    yield kind, sequence, answers[at + 16 : at + length]
                at += _padded(length)


def attribute(kind: int, value: bytes) -> bytes:
    """Return a netlink attribute of this type, padded to 4 bytes."""
    return pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attr_nested(kind: int, value: bytes) -> bytes:
    """Return an attribute whose value is attributes."""
    return attribute(kind | _NLA_F_NESTED, value)


def attr_string(kind: int, value: str) -> bytes:
    """Return an attribute whose value is a string, with its final zero."""
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def parse_attributes(message: bytes, at: int) -> dict[int, bytes]:
    """Return the attributes of a message from offset ``at`` on: values by type."""
    found = {}
    while at < len(message):
        length, kind = unpack_from("=HH", message, at)
        found[kind & _NLA_TYPE_MASK] = message[at + 4 : at + length]
        at += _padded(length)
    return found


def _padded(length: int) -> int:
    """Return the length of a message or attribute with its padding (NLMSG_ALIGN)."""
    return (length + 3) & ~3


def _open(protocol: int) -> Any:
    netlink = _socket.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
    netlink.setsockopt(SOL_SOCKET, SO_RCVTIMEO, pack("=qq", max(1, int(seconds_left(_TIMEOUT_SECONDS))), 0))
    netlink.bind((0, 0))
    return netlink
