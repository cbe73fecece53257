# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod bridge's network device in the kernel: read its state, MTU, MAC and addresses; set addresses and state.

``bridge`` makes the bridge itself, in OVSDB. MTU and MAC are set there too.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

from ..cidr import family
from ..kernel.iproute import ANY_SCOPE, ROUTE_PROTOCOL, Pyroute2MissingError, netlink_errors, open_iproute
from ..kernel.netlink import NetlinkError
from .bridge_spec import BridgeError, gateway_network
from .idl import OvsdbAbsentError

_IFF_UP = 0x1
"""linux/if.h"""
_SCOPE_LINK = 253
"""rt_scope_t of linux/rtnetlink.h."""
_KERNEL_PROTOCOL = 2
"""RTPROT_KERNEL of linux/rtnetlink.h: marks the routes that the kernel adds with an address."""
_MAIN_TABLE = 254
"""RT_TABLE_MAIN of linux/rtnetlink.h."""
_IPV6_PRIORITY = 256
"""IP6_RT_PRIO_ADDRCONF of linux/ipv6_route.h: the priority of such routes of IPv6."""
_IFA_F_NODAD = 0x02
"""linux/if_addr.h: use the address at once. The registry guarantees that no other node has it."""
_IFA_F_PERMANENT = 0x80
"""linux/if_addr.h: the address has no lifetime."""


class Link:
    """The bridge's network device as the kernel has it."""

    def __init__(
        self, message: Any, addresses: frozenset[str], routes: Mapping[str, str], networks: frozenset[str]
    ) -> None:
        self.index: int = message["index"]
        self.mac: str = message.get_attr("IFLA_ADDRESS")
        self.mtu: int = message.get_attr("IFLA_MTU")
        self.is_up = bool(message["flags"] & _IFF_UP)
        info = message.get_attr("IFLA_LINKINFO")
        self.kind: str | None = info.get_attr("IFLA_INFO_KIND") if info else None
        """``tun`` for a bridge with datapath ``netdev``."""
        self.addresses = addresses
        """In CIDR notation, without link-local addresses and without those that have a lifetime."""
        self.routes = routes
        """Our routes by the device: source addresses by network in CIDR notation."""
        self.networks = networks
        """The networks to which the kernel has added routes by the device, with its addresses."""


def read_link(name: str) -> Link | None:
    """Return the device of this name, or None where there is none.

    Raises NetlinkError, and OvsdbAbsentError where pyroute2 is not installed: like the library ``ovs``, it comes with
    the installation of Open vSwitch.
    """
    try:
        with open_iproute(f"cannot read the device of bridge {name}") as iproute:
            found = iproute.link_lookup(ifname=name)
            if not found:
                return None
            [message] = iproute.get_links(found[0])
            addresses = _configured_addresses(iproute.get_addr(index=found[0]))
            return Link(message, addresses, _our_routes(iproute, found[0]), _networks(iproute, found[0]))
    except Pyroute2MissingError as error:
        raise OvsdbAbsentError(str(error)) from error


def set_up_link(
    name: str, gateways: Iterable[str], routes: Mapping[str, str], removable: Iterable[str] | None = None
) -> None:
    """Set the device up and give it exactly these addresses (CIDR notation); no gateways leave its addresses.

    Of other addresses only the ``removable`` are removed, all by default. New addresses come before old ones go. Of our
    routes by the device, exactly these stay: source addresses by network. Raises BridgeError and NetlinkError.
    """
    link = read_link(name)
    if link is None:
        raise BridgeError(
            f"the device of bridge {name} has gone while it was set up; is another program at work on it?"
        )
    wanted = {str(ip_interface(gateway)) for gateway in gateways} or link.addresses
    with open_iproute(f"cannot set up the addresses of bridge {name}") as iproute:
        if not link.is_up:
            iproute.link("set", index=link.index, state="up")
        for address in sorted(wanted - link.addresses):
            _add_address(iproute, link.index, address)
        surplus = link.addresses - wanted
        _delete_addresses(iproute, link.index, surplus if removable is None else surplus & {*removable})
        _ensure_networks(iproute, link.index, gateways)
        _replace_routes(iproute, link.index, routes)


