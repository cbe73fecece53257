# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""OpenFlow 1.3 (ONF TS-006) as far as pods' ports need it: add flows to a bridge, delete them, count and list them.

Over the management socket that vswitchd has for each bridge, beside the socket of its database. Which flows a port
gets is the subject of ``port_security``. Section numbers below are those of ONF TS-006.
"""

from __future__ import annotations

from _struct import error as struct_error  # type: ignore[attr-defined]
from _struct import pack, unpack_from
from time import monotonic

from ..deadline import seconds_left
from ..errors import EvioError
from ..kernel.numbers import ECONNRESET
from ..kernel.unix_socket import connect_unix, receive

# Section 7.2.3.7, OFPXMT_OFB_*: fields that a flow can match.
IN_PORT, ETH_DST, ETH_SRC, ETH_TYPE, VLAN_VID, IP_PROTO, IPV4_SRC, IPV4_DST = 0, 3, 4, 5, 6, 10, 11, 12
ICMPV4_TYPE, ARP_SPA, ARP_SHA, IPV6_SRC, IPV6_DST, ICMPV6_TYPE, ND_TARGET, ND_SLL, ND_TLL = (
    *(19, 22, 24, 26, 27, 29, 31, 32, 33),
)

_VERSION = 4

# Section 7.1, OFPT_*: types of messages.
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY, _FLOW_MOD = 0, 1, 2, 3, 14
_MULTIPART_REQUEST, _MULTIPART_REPLY, _BARRIER_REQUEST = 18, 19, 20

# Section 7.3.4.1, OFPFC_*.
_ADD, _DELETE = 0, 3

# Section 7.3.5, OFPMP_* and OFPMPF_REPLY_MORE.
_FLOW, _AGGREGATE, _REPLY_MORE = 1, 2, 1

# OFPTT_ALL, OFPP_ANY and OFPG_ANY, OFP_NO_BUFFER, OFPP_NORMAL, OFPP_LOCAL.
_ALL_TABLES, _ANY, _NO_BUFFER, _NORMAL_PORT, _LOCAL_PORT = 0xFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFA, 0xFFFFFFFE

# Section 7.2.4, OFPIT_*; section 7.2.5, OFPAT_*.
_GOTO_TABLE, _APPLY_ACTIONS, _OUTPUT, _SET_FIELD = 1, 4, 0, 25

_OXM_CLASS = 0x8000
"""OFPXMC_OPENFLOW_BASIC"""

_MASKED = 0x80
"""Added to the number of a field whose value is followed by a mask."""

_WHOLE_COOKIE = 0xFFFFFFFFFFFFFFFF

_HIGHEST = 0xFFFF
"""Priority."""

_TIMEOUT_SECONDS = 5.0

_LONGEST_ANSWER = 64 << 20
"""Bytes."""


class OpenFlowError(EvioError):
    """The bridge does not answer, or refuses a request."""


class NotServedError(OpenFlowError):
    """Nobody serves the bridge: vswitchd does not run, or has just started."""


DROP = b""
"""Instructions of a flow that drops."""


def _output(port: int) -> bytes:
    return pack("!HHIH6x", _OUTPUT, 16, port, 0)


NORMAL = pack("!HH4x", _APPLY_ACTIONS, 24) + _output(_NORMAL_PORT)
"""Instructions of a flow that forwards as a switch does that learns MACs."""


def goto_table(table: int) -> bytes:
    """Return the instructions of a flow that leaves the rest to another table."""
    return pack("!HHB3x", _GOTO_TABLE, 8, table)


def to_local(mac: bytes) -> bytes:
    """Return the instructions of a flow that gives frames to the kernel by the bridge's device, which has this MAC."""
    set_mac = pack("!HHHBB6s2x", _SET_FIELD, 16, _OXM_CLASS, ETH_DST << 1, 6, mac)
    return pack("!HH4x", _APPLY_ACTIONS, 40) + set_mac + _output(_LOCAL_PORT)


def masked(field: int, value: bytes, mask: bytes) -> tuple[int, bytes]:
    """Return the field of a flow that matches where the bits of the mask are as in the value."""
    return field | _MASKED, value + mask


