# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a pod's end of its veth gets, by raw rtnetlink inside the pod: addresses, routes, and to be set up at last.

Numbers are those of linux/rtnetlink.h and if_addr.h.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from .addresses import AF_INET, AF_INET6, packed, split_cidr
from .links import IFF_UP
from .netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, attribute, attributes, nested
from .rtnetlink import IFA_ADDRESS, IFA_LOCAL, IFLA_AF_SPEC, RTM_NEWLINK, Netlink, inet_conf

_RTM_NEWADDR, _RTM_NEWROUTE, _RTM_GETROUTE = 20, 24, 26
_IFA_BROADCAST, _IFA_F_NODAD = 4, 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_METRICS, _RTA_TABLE = 1, 4, 5, 6, 8, 15
_RTAX_MTU, _RTAX_ADVMSS = 2, 8
_IP6_RT_PRIO_USER = 1024
"""linux/ipv6_route.h."""
_FIRST_INDEX = 2
"""That of the first interface of a namespace but lo."""
_RT_TABLE_UNSPEC = 0
_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 3, 0, 253, 1
_ARP_NOTIFY = 22
"""linux/ip.h, IPV4_DEVCONF_ARP_NOTIFY."""


class Route:
    """A route of a pod's interface: destination and gateway packed, and what CNI 1.1 has besides, None by default."""

    __slots__ = ("advmss", "destination", "gateway", "length", "mtu", "priority", "scope", "table")

    def __init__(self, destination: str, gateway: str | None, **more: int | None) -> None:
        self.destination, self.length = split_cidr(destination)
        self.gateway = packed(gateway) if gateway else None
        self.mtu = more.get("mtu")
        self.advmss = more.get("advmss")
        self.priority = more.get("priority")
        self.table = more.get("table")
        self.scope = more.get("scope")


class PodNetlink(Netlink):
    """A socket into the pod's network namespace."""

    def give_addresses(self, index: int, addresses: list[tuple[bytes, int]]) -> None:
        """Addresses (packed, prefix length) of a device that is down.

        The kernel itself tells the neighbours at its start (arp_notify): closing a packet socket would cost 15 ms.
        """
        here = pack("=BxHiII", 0, 0, index, 0, 0)
        batch = [(RTM_NEWLINK, 0, here + nested(IFLA_AF_SPEC, inet_conf({_ARP_NOTIFY: 1})))]
        batch += [(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address(index, *address)) for address in addresses]
        self.change("addresses of the pod", batch)

    def open_link(self, index: int, routes: list[Route]) -> None:
        """The device up, then its routes, in one batch."""
        batch = [(RTM_NEWLINK, 0, pack("=BxHiII", 0, 0, index, IFF_UP, IFF_UP))]
        # Behind those of another interface of the pod's that lead to the same place.
        batch += [(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, _route(index, route)) for route in routes]
        self.change("routes of the pod", batch)

    def routes(self, family: int) -> set[tuple[bytes, int, bytes, int]]:
        """Routes of the main table: destination, its prefix length, gateway (each b"" where there is none), device."""
        query = pack("=BBBBBBBBI", family, 0, 0, 0, _RT_TABLE_MAIN, 0, 0, 0, 0)
        found = set()
        for answer in self.dump("routes", _RTM_GETROUTE, query):
            fields = attributes(answer, 12)
            if answer[4] == _RT_TABLE_MAIN and _RTA_OIF in fields:
                index = unpack_from("=I", fields[_RTA_OIF])[0]
                found.add((fields.get(_RTA_DST, b""), answer[1], fields.get(_RTA_GATEWAY, b""), index))
        return found


def _address(index: int, address: bytes, prefix_length: int) -> bytes:
    family = AF_INET if len(address) == 4 else AF_INET6
    # An IPv6 address is the registry's and IPAM's word: no other node has it, it is used without being probed for.
    flags = _IFA_F_NODAD if family == AF_INET6 else 0
    body = pack("=BBBBI", family, prefix_length, flags, _RT_SCOPE_UNIVERSE, index)
    body += attribute(IFA_LOCAL, address) + attribute(IFA_ADDRESS, address)
    if family == AF_INET and prefix_length < 31:
        broadcast = int.from_bytes(address, "big") | (0xFFFFFFFF >> prefix_length)
        body += attribute(_IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    return body


def _route(index: int, route: Route) -> bytes:
    family = AF_INET if len(route.destination) == 4 else AF_INET6
    scope, priority, table = route.scope, route.priority, route.table or _RT_TABLE_MAIN
    if scope is None:
        scope = _RT_SCOPE_UNIVERSE if route.gateway else _RT_SCOPE_LINK
    if priority is None and family == AF_INET6:
        # Two of one priority would become one with two ways. The first interface's is the kernel's own default.
        priority = _IP6_RT_PRIO_USER + max(0, index - _FIRST_INDEX)
    narrow = table if table < 256 else _RT_TABLE_UNSPEC
    body = pack("=BBBBBBBBI", family, route.length, 0, 0, narrow, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
    if route.length:
        body += attribute(_RTA_DST, route.destination)
    if route.gateway:
        body += attribute(_RTA_GATEWAY, route.gateway)
    if priority is not None:
        body += attribute(_RTA_PRIORITY, pack("=I", priority))
    if table >= 256:
        body += attribute(_RTA_TABLE, pack("=I", table))
    metrics = ((_RTAX_MTU, route.mtu), (_RTAX_ADVMSS, route.advmss))
    if known := b"".join(attribute(kind, pack("=I", value)) for kind, value in metrics if value is not None):
        body += nested(_RTA_METRICS, known)
    return body + attribute(_RTA_OIF, pack("=I", index))
