# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The addresses and routes that the host has, by raw netlink: this works before any package is installed.

Which of them are in the way of an overlay is ``overlay.conflicts``'s subject. Numbers are those of linux/rtnetlink.h
and if_addr.h.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from struct import unpack_from

from .links import LinkSocket
from .netlink import parse_attributes

_RTM_GETADDR, _RTM_GETROUTE = 22, 26

_IFA_ADDRESS, _IFA_LOCAL = 1, 2

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15

_RT_TABLE_LOCAL, _RTN_UNICAST = 255, 1

ADDRESS, ROUTE, GATEWAY = "address", "route to", "gateway"
"""Kinds of uses of a network."""


@dataclass(frozen=True)
class NetworkUse:
    """A network or address that an interface of the host has to do with."""

    interface: str
    """Name of the interface; empty for a route over several interfaces."""
    kind: str
    """ADDRESS, ROUTE or GATEWAY."""
    cidr: str


def networks_in_use() -> list[NetworkUse]:
    """Return all addresses, routes and gateways of the host, without default routes. Raises NetlinkError."""
    names = dict(socket.if_nameindex())
    found: list[NetworkUse] = []
    with LinkSocket() as netlink:
        for answer in netlink.dump("addresses", _RTM_GETADDR, bytes(8)):
            prefix_length, index = unpack_from("=xB2xI", answer)
            fields = parse_attributes(answer, 8)
            address = fields.get(_IFA_LOCAL, fields.get(_IFA_ADDRESS))
            if address is not None:
                found.append(NetworkUse(names.get(index, ""), ADDRESS, _cidr(address, prefix_length)))
        for answer in netlink.dump("routes", _RTM_GETROUTE, bytes(12)):
            fields = parse_attributes(answer, 12)
            table = unpack_from("=I", fields[_RTA_TABLE])[0] if _RTA_TABLE in fields else answer[4]
            if table == _RT_TABLE_LOCAL or answer[7] != _RTN_UNICAST:
                continue
            interface = names.get(unpack_from("=I", fields[_RTA_OIF])[0], "") if _RTA_OIF in fields else ""
            if _RTA_DST in fields:
                found.append(NetworkUse(interface, ROUTE, _cidr(fields[_RTA_DST], answer[1])))
            if _RTA_GATEWAY in fields:
                gateway = fields[_RTA_GATEWAY]
                found.append(NetworkUse(interface, GATEWAY, _cidr(gateway, 8 * len(gateway))))
    return found


def _cidr(address: bytes, prefix_length: int) -> str:
    return f"{ip_address(address)}/{prefix_length}"
