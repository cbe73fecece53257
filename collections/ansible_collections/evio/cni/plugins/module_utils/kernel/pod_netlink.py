# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses and routes of a pod's interface by raw rtnetlink, in the pod's network namespace.

Numbers are those of linux/rtnetlink.h and if_addr.h.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from ..cidr import AF_INET, AF_INET6, family, packed, split_cidr
from .links import IFF_UP, IFLA_ADDRESS, ifinfo
from .netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NetlinkError, attr_nested, attribute, parse_attributes
from .netns import in_netns
from .rtnetlink import IFA_ADDRESS, IFA_LOCAL, IFLA_AF_SPEC, RTM_NEWLINK, Netlink, inet_conf

_IPV4_DEVCONF_ARP_NOTIFY = 22
"""linux/ip.h"""

_RTM_NEWADDR = 20

_IFA_BROADCAST = 4

_IFA_F_NODAD = 0x02

_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_METRICS, _RTA_TABLE = 1, 4, 5, 6, 8, 15

_RTAX_MTU, _RTAX_ADVMSS = 2, 8

_RT_TABLE_UNSPEC, _RT_TABLE_MAIN = 0, 254

_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253

_RTPROT_BOOT, _RTN_UNICAST = 3, 1

_IP6_RT_PRIO_USER = 1024
"""linux/ipv6_route.h: the kernel's default priority of an IPv6 route."""

_FIRST_INDEX = 2
"""Index of the first device of a network namespace after ``lo``."""


class Route:
    """A route of a pod's interface, destination and gateway packed.

    ``more`` takes the further keys of a route in a CNI 1.1 result: mtu, advmss, priority, table and scope. The kernel
    chooses the value of a key that is missing or None.
    """

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
    """A socket in a pod's network namespace, for ADD and CHECK: also adds addresses, and adds and reads routes."""

    def __init__(self, netns: int) -> None:
        """Open the socket in the namespace that a descriptor refers to. Raises NetlinkError."""
        try:
            in_netns(netns, super().__init__)
        except OSError as error:
            raise NetlinkError("netlink", error.errno or 0) from None

    def set_up_with_addresses(self, index: int, addresses: list[tuple[bytes, int]]) -> None:
        """Add addresses (packed, prefix length) to a device and set it up, in one write. Raises NetlinkError."""
        notify = attr_nested(IFLA_AF_SPEC, inet_conf({_IPV4_DEVCONF_ARP_NOTIFY: 1}))
        batch = [(RTM_NEWLINK, 0, ifinfo(index) + notify)]
        batch += [(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address(index, *address)) for address in addresses]
        batch.append((RTM_NEWLINK, 0, ifinfo(index, IFF_UP)))
        self.change("addresses of the pod", batch)

    def announce_with_routes(self, index: int, mac: bytes, routes: list[Route]) -> None:
        """Let the kernel announce the device's addresses, and add its routes, in one write. Raises NetlinkError.

        The kernel does so when the device, which is up, is given its MAC (ip-sysctl.rst, arp_notify), also if that is
        the one that it has. Sending that frame from here would need a packet socket, which takes 15 ms to close.
        """
        batch = [(RTM_NEWLINK, 0, ifinfo(index) + attribute(IFLA_ADDRESS, mac))]
        # Appended: a route of another interface to the same destination, which the pod had before, keeps precedence.
        batch += [(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, _route(index, route)) for route in routes]
        self.change("routes of the pod", batch)

    def routes(self, address_family: int) -> set[tuple[bytes, int, bytes, int]]:
        """Return the routes of the main table: destination, its prefix length, gateway, index of the device.

        A default route has the destination b"", a route without a gateway the gateway b"". Raises NetlinkError.
        """
        query = pack("=BBBBBBBBI", address_family, 0, 0, 0, _RT_TABLE_MAIN, 0, 0, 0, 0)
        found = set()
        for answer in self.dump("routes", _RTM_GETROUTE, query):
            fields = parse_attributes(answer, 12)
            if answer[4] == _RT_TABLE_MAIN and _RTA_OIF in fields:
                index = unpack_from("=I", fields[_RTA_OIF])[0]
                found.add((fields.get(_RTA_DST, b""), answer[1], fields.get(_RTA_GATEWAY, b""), index))
        return found


def _address(index: int, address: bytes, prefix_length: int) -> bytes:
    version = family(address)
    # The registry and IPAM guarantee that no other node has the address: IPv6 need not probe for a duplicate first.
    flags = _IFA_F_NODAD if version == AF_INET6 else 0
    body = pack("=BBBBI", version, prefix_length, flags, _RT_SCOPE_UNIVERSE, index)
    body += attribute(IFA_LOCAL, address) + attribute(IFA_ADDRESS, address)
    if version == AF_INET and prefix_length < 31:
        broadcast = int.from_bytes(address, "big") | (0xFFFFFFFF >> prefix_length)
        body += attribute(_IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    return body


def _route(index: int, route: Route) -> bytes:
    version = family(route.destination)
    scope, priority, table = route.scope, route.priority, route.table or _RT_TABLE_MAIN
    if scope is None:
        scope = _RT_SCOPE_UNIVERSE if route.gateway else _RT_SCOPE_LINK
    if priority is None and version == AF_INET6:
        # The kernel would merge two IPv6 routes of one priority into a multipath route. The first interface gets the
        # kernel's default, each further interface a lower precedence.
        priority = _IP6_RT_PRIO_USER + max(0, index - _FIRST_INDEX)
    # struct rtmsg has one byte for the table; a larger number goes into an attribute.
    short_table = table if table < 256 else _RT_TABLE_UNSPEC
    body = pack("=BBBBBBBBI", version, route.length, 0, 0, short_table, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
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
        body += attr_nested(_RTA_METRICS, known)
    return body + attribute(_RTA_OIF, pack("=I", index))
