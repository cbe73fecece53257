# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's side of a pod's network by raw rtnetlink: its veth pair, and the addresses of the bridge.

Importing pyroute2 alone takes ten times as long as all of an ADD; modules and repair use it all the same. Numbers are
those of linux/rtnetlink.h, if_link.h, if_addr.h and veth.h. The pod's side: pod_netlink.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from .addresses import AF_INET, AF_INET6
from .links import IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, LinkSocket, by_name
from .netlink import NLM_F_CREATE, NLM_F_EXCL, attribute, attributes, nested, text

RTM_NEWLINK = 16
IFLA_AF_SPEC = 26
IFA_ADDRESS, IFA_LOCAL = 1, 2

_RTM_GETADDR = 22
_IFF_PROMISC = 0x100
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER, _IFLA_INET_CONF = 1, 2, 1, 1
_IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_LEAST_MTU_IPV6 = 1280
"""RFC 8200 section 5: a device of less has no IPv6, and the kernel refuses to be told how it should be."""

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
        there = pack("=BxHiII", 0, 0, 0, 0, 0) + text(IFLA_IFNAME, peer) + attribute(IFLA_ADDRESS, peer_mac) + size
        there += attribute(_IFLA_NET_NS_FD, pack("=I", netns))
        pair = text(_IFLA_INFO_KIND, "veth") + nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, there))
        here = by_name(name) + attribute(IFLA_ADDRESS, mac) + size + nested(_IFLA_LINKINFO, pair)
        closed = inet_conf({_ARP_IGNORE: 8})
        if mtu is None or mtu >= _LEAST_MTU_IPV6:
            closed += nested(AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, pack("=B", _ADDR_GEN_NONE)))
        closed = nested(IFLA_AF_SPEC, closed)
        self.change(
            f"veth pair {name} and {peer}",
            [
                (RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, here),
                (RTM_NEWLINK, 0, by_name(name) + closed),
                # As vswitchd would make it itself, and then look at all its links and routes once more.
                (RTM_NEWLINK, 0, _up(name, _IFF_PROMISC)),
            ],
        )

    def raise_link(self, name: str) -> None:
        """Set a device up."""
        self.change("link " + name, [(RTM_NEWLINK, 0, _up(name))])


def _up(name: str, more: int = 0) -> bytes:
    return pack("=BxHiII", 0, 0, 0, IFF_UP | more, IFF_UP | more) + text(IFLA_IFNAME, name)


def inet_conf(settings: dict[int, int]) -> bytes:
    """Of IFLA_AF_SPEC: a device's IPv4 settings by their numbers (linux/ip.h)."""
    values = b"".join(attribute(number, pack("=I", value)) for number, value in settings.items())
    return nested(AF_INET, nested(_IFLA_INET_CONF, values))
