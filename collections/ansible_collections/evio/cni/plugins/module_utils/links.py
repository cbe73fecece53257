# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Network devices by raw rtnetlink: found by their names, and removed. All that a DEL needs of the kernel.

Numbers are those of linux/rtnetlink.h and if_link.h. What an ADD makes of devices is the subject of rtnetlink.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from .netlink import NETLINK_ROUTE, NetlinkError, NetlinkSocket, attribute, attributes, text

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
        query = pack("=BxHiII", 0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)
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
            self.change("link " + name, [(_RTM_DELLINK, 0, by_name(name))])
        except NetlinkError as error:
            if error.errno != _ENODEV:
                raise


def by_name(name: str) -> bytes:
    return pack("=BxHiII", 0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)
