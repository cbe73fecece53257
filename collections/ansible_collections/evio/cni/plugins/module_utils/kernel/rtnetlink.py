# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Network devices by raw rtnetlink: found by their names, and removed. All that a DEL needs of the kernel.

Numbers are those of linux/rtnetlink.h and if_link.h. What an ADD makes of devices is the subject of rtnetlink.


The host's side of a pod's network by raw rtnetlink: its veth pair, and the addresses of the bridge.

Importing pyroute2 alone takes ten times as long as all of an ADD; modules and repair use it all the same. Numbers are
those of linux/rtnetlink.h, if_link.h, if_addr.h and veth.h. The pod's side: pod_netlink.


What a pod's end of its veth gets, by raw rtnetlink inside the pod: addresses, routes, and to be set up at last.

Numbers are those of linux/rtnetlink.h and if_addr.h.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from ..cidr import AF_INET, AF_INET6, packed, split_cidr
from ..mtu import LEAST_MTU_IPV6
from .netlink import (
    NETLINK_ROUTE,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkError,
    NetlinkSocket,
    attr_nested,
    attr_string,
    attribute,
    attributes,
)

IFF_UP = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU = 1, 3, 4
_RTM_DELLINK, _RTM_GETLINK = 17, 18
_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS = 29, 8
_SIOCGIFINDEX = 0x8933
_ENODEV = 19


class Link:
    """A network device: index, state, MTU in bytes, MAC in its usual form."""

    __slots__ = ("index", "is_up", "mac", "mtu", "name")

    def __init__(self, index: int, is_up: bool, name: str, mtu: int, mac: str) -> None:
        self.index = index
        self.is_up = is_up
        self.name = name
        self.mtu = mtu
        self.mac = mac


class LinkSocket(NetlinkSocket):
    """A socket into one network namespace: that of the caller, or the one whose file descriptor is given."""

    def __init__(self, netns: int | None = None) -> None:
        super().__init__(NETLINK_ROUTE, netns)

    def link(self, name: str) -> Link | None:
        """The device of this name, or None."""
        query = pack("=BxHiII", 0, 0, 0, 0, 0) + attr_string(IFLA_IFNAME, name)
        query += attribute(_IFLA_EXT_MASK, pack("=I", _RTEXT_FILTER_SKIP_STATS))
        try:
            answer = self.ask("link " + name, _RTM_GETLINK, query)
        except NetlinkError as error:
            if error.errno == _ENODEV:
                return None
            raise
        index, flags = unpack_from("=4xiI4x", answer)
        fields = attributes(answer, 16)
        return Link(
            index,
            bool(flags & IFF_UP),
            fields[IFLA_IFNAME].rstrip(b"\0").decode(),
            unpack_from("=I", fields[IFLA_MTU])[0],
            fields.get(IFLA_ADDRESS, b"").hex(":"),
        )

    def index(self, name: str) -> int:
        """The index of the device of this name. Raises NetlinkError, as where there is none."""
        request = pack("16s24x", name.encode("utf-8", "surrogateescape"))
        return int(unpack_from("16xi", self.control("link " + name, _SIOCGIFINDEX, request))[0])

    def delete_link(self, name: str) -> None:
        """Remove a device, if there is one of this name. Raises NetlinkError."""
        try:
            self.change("link " + name, [(_RTM_DELLINK, 0, ifinfo_by_name(name))])
        except NetlinkError as error:
            if error.errno != _ENODEV:
                raise


def ifinfo_by_name(name: str) -> bytes:
    return pack("=BxHiII", 0, 0, 0, 0, 0) + attr_string(IFLA_IFNAME, name)


RTM_NEWLINK = 16
IFLA_AF_SPEC = 26
IFA_ADDRESS, IFA_LOCAL = 1, 2
_RTM_GETADDR = 22
_IFF_PROMISC = 0x100
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER, _IFLA_INET_CONF = 1, 2, 1, 1
_IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_ARP_IGNORE = 19
"""linux/ip.h, IPV4_DEVCONF_ARP_IGNORE; 8 is to answer nobody."""


class Netlink(LinkSocket):
    """A socket into one network namespace: that of the caller, or the one whose file descriptor is given."""

    def addresses(self, index: int) -> set[tuple[bytes, int]]:
        """The addresses of a device, packed, each with its prefix length; link-local ones too."""
        query = pack("=BBBBI", 0, 0, 0, 0, index)
        found = set()
        for answer in self.dump("addresses", _RTM_GETADDR, query):
            prefix_length, its_index = unpack_from("=xB2xI", answer)
            if its_index == index:
                fields = attributes(answer, 8)
                found.add((fields.get(IFA_LOCAL, fields.get(IFA_ADDRESS, b"")), prefix_length))
        return found

    def create_veth(self, name: str, mac: bytes, peer: str, peer_mac: bytes, netns: int, mtu: int | None) -> None:
        """A veth pair in one step: this end up here, its peer, still down, in the namespace of the descriptor.

        Our end is an Open vSwitch port and nothing else: this kernel, which sees its frames too when the datapath is
        vswitchd's, gives it no IPv6 address and answers no ARP there; packets are dropped by the node's rules.
        """
        size = b"" if mtu is None else attribute(IFLA_MTU, pack("=I", mtu))
        there = (
            pack("=BxHiII", 0, 0, 0, 0, 0) + attr_string(IFLA_IFNAME, peer) + attribute(IFLA_ADDRESS, peer_mac) + size
        )
        there += attribute(_IFLA_NET_NS_FD, pack("=I", netns))
        pair = attr_string(_IFLA_INFO_KIND, "veth") + attr_nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, there))
        here = ifinfo_by_name(name) + attribute(IFLA_ADDRESS, mac) + size + attr_nested(_IFLA_LINKINFO, pair)
        closed = inet_conf({_ARP_IGNORE: 8})
        if mtu is None or mtu >= LEAST_MTU_IPV6:
            closed += attr_nested(AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, pack("=B", _ADDR_GEN_NONE)))
        closed = attr_nested(IFLA_AF_SPEC, closed)
        self.change(
            f"veth pair {name} and {peer}",
            [
                (RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, here),
                (RTM_NEWLINK, 0, ifinfo_by_name(name) + closed),
                # As vswitchd would make it itself, and then look at all its links and routes once more.
                (RTM_NEWLINK, 0, _up(name, _IFF_PROMISC)),
            ],
        )

    def raise_link(self, name: str) -> None:
        """Set a device up."""
        self.change("link " + name, [(RTM_NEWLINK, 0, _up(name))])


def _up(name: str, more: int = 0) -> bytes:
    return pack("=BxHiII", 0, 0, 0, IFF_UP | more, IFF_UP | more) + attr_string(IFLA_IFNAME, name)


def inet_conf(settings: dict[int, int]) -> bytes:
    """Of IFLA_AF_SPEC: a device's IPv4 settings by their numbers (linux/ip.h)."""
    values = b"".join(attribute(number, pack("=I", value)) for number, value in settings.items())
    return attr_nested(AF_INET, attr_nested(_IFLA_INET_CONF, values))


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
        batch = [(RTM_NEWLINK, 0, here + attr_nested(IFLA_AF_SPEC, inet_conf({_ARP_NOTIFY: 1})))]
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
        body += attr_nested(_RTA_METRICS, known)
    return body + attribute(_RTA_OIF, pack("=I", index))