def clear_addresses(name: str, ours: Iterable[str] | None = None, *, set_down: bool = False) -> None:
    """Delete these configured addresses of the device, all by default, and our routes; then set it down if asked.

    Raises NetlinkError.
    """
    link = read_link(name)
    if link is not None:
        with open_iproute(f"cannot take the addresses off bridge {name}") as iproute:
            _replace_routes(iproute, link.index, {})
            _delete_addresses(iproute, link.index, link.addresses if ours is None else link.addresses & {*ours})
            if set_down:
                iproute.link("set", index=link.index, state="down")


def _replace_routes(iproute: Any, index: int, wanted: Mapping[str, str]) -> None:
    """Let our routes by the device be these, source addresses by network.

    The kernel has deleted the IPv4 routes whose source was deleted.
    """
    found = _our_routes(iproute, index)
    for network in found.keys() - wanted.keys():
        iproute.route("del", dst=network, oif=index, proto=ROUTE_PROTOCOL, scope=ANY_SCOPE)
    for network, source in wanted.items():
        if found.get(network) != source:
            scope = {} if ":" in network else {"scope": _SCOPE_LINK}
            route = {"family": family(network), "dst": network, "oif": index, "proto": ROUTE_PROTOCOL}
            iproute.route("replace", **route, prefsrc=source, **scope)


def _our_routes(iproute: Any, index: int) -> dict[str, str]:
    return {
        f"{message.get_attr('RTA_DST')}/{message['dst_len']}": message.get_attr("RTA_PREFSRC") or ""
        for message in iproute.get_routes(oif=index)
        if message["proto"] == ROUTE_PROTOCOL
    }


def _ensure_networks(iproute: Any, index: int, gateways: Iterable[str]) -> None:
    """Keep the routes to the gateways' networks, which the kernel adds with an address and adds no second time."""
    found = _networks(iproute, index)
    for gateway in map(ip_interface, gateways):
        if gateway_network(gateway) not in (None, *found):
            route: dict[str, Any] = {"dst": str(gateway.network), "oif": index, "proto": _KERNEL_PROTOCOL}
            if gateway.version == 4:
                route.update(scope=_SCOPE_LINK, prefsrc=str(gateway.ip))
            else:
                route.update(priority=_IPV6_PRIORITY)
            iproute.route("replace", family=family(str(gateway.ip)), **route)


def _networks(iproute: Any, index: int) -> frozenset[str]:
    return frozenset(
        f"{message.get_attr('RTA_DST')}/{message['dst_len']}"
        for message in iproute.get_routes(oif=index, table=_MAIN_TABLE)
        if message["proto"] == _KERNEL_PROTOCOL
    )


def _configured_addresses(messages: Iterable[Any]) -> frozenset[str]:
    """Return the configured addresses: no link-local address, and none with a lifetime (from a router or DHCP)."""
    return frozenset(
        f"{address}/{message['prefixlen']}"
        for message in messages
        if (message.get_attr("IFA_FLAGS") or message["flags"]) & _IFA_F_PERMANENT
        and not ip_address(address := message.get_attr("IFA_ADDRESS")).is_link_local
    )


def _add_address(iproute: Any, index: int, cidr: str) -> None:
    address = ip_interface(cidr)
    flags = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
    iproute.addr("replace", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags)


def _delete_addresses(iproute: Any, index: int, cidrs: Iterable[str]) -> None:
    for cidr in sorted(cidrs):
        address = ip_interface(cidr)
        try:
            with netlink_errors(f"cannot delete address {cidr}"):
                iproute.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
        except NetlinkError as error:
            # Another ensure_bridge may delete the same address at the same moment.
            if error.errno != errno.EADDRNOTAVAIL:
                raise
