# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""OpenFlow 1.3 (ONF TS-006) as far as a port's flows need it: put flows in, take them out.

Over the socket that vswitchd has for each bridge beside its database's. Which flows: port_security; to
count and list them: flow_statistics.


What flows a bridge has, by OpenFlow's multipart requests (ONF TS-006 section 7.3.5)."""

from __future__ import annotations

import _socket
from _struct import pack, unpack_from

from ..errors import EvioError

_VERSION = 4
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY = 0, 1, 2, 3
_FLOW_MOD, _BARRIER_REQUEST = 14, 20
_ADD, _DELETE = 0, 3
_MULTIPART_REPLY, _MORE = 19, 1
ALL_TABLES, ANY, _NO_BUFFER = 0xFF, 0xFFFFFFFF, 0xFFFFFFFF
_NORMAL_PORT = 0xFFFFFFFA
_WHOLE_COOKIE = 0xFFFFFFFFFFFFFFFF
_APPLY_ACTIONS, _OUTPUT = 4, 0
# Section 7.2.3.7, OFPXMT_OFB_*.
IN_PORT, ETH_SRC, ETH_TYPE, VLAN_VID, IP_PROTO, IPV4_SRC = 0, 4, 5, 6, 10, 11
ARP_SPA, ARP_SHA, IPV6_SRC, ICMPV6_TYPE, ND_TARGET, ND_SLL, ND_TLL = 22, 24, 26, 29, 31, 32, 33
_AF_UNIX, _SOCK_STREAM, _SOCK_CLOEXEC = 1, 1, 0o2000000
_SOL_SOCKET, _SO_RCVTIMEO, _SO_SNDTIMEO = 1, 20, 21
_TIMEOUT_SECONDS = 5


class OpenFlowError(EvioError):
    """The bridge does not answer, or refuses a flow."""


class Flow:
    """What a packet must be, each field a number of section 7.2.3.7 and its bytes, and whether it may pass then."""

    __slots__ = ("fields", "may_pass", "priority")

    def __init__(self, priority: int, fields: list[tuple[int, bytes]], *, may_pass: bool) -> None:
        self.priority = priority
        self.fields = fields
        self.may_pass = may_pass


class Selection:
    """Flows by those bits of their cookie that the mask has, and by the port that they match, if one is given."""

    __slots__ = ("cookie", "fields", "mask")

    def __init__(self, cookie: int, mask: int = _WHOLE_COOKIE, port: int | None = None) -> None:
        self.cookie = cookie
        self.mask = mask
        self.fields: list[tuple[int, bytes]] = [] if port is None else [(IN_PORT, pack("!I", port))]


