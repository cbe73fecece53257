# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The network device of the pod bridge: its link state, MTU, MAC and addresses, by pyroute2."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from typing import Any

from .bridge_spec import BridgeError, BridgeSpec
from .idl import OvsdbAbsentError

IFA_F_NODAD = 0x02
"""linux/if_addr.h: the address is ours alone, by the registry; it is used at once."""
IFA_F_PERMANENT = 0x80
"""linux/if_addr.h: without a lifetime."""


class Link:
    """The bridge's own network device."""

    def __init__(self, message: Any, addresses: frozenset[str]) -> None:
        self.index: int = message["index"]
        self.mac: str = message.get_attr("IFLA_ADDRESS")
        self.mtu: int = message.get_attr("IFLA_MTU")
        self.is_up = bool(message["flags"] & 1)
        info = message.get_attr("IFLA_LINKINFO")
        self.kind: str | None = info.get_attr("IFLA_INFO_KIND") if info else None
        self.addresses = addresses


@contextlib.contextmanager
def open_netlink() -> Iterator[Any]:
    try:
        from pyroute2 import IPRoute
    except ImportError as error:
        raise OvsdbAbsentError("setting up a bridge needs the library pyroute2: install python3-pyroute2") from error
    with IPRoute() as netlink:
        yield netlink


def read_link(name: str) -> Link | None:
    with open_netlink() as netlink:
        found = netlink.link_lookup(ifname=name)
        if not found:
            return None
        [message] = netlink.get_links(found[0])
        addresses = frozenset(
            f"{address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}"
            for address in netlink.get_addr(index=found[0])
            if is_given(address)
        )
        return Link(message, addresses)


def is_given(message: Any) -> bool:
    """Whether an address was given to the bridge, rather than found by itself: link-local, or for a time."""
    is_link_local = ip_address(message.get_attr("IFA_ADDRESS")).is_link_local
    return bool((message.get_attr("IFA_FLAGS") or message["flags"]) & IFA_F_PERMANENT) and not is_link_local


def set_up_link(spec: BridgeSpec) -> None:
    """Addresses and state: wanted ones first, then those of an earlier subnet go."""
    link = read_link(spec.name)
    if link is None:
        raise BridgeError(
            f"the device of bridge {spec.name} has gone while it was set up; is another program at work on it?"
        )
    wanted = {str(ip_interface(gateway)) for gateway in spec.gateways} or link.addresses
    with open_netlink() as netlink:
        try:
            if not link.is_up:
                netlink.link("set", index=link.index, state="up")
            for address in sorted(wanted - link.addresses):
                change_address(netlink, "replace", link.index, address)
            for address in sorted(link.addresses - wanted):
                change_address(netlink, "del", link.index, address)
        except netlink_error() as error:
            raise BridgeError(f"cannot set up the addresses of bridge {spec.name}: {error}") from error


def clear_addresses(name: str) -> None:
    """All that were given: ensure_bridge has let none stand but ours."""
    link = read_link(name)
    if link is not None:
        with open_netlink() as netlink:
            try:
                for address in sorted(link.addresses):
                    change_address(netlink, "del", link.index, address)
            except netlink_error() as error:
                raise BridgeError(f"cannot take the addresses off bridge {name}: {error}") from error


def change_address(netlink: Any, command: str, index: int, address: str) -> None:
    interface = ip_interface(address)
    flags = {"flags": IFA_F_NODAD} if interface.version == 6 and command == "replace" else {}
    try:
        netlink.addr(command, index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **flags)
    except netlink_error() as error:
        # Another ensure_bridge, at the same moment, may have taken it away.
        if error.code != errno.EADDRNOTAVAIL:
            raise


def netlink_error() -> Any:
    from pyroute2.netlink.exceptions import NetlinkError

    return NetlinkError