class Flow:
    """A flow: which frames it matches, and its instructions, as DROP or NORMAL.

    Each of ``fields`` is the number of a field and its value, or from ``masked``; a flow without fields matches all
    frames.
    """

    __slots__ = ("fields", "instructions", "priority", "table")

    def __init__(self, priority: int, fields: list[tuple[int, bytes]], instructions: bytes, *, table: int = 0) -> None:
        self.priority = priority
        self.fields = fields
        self.instructions = instructions
        self.table = table


class Selection:
    """Which flows to count, list or delete: by the bits of the cookie that ``mask`` has, and by the port they match."""

    __slots__ = ("cookie", "fields", "mask")

    def __init__(self, cookie: int, mask: int = _WHOLE_COOKIE, port: int | None = None) -> None:
        self.cookie = cookie
        self.mask = mask
        self.fields: list[tuple[int, bytes]] = [] if port is None else [(IN_PORT, pack("!I", port))]


class PortFlow:
    """A flow of a bridge that matches a port, by its OpenFlow number; ``age`` in seconds, rounded down."""

    __slots__ = ("age", "cookie", "port")

    def __init__(self, cookie: int, port: int, age: int) -> None:
        self.cookie = cookie
        self.port = port
        self.age = age


def management_socket(ovsdb: str, bridge: str) -> str:
    """Return the path of the socket at which vswitchd serves OpenFlow for the bridge; a new vswitchd makes it anew."""
    return f"{ovsdb.removeprefix('unix:').rpartition('/')[0]}/{bridge}.mgmt"


