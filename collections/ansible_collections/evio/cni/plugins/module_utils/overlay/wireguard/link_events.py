# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the kernel tells of changes to the overlay's interface, its addresses and its routes: rtnetlink(7), multicast.

The agent is told when to look, not what has changed: interface and managed_device compare all that there is.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from struct import unpack_from

from ...kernel.netlink import parse_attributes

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE of linux/rtnetlink.h."""

_LINK_MESSAGES, _ADDRESS_MESSAGES, _ROUTE_MESSAGES = (16, 17), (20, 21), (24, 25)
"""RTM_NEW and RTM_DEL of each kind."""

_IFLA_IFNAME, _RTA_DST, _RTA_OIF = 3, 1, 4

_RT_SCOPE_LINK = 253
"""Addresses of this scope and beyond it are of no use outside their link."""

_RT_TABLE_LOCAL, _RTN_UNICAST = 255, 1

_IPV6_LINK_LOCAL = b"\xfe\x80"
"""The first bytes of fe80::/64, the route to the neighbours that every interface with IPv6 has."""

_IFINFOMSG, _RTMSG = 16, 12
"""Bytes before a message's attributes."""

_KERNEL = 0
"""The port id of the kernel as the sender of a message."""

_DATAGRAMS = 256
"""Datagrams that are read at a time. A host that starts many pods has many; the selector reports the rest again."""


@dataclass(frozen=True)
class Changes:
    """What the kernel has reported since the last look."""

    of_interface: bool
    """Whether the overlay's interface, its addresses or its routes have changed."""
    of_networks: bool
    """Whether an address or route of the host has changed that reaches beyond a link."""


class LinkEvents:
    """A socket on which the kernel reports changes of all interfaces of the agent's network namespace."""

    def __init__(self, selector: selectors.BaseSelector, data: object) -> None:
        """Open the socket; ``data`` is what the selector reports when ``read`` has something to read."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))
        self._index = 0
        selector.register(self._socket, selectors.EVENT_READ, data)

    def read(self, interface: str) -> Changes:
        """Read what the kernel has reported. If some of it is lost, all may have changed."""
        former = self._index
        with contextlib.suppress(OSError):
            self._index = socket.if_nametoindex(interface)
        of_interface = of_networks = False
        # All messages are read, because one that is left would be reported as a new one.
        for kind, body in self._messages():
            of_interface |= kind is None or _is_about(kind, body, interface, {former, self._index} - {0})
            of_networks |= kind is None or _is_of_a_network(kind, body)
        return Changes(of_interface, of_networks)

    def _messages(self) -> Iterator[tuple[int | None, bytes]]:
        """Yield type and body of each message; the type is None where the kernel had no room for messages."""
        for _datagram in range(_DATAGRAMS):
            try:
                datagram, (sender, _groups) = self._socket.recvfrom(65536)
            except BlockingIOError:
                return
            except OSError:
                # ENOBUFS, or a failure that must not end the agent either.
                yield None, b""
                continue
            at = 0
            while sender == _KERNEL and at < len(datagram):
                length, kind = unpack_from("=IH", datagram, at)
                yield kind, datagram[at + 16 : at + length]
                at += (length + 3) & ~3


def _is_of_a_network(kind: int, body: bytes) -> bool:
    """Return whether the message is of an address or a route as ``kernel.networks_in_use`` lists them.

    Interfaces that pods plug in and out have neither.
    """
    if kind in _ADDRESS_MESSAGES:
        return bool(unpack_from("=3xB", body)[0] < _RT_SCOPE_LINK)
    if kind in _ROUTE_MESSAGES:
        table, route_type = unpack_from("=4xB2xB", body)
        destination = parse_attributes(body, _RTMSG).get(_RTA_DST, b"")
        return table != _RT_TABLE_LOCAL and route_type == _RTN_UNICAST and destination[:2] != _IPV6_LINK_LOCAL
    return False


def _is_about(kind: int, body: bytes, interface: str, indexes: set[int]) -> bool:
    if kind in _LINK_MESSAGES:
        name = parse_attributes(body, _IFINFOMSG).get(_IFLA_IFNAME, b"").rstrip(b"\0")
        return name == interface.encode() or unpack_from("=4xi", body)[0] in indexes
    if kind in _ADDRESS_MESSAGES:
        return unpack_from("=4xI", body)[0] in indexes
    if kind in _ROUTE_MESSAGES:
        device = parse_attributes(body, _RTMSG).get(_RTA_OIF)
        return device is not None and unpack_from("=I", device)[0] in indexes
    return False
