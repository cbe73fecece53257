# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A raw netlink socket into a network namespace, and the attributes of its messages (linux/netlink.h).

What is said over it is the subject of links, rtnetlink and pod_netlink (devices, the host's side, the pod's), of
node_rules (nftables) and offload (ethtool's ioctls).
"""

from __future__ import annotations

import _socket
import fcntl
import posix
from _struct import pack, unpack_from

from ..errors import EvioError
from .netns import in_netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
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
    """The kernel refuses a request, or does not answer; ``errno`` says why."""

    def __init__(self, what: str, errno: int) -> None:
        super().__init__(f"{what}: {posix.strerror(errno)}")
        self.errno = errno


class NetlinkSocket:
    """A socket of one netlink protocol in the caller's network namespace, or in that of a file descriptor."""

    def __init__(self, protocol: int, netns: int | None = None) -> None:
        """Raises NetlinkError."""
        self._sequence = 0
        try:
            self._socket = _open(protocol) if netns is None else in_netns(netns, lambda: _open(protocol))
        except OSError as error:
            raise NetlinkError("netlink", error.errno or 0) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_what: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def change(self, what: str, requests: list[tuple[int, int, bytes]]) -> None:
        """Send all requests (kind, flags, body) in one write. Raises NetlinkError for the first that is refused; those
        behind it are carried out all the same.
        """
        first, last = self._sequence + 1, self._sequence + len(requests)
        # Refusals come unasked.
        self._send(
            [
                (kind, flags | (NLM_F_ACK if at == last else 0), body)
                for at, (kind, flags, body) in enumerate(requests, first)
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
        """The body of the one answer. Raises NetlinkError."""
        self._send([(kind, 0, body)])
        for answer, _sequence, content in self._answers(self._sequence):
            if answer == _NLMSG_ERROR:
                raise NetlinkError(what, -unpack_from("=i", content)[0])
            return content
        raise AssertionError("answers have no end")

    def dump(self, what: str, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all that there is of a kind. Raises NetlinkError."""
        self._send([(kind, NLM_F_DUMP, body)])
        bodies = []
        for answer, _sequence, content in self._answers(self._sequence):
            if answer == _NLMSG_ERROR:
                raise NetlinkError(what, -unpack_from("=i", content)[0])
            if answer == _NLMSG_DONE:
                break
            bodies.append(content)
        return bodies

    def control(self, what: str, request: int, argument: bytes) -> bytes:
        """What an ioctl in the socket's namespace (netdevice(7)) makes of its argument. Raises NetlinkError."""
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
        """What comes back (kind, sequence, body) of the requests from this sequence on; it has no end of its own."""
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
                at += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attr_nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, value)


def attr_string(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


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