class OpenFlow:
    """A connection to one bridge of the Open vSwitch whose database is at ``unix:PATH``."""

    def __init__(self, ovsdb: str, bridge: str) -> None:
        """Connect. Raises NotServedError."""
        self._bridge = bridge
        self._unread = b""
        self._first = self._transaction = 0
        """Numbers of the first and of the last message of the last write."""
        self._is_answered = True
        path = management_socket(ovsdb, bridge)
        try:
            self._socket = connect_unix(path, seconds_left(_TIMEOUT_SECONDS))
            try:
                # OFPT_HELLO with a bitmap of versions (section 7.5.1).
                self._socket.sendall(pack("!BBHIHHI", _VERSION, _HELLO, 16, 0, 1, 8, 1 << _VERSION))
            except OSError:
                self._socket.close()
                raise
        except OSError as error:
            raise NotServedError(
                f"the bridge {bridge} takes no flows at {path} ({error.strerror}): is ovs-vswitchd running? "
                "systemctl restart ovs-vswitchd starts it"
            ) from None

    def __enter__(self) -> OpenFlow:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def settle(self) -> None:
        """Wait until the bridge has carried out what was sent without waiting for the answer, or does not answer."""
        try:
            if not self._is_answered:
                self._answer()
        except OpenFlowError:
            return

    def change(self, deletions: list[Selection], cookie: int, flows: list[Flow]) -> None:
        """Delete flows, then add flows with this cookie, and wait until the bridge uses them. Raises OpenFlowError."""
        messages = [(_FLOW_MOD, _deletion(selection)) for selection in deletions]
        messages += [(_FLOW_MOD, _addition(cookie, flow)) for flow in flows]
        self._request([*messages, (_BARRIER_REQUEST, b"")])

    def count(self, selection: Selection) -> int:
        """Return how many of these flows the bridge has. Raises OpenFlowError."""
        self.begin_count(selection)
        return self.finish_count()

    def begin_count(self, selection: Selection, closed: Selection | None = None) -> None:
        """Send the question how many of these flows the bridge has, for ``finish_count``. Raises OpenFlowError.

        With ``closed``, a flow above all others first drops what that port sends, also if there is no such port yet. It
        has the cookie of ``closed``, and the bridge uses it before it answers.
        """
        closing = [] if closed is None else [(_FLOW_MOD, _closing(closed)), (_BARRIER_REQUEST, b"")]
        self._send([*closing, (_MULTIPART_REQUEST, _statistics(_AGGREGATE, selection))])

    def finish_count(self) -> int:
        """Return the answer to ``begin_count``. Raises OpenFlowError."""
        [answer] = self._answer()
        return int(unpack_from("!I", answer, 8 + 16)[0])

    def replace(self, deletions: list[Selection], cookie: int, flows: list[Flow], closed: Selection) -> None:
        """As ``change``, while a flow above all others drops what the port of ``closed`` sends.

        That flow has the cookie of ``closed``, and takes the place of one with another cookie. All requests are in one
        write: who is killed in between leaves no port closed. Raises OpenFlowError.
        """
        messages = [(_FLOW_MOD, _closing(closed))]
        messages += [(_FLOW_MOD, _deletion(selection)) for selection in deletions]
        messages += [(_FLOW_MOD, _addition(cookie, flow)) for flow in flows]
        self._request([*messages, (_FLOW_MOD, _deletion(closed)), (_BARRIER_REQUEST, b"")])

    def read(self) -> list[bytes]:
        """Return all flows of the bridge, as ``restore`` takes them. Raises OpenFlowError."""
        found = []
        for flow in self._statistics(Selection(0, 0)):
            table, priority, idle, hard, flags, cookie = unpack_from("!2xB9xHHHH4xQ", flow)
            head = pack("!QQBB", cookie, 0, table, _ADD)
            head += pack("!HHHIIIHxx", idle, hard, priority, _NO_BUFFER, _ANY, _ANY, flags)
            found.append((priority, head + flow[48:]))
        # Flows that drop have a higher priority than those that let pass.
        return [body for _priority, body in sorted(found, key=lambda one: -one[0])]

    def restore(self, flows: list[bytes]) -> None:
        """Add flows that ``read`` has returned, and wait until the bridge uses them. Raises OpenFlowError."""
        self._request([*((_FLOW_MOD, flow) for flow in flows), (_BARRIER_REQUEST, b"")])

    def flows_of_ports(self, selection: Selection) -> list[PortFlow]:
        """Return those of these flows that match a port. Raises OpenFlowError."""
        found = []
        for flow in self._statistics(selection):
            age, cookie = unpack_from("!4xI16xQ", flow)
            field, end = 52, 48 + unpack_from("!H", flow, 50)[0]
            while field < end:
                oxm_class, number, size = unpack_from("!HBB", flow, field)
                if (oxm_class, number) == (_OXM_CLASS, IN_PORT << 1):
                    found.append(PortFlow(cookie, unpack_from("!I", flow, field + 4)[0], age))
                field += 4 + size
        return found

    def _statistics(self, selection: Selection) -> list[bytes]:
        """Return a struct ofp_flow_stats for each flow: 48 bytes, its match and its instructions (section 7.3.5.2)."""
        found = []
        for answer in self._request([(_MULTIPART_REQUEST, _statistics(_FLOW, selection))]):
            at = 8  # After the multipart header.
            while at < len(answer):
                [length] = unpack_from("!H", answer, at)
                if length < 56:
                    raise self._nonsense()
                found.append(answer[at : at + length])
                at += length
        return found

    def _request(self, messages: list[tuple[int, bytes]]) -> list[bytes]:
        """Send messages (type, body) in one write, and return the bodies of the parts of the answer to the last one."""
        self._send(messages)
        return self._answer()

    def _send(self, messages: list[tuple[int, bytes]]) -> None:
        self._first = self._transaction + 1
        data = b""
        for kind, body in messages:
            self._transaction += 1
            data += pack("!BBHI", _VERSION, kind, 8 + len(body), self._transaction) + body
        self._is_answered = False
        try:
            self._socket.sendall(data)
        except BlockingIOError:
            raise OpenFlowError(f"the bridge {self._bridge} does not answer in time") from None
        except OSError as error:
            raise OpenFlowError(f"the bridge {self._bridge} broke off: {error.strerror}") from None

    def _answer(self) -> list[bytes]:
        """Return the bodies of the parts of the answer to the last message that was sent.

        The bridge answers messages in their order.
        """
        self._is_answered = True
        parts: list[bytes] = []
        limit = seconds_left(_TIMEOUT_SECONDS)
        deadline = monotonic() + limit
        try:
            while True:
                kind, transaction, body = self._receive(deadline)
                if kind == _ECHO_REQUEST:
                    self._socket.sendall(pack("!BBHI", _VERSION, _ECHO_REPLY, 8 + len(body), transaction) + body)
                elif kind == _ERROR and (transaction >= self._first or transaction == 0):
                    error, code = unpack_from("!HH", body)
                    raise OpenFlowError(f"the bridge {self._bridge} refuses a flow: OpenFlow error {error}, {code}")
                elif kind != _HELLO and transaction == self._transaction:
                    parts.append(body)
                    if kind != _MULTIPART_REPLY or not unpack_from("!2xH", body)[0] & _REPLY_MORE:
                        return parts
                if monotonic() > deadline:
                    raise BlockingIOError
                if sum(map(len, parts)) > _LONGEST_ANSWER:
                    raise self._nonsense()
        except struct_error:
            raise self._nonsense() from None
        except BlockingIOError:
            raise OpenFlowError(f"the bridge {self._bridge} does not answer within {limit:.1f} s") from None
        except OSError as error:
            raise OpenFlowError(f"the bridge {self._bridge} broke off: {error.strerror}") from None

    def _nonsense(self) -> OpenFlowError:
        return OpenFlowError(f"the bridge {self._bridge} does not answer in OpenFlow 1.3: is it a bridge of vswitchd?")

    def _receive(self, deadline: float) -> tuple[int, int, bytes]:
        """Return the type, transaction and body of the next message."""
        while True:
            if len(self._unread) >= 8:
                _version, kind, length, transaction = unpack_from("!BBHI", self._unread)
                if length < 8:
                    raise self._nonsense()
                if len(self._unread) >= length:
                    body, self._unread = self._unread[8:length], self._unread[length:]
                    return kind, transaction, body
            received = receive(self._socket, deadline)
            if not received:
                raise OSError(ECONNRESET, "Connection reset by peer")
            self._unread += received


