# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Veth pairs and the bridge's addresses by raw rtnetlink, for the host's side of the CNI verbs.

``links`` finds and deletes devices; ``pod_netlink`` sets up the pod's side. The rest of the library uses pyroute2
(``iproute``), whose import takes ten times as long as a whole ADD. Numbers are those of linux/rtnetlink.h, if_link.h,
if_addr.h, if_arp.h and veth.h.
"""

from __future__ import annotations

import posix
from _struct import pack, unpack_from

from ..cidr import AF_INET, AF_INET6
from ..mtu import LEAST_MTU_IPV6
from .links import IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, LinkSocket, ifinfo, ifinfo_by_name
from .netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkError,
    attr_nested,
    attr_string,
    attribute,
    parse_attributes,
)

RTM_NEWLINK = 16

_IFF_PROMISC = 0x100

_IFLA_LINKINFO, IFLA_AF_SPEC, _IFLA_NET_NS_FD = 18, 26, 28

_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1

_IFLA_INET_CONF = 1

_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1

_IPV4_DEVCONF_ARP_IGNORE = 19
"""linux/ip.h"""

_ARP_IGNORE_ALL = 8
"""Value of ARP_IGNORE: answer no ARP request (Documentation/networking/ip-sysctl.rst)."""

RTM_GETADDR = 22

IFA_ADDRESS, IFA_LOCAL = 1, 2

_IPV6_SETTINGS = "/proc/sys/net/ipv6"


def has_ipv6() -> bool:
    """Return whether this kernel has IPv6. One that was booted with ipv6.disable=1 refuses all that speaks of it."""
    return posix.access(_IPV6_SETTINGS, posix.F_OK)


class Netlink(LinkSocket):
    """A socket for the host's side of ADD and CHECK: also creates veth pairs, and reads the addresses of the bridge."""

    def addresses(self, index: int) -> set[tuple[bytes, int]]:
        """Return all addresses of a device, link-local ones too: packed, with prefix lengths. Raises NetlinkError."""
        query = pack("=BBBBI", 0, 0, 0, 0, index)
        found = set()
        for answer in self.dump("addresses", RTM_GETADDR, query):
            prefix_length, its_index = unpack_from("=xB2xI", answer)
            if its_index == index:
                fields = parse_attributes(answer, 8)
                found.add((fields.get(IFA_LOCAL, fields.get(IFA_ADDRESS, b"")), prefix_length))
        return found

    def create_veth(self, name: str, mac: bytes, peer: str, peer_mac: bytes, netns: int, mtu: int | None) -> None:
        """Create a veth pair in one step: ``name`` here, ``peer`` in the namespace of a descriptor; both are down.

        The host's end is an Open vSwitch port and nothing else. On a userspace bridge this kernel sees its frames as
        well; it gets no IPv6 address there and answers no ARP request (``firewall.network_rules`` drops the packets).
        Raises NetlinkError.
        """
        size = b"" if mtu is None else attribute(IFLA_MTU, pack("=I", mtu))
        peer_info = ifinfo_by_name(peer) + attribute(IFLA_ADDRESS, peer_mac) + size
        peer_info += attribute(_IFLA_NET_NS_FD, pack("=I", netns))
        veth = attr_nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer_info))
        link_info = attr_nested(_IFLA_LINKINFO, attr_string(_IFLA_INFO_KIND, "veth") + veth)
        pair = ifinfo_by_name(name) + attribute(IFLA_ADDRESS, mac) + size + link_info
        families = inet_conf({_IPV4_DEVCONF_ARP_IGNORE: _ARP_IGNORE_ALL})
        if (mtu is None or mtu >= LEAST_MTU_IPV6) and has_ipv6():
            families += attr_nested(AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, pack("=B", _IN6_ADDR_GEN_MODE_NONE)))
        self.change(
            f"veth pair {name} and {peer}",
            [
                (RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, pair),
                (RTM_NEWLINK, 0, ifinfo_by_name(name) + attr_nested(IFLA_AF_SPEC, families)),
                # vswitchd would set promiscuous mode itself, and then read all links and routes of the host again.
                (RTM_NEWLINK, 0, ifinfo(0, _IFF_PROMISC) + attr_string(IFLA_IFNAME, name)),
            ],
        )

    def disable_ipv6(self, name: str) -> None:
        """Switch IPv6 off on a device, unless it has none or its settings cannot be opened. Raises NetlinkError.

        A device that is up has a route to ff00::/8 otherwise, and vswitchd asks the kernel for the device of each route
        whenever a device changes: with many ports that takes a fifth of its time.
        """
        try:
            descriptor = posix.open(f"{_IPV6_SETTINGS}/conf/{name}/disable_ipv6", posix.O_WRONLY | posix.O_CLOEXEC)
        except OSError:
            return
        try:
            posix.write(descriptor, b"1")
        except OSError as error:
            raise NetlinkError(f"IPv6 of link {name}", error.errno or 0) from None
        finally:
            posix.close(descriptor)

    def set_link_up(self, name: str) -> None:
        """Set a device up. Raises NetlinkError."""
        self.change("link " + name, [(RTM_NEWLINK, 0, ifinfo(0, IFF_UP) + attr_string(IFLA_IFNAME, name))])

    def set_link_down(self, name: str) -> None:
        """Set a device down. Raises NetlinkError."""
        self.change(
            "link " + name, [(RTM_NEWLINK, 0, ifinfo(0, flags_to_clear=IFF_UP) + attr_string(IFLA_IFNAME, name))]
        )


def inet_conf(settings: dict[int, int]) -> bytes:
    """Return the part of IFLA_AF_SPEC with a device's IPv4 settings, by their numbers (linux/ip.h)."""
    values = b"".join(attribute(number, pack("=I", value)) for number, value in settings.items())
    return attr_nested(AF_INET, attr_nested(_IFLA_INET_CONF, values))
