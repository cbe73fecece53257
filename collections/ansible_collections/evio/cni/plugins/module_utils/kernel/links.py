# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Network devices by raw rtnetlink: find a device, delete a device. DEL needs nothing else of the kernel.

``rtnetlink`` creates devices and sets their addresses and routes. Numbers are those of linux/rtnetlink.h and if_link.h.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from .netlink import NETLINK_ROUTE, NetlinkError, NetlinkSocket, attr_string, attribute, parse_attributes
from .numbers import ENODEV

IFF_UP = 0x1

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU = 1, 3, 4

_IFLA_LINKINFO, _IFLA_INFO_KIND = 18, 1

_SIOCGIFINDEX = 0x8933
"""linux/sockios.h"""

_RTM_DELLINK, _RTM_GETLINK = 17, 18

_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS = 29, 8


class Link:
    """A network device; ``mac`` as in ``0a:58:0a:f4:03:01``, ``mtu`` in bytes."""

    __slots__ = ("index", "is_up", "mac", "mtu", "name")

    def __init__(self, index: int, is_up: bool, name: str, mtu: int, mac: str) -> None:
        self.index = index
        self.is_up = is_up
        self.name = name
        self.mtu = mtu
        self.mac = mac


class LinkSocket(NetlinkSocket):
    """An rtnetlink socket in the network namespace of the thread that opens it: finds and deletes devices by name."""

    def __init__(self) -> None:
        """Open the socket. Raises NetlinkError."""
        super().__init__(NETLINK_ROUTE)

    def link(self, name: str) -> Link | None:
        """Return the device of this name, or None. Raises NetlinkError."""
        query = ifinfo_by_name(name) + attribute(_IFLA_EXT_MASK, pack("=I", _RTEXT_FILTER_SKIP_STATS))
        try:
            answer = self.ask("link " + name, _RTM_GETLINK, query)
        except NetlinkError as error:
            if error.errno == ENODEV:
                return None
            raise
        index, flags = unpack_from("=4xiI4x", answer)
        fields = parse_attributes(answer, 16)
        return Link(
            index,
            bool(flags & IFF_UP),
            fields[IFLA_IFNAME].rstrip(b"\0").decode(),
            unpack_from("=I", fields[IFLA_MTU])[0],
            fields.get(IFLA_ADDRESS, b"").hex(":"),
        )

    def kind(self, name: str) -> str | None:
        """Return the device's kind, as in ``veth``; "" if it has none, None without the device. Raises NetlinkError."""
        try:
            answer = self.ask("link " + name, _RTM_GETLINK, ifinfo_by_name(name))
        except NetlinkError as error:
            if error.errno == ENODEV:
                return None
            raise
        info = parse_attributes(parse_attributes(answer, 16).get(_IFLA_LINKINFO, b""), 0)
        return info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode()

    def index(self, name: str) -> int:
        """Return the index of the device of this name. Raises NetlinkError, also where there is none."""
        # By ioctl: it returns the index alone, where netlink would send all properties of the device.
        request = pack("16s24x", name.encode("utf-8", "surrogateescape"))
        return int(unpack_from("16xi", self.ioctl("link " + name, _SIOCGIFINDEX, request))[0])

    def delete_link(self, name: str) -> None:
        """Delete the device of this name, if there is one. Raises NetlinkError."""
        try:
            self.change("link " + name, [(_RTM_DELLINK, 0, ifinfo_by_name(name))])
        except NetlinkError as error:
            if error.errno != ENODEV:
                raise


def ifinfo(index: int, flags_to_set: int = 0, flags_to_clear: int = 0) -> bytes:
    """Return a struct ifinfomsg. Index 0 leaves it to the attribute IFLA_IFNAME to name the device."""
    return pack("=BxHiII", 0, 0, index, flags_to_set, flags_to_set | flags_to_clear)


def ifinfo_by_name(name: str) -> bytes:
    """Return a struct ifinfomsg with the attribute that names the device."""
    return ifinfo(0) + attr_string(IFLA_IFNAME, name)