def _deletion(selection: Selection) -> bytes:
    """Return the body of an OFPT_FLOW_MOD that deletes flows (section 7.3.4.1)."""
    head = pack("!QQBB", selection.cookie, selection.mask, _ALL_TABLES, _DELETE)
    return head + pack("!HHHIIIHxx", 0, 0, 0, _NO_BUFFER, _ANY, _ANY, 0) + _match(selection.fields)


def _addition(cookie: int, flow: Flow) -> bytes:
    """Return the body of an OFPT_FLOW_MOD that adds a flow."""
    head = pack("!QQBBHHHIIIHxx", cookie, 0, flow.table, _ADD, 0, 0, flow.priority, _NO_BUFFER, _ANY, _ANY, 0)
    return head + _match(flow.fields) + flow.instructions


def _closing(closed: Selection) -> bytes:
    """Return the body of an OFPT_FLOW_MOD that adds the flow which drops all that this port sends."""
    return _addition(closed.cookie, Flow(_HIGHEST, closed.fields, DROP))


def _statistics(kind: int, selection: Selection) -> bytes:
    """Return the body of an OFPT_MULTIPART_REQUEST about flows (sections 7.3.5.2 and 7.3.5.3)."""
    query = pack("!HHIB3xII4xQQ", kind, 0, 0, _ALL_TABLES, _ANY, _ANY, selection.cookie, selection.mask)
    return query + _match(selection.fields)


def _match(fields: list[tuple[int, bytes]]) -> bytes:
    """Return a struct ofp_match with its padding (section 7.2.3)."""
    content = b"".join(_oxm_header(number, len(value)) + value for number, value in fields)
    return pack("!HH", 1, 4 + len(content)) + content + b"\0" * (-(4 + len(content)) % 8)


def _oxm_header(number: int, length: int) -> bytes:
    has_mask = bool(number & _MASKED)
    return pack("!HBB", _OXM_CLASS, (number & ~_MASKED) << 1 | has_mask, length)