class OpenFlow:
    """A connection to one bridge of the Open vSwitch whose database is at ``unix:PATH``."""

    def __init__(self, ovsdb: str, bridge: str) -> None:
        """Raises OpenFlowError."""
        self._bridge = bridge
        self._unread = b""
        self._transaction = 0
        path = f"{ovsdb.removeprefix('unix:').rpartition('/')[0]}/{bridge}.mgmt"
        self._socket = _socket.socket(_AF_UNIX, _SOCK_STREAM | _SOCK_CLOEXEC)
        limit = pack("=qq", _TIMEOUT_SECONDS, 0)
        self._socket.setsockopt(_SOL_SOCKET, _SO_RCVTIMEO, limit)
        self._socket.setsockopt(_SOL_SOCKET, _SO_SNDTIMEO, limit)
        try:
            self._socket.connect(path)
            self._socket.sendall(pack("!BBHIHHI", _VERSION, _HELLO, 16, 0, 1, 8, 1 << _VERSION))
        except OSError as error:
            self._socket.close()
            raise OpenFlowError(
                f"the bridge {bridge} takes no flows at {path} ({error.strerror}): is ovs-vswitchd running?"
            ) from None

    def __enter__(self) -> OpenFlow:
        return self

    def __exit__(self, *_what: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def change(self, gone: list[Selection], cookie: int, flows: list[Flow]) -> None:
        """Take flows out, and put these in under the cookie. Returns once they are at work; raises OpenFlowError."""
        messages = [(_FLOW_MOD, _deletion(selection)) for selection in gone]
        messages += [(_FLOW_MOD, _addition(cookie, flow)) for flow in flows]
        self.talk([*messages, (_BARRIER_REQUEST, b"")])

    def talk(self, messages: list[tuple[int, bytes]]) -> list[bytes]:
        """Send all in one write, and return the parts of the last one's answer: the bridge keeps their order."""
        first = self._transaction + 1
        data = b""
        for kind, body in messages:
            self._transaction += 1
            data += pack("!BBHI", _VERSION, kind, 8 + len(body), self._transaction) + body
        parts = []
        try:
            self._socket.sendall(data)
            while True:
                kind, transaction, body = self._receive()
                if kind == _ECHO_REQUEST:
                    self._socket.sendall(pack("!BBHI", _VERSION, _ECHO_REPLY, 8 + len(body), transaction) + body)
                elif kind == _ERROR and (transaction >= first or transaction == 0):
                    error, code = unpack_from("!HH", body)
                    raise OpenFlowError(f"the bridge {self._bridge} refuses a flow: OpenFlow error {error}, {code}")
                elif kind != _HELLO and transaction == self._transaction:
                    parts.append(body)
                    if kind != _MULTIPART_REPLY or not unpack_from("!2xH", body)[0] & _MORE:
                        return parts
        except BlockingIOError:
            raise OpenFlowError(f"the bridge {self._bridge} does not answer within {_TIMEOUT_SECONDS} s") from None
        except OSError as error:
            raise OpenFlowError(f"the bridge {self._bridge} broke off: {error.strerror}") from None

    def _receive(self) -> tuple[int, int, bytes]:
        while True:
            if len(self._unread) >= 8:
                _version, kind, length, transaction = unpack_from("!BBHI", self._unread)
                if len(self._unread) >= length:
                    body, self._unread = self._unread[8:length], self._unread[length:]
                    return kind, transaction, body
            received = self._socket.recv(1 << 16)
            if not received:
                raise OSError(104, "Connection reset by peer")
            self._unread += received


def _deletion(selection: Selection) -> bytes:
    head = pack("!QQBB", selection.cookie, selection.mask, ALL_TABLES, _DELETE)
    return head + pack("!HHHIIIHxx", 0, 0, 0, _NO_BUFFER, ANY, ANY, 0) + match(selection.fields)


def _addition(cookie: int, flow: Flow) -> bytes:
    head = pack("!QQBBHHHIIIHxx", cookie, 0, 0, _ADD, 0, 0, flow.priority, _NO_BUFFER, ANY, ANY, 0)
    body = head + match(flow.fields)
    if flow.may_pass:
        body += pack("!HH4x", _APPLY_ACTIONS, 24) + pack("!HHIH6x", _OUTPUT, 16, _NORMAL_PORT, 0)
    return body


def match(fields: list[tuple[int, bytes]]) -> bytes:
    content = b"".join(pack("!HBB", 0x8000, number << 1, len(value)) + value for number, value in fields)
    return pack("!HH", 1, 4 + len(content)) + content + b"\0" * (-(4 + len(content)) % 8)


_MULTIPART_REQUEST = 18
_FLOW_STATS, _AGGREGATE = 1, 2


def count(bridge: OpenFlow, selection: Selection) -> int:
    """How many of the flows the bridge has."""
    [answer] = bridge.talk([(_MULTIPART_REQUEST, _statistics(_AGGREGATE, selection))])
    return int(unpack_from("!I", answer, 8 + 16)[0])


def ports(bridge: OpenFlow, selection: Selection) -> set[int]:
    """The ports that flows match, those flows that match one."""
    found = set()
    for answer in bridge.talk([(_MULTIPART_REQUEST, _statistics(_FLOW_STATS, selection))]):
        at = 8
        while at < len(answer):
            [length] = unpack_from("!H", answer, at)
            field, end = at + 52, at + 48 + unpack_from("!H", answer, at + 50)[0]
            while field < end:
                header = unpack_from("!HBB", answer, field)
                if header[:2] == (0x8000, IN_PORT << 1):
                    found.add(int(unpack_from("!I", answer, field + 4)[0]))
                field += 4 + header[2]
            at += length
    return found


def _statistics(kind: int, selection: Selection) -> bytes:
    query = pack("!HHIB3xII4xQQ", kind, 0, 0, ALL_TABLES, ANY, ANY, selection.cookie, selection.mask)
    return query + match(selection.fields)
