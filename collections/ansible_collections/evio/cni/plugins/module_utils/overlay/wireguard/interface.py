# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The overlay interface in the kernel: its MTU, addresses and routes, and the sysctls that it needs.

Creating the WireGuard device is device's subject.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address, ip_network
from typing import Any

from ...cidr import AF_INET, AF_INET6, family
from ...differences import Differences
from ...kernel.iproute import ANY_SCOPE, ROUTE_PROTOCOL, open_iproute
from ...kernel.netlink import NetlinkError
from ...kernel.sysctl import dotted, read_sysctls, write_sysctls
from ..endpoint import OverlayError
from .config import PROBE_NETWORK, OverlayConfig, PodRoutes, former_probe_address, host_prefix, probe_address
from .device import port_holder_fault

_KERNEL_PROTOCOL = 2
"""RTPROT_KERNEL of linux/rtnetlink.h: marks the routes that the kernel adds with an address."""

_SCOPE_GLOBAL = 0
_SCOPE_LINK = 253
"""rt_scope_t of linux/rtnetlink.h."""

_MAIN_TABLE = 254
"""RT_TABLE_MAIN of linux/rtnetlink.h."""

_IFF_UP = 1
"""linux/if.h"""

_REMOVABLE_KINDS = ("tun", "wireguard")
"""Kinds of interfaces that wireguard-go and the kernel's WireGuard create."""


def ensure_link(config: OverlayConfig, routes: PodRoutes, keeps_former: bool = False) -> Differences:
    """Make the interface, its routes and sysctls as the files describe them; return what differed before.

    ``keeps_former`` leaves the interface the former probe addresses that it has (see config.former_probe_address).
    Raises OverlayError if there is no such interface or the kernel refuses, and SysctlError.
    """
    differences = Differences()
    try:
        with open_iproute(config.interface) as ipr:
            index = _index(ipr, config.interface)
            if index is None:
                raise OverlayError(f"{config.interface}: no such interface")
            _ensure_up(ipr, index, config, differences)
            _ensure_addresses(ipr, index, config, keeps_former, differences)
            _ensure_routes(ipr, index, config, routes, keeps_former, differences)
    except NetlinkError as error:
        if error.errno == errno.EADDRINUSE and (fault := port_holder_fault(config.listen_port)):
            # The kernel's WireGuard opens its socket when the interface is set up.
            raise OverlayError(f"{config.interface} cannot listen: {fault}") from error
        raise OverlayError(str(error)) from error
    _ensure_sysctls(config, routes, differences)
    return differences


def link_exists(interface: str) -> bool:
    """Return whether there is an interface of that name."""
    return any(name == interface for _number, name in socket.if_nameindex())


def restore_name(index: int, interface: str) -> str | None:
    """Give the overlay's interface of this number its name again; return the name that it had, None if there is none.

    Its addresses stay, and it is set down, because the kernel renames nothing else. Raises OverlayError.
    """
    try:
        with open_iproute(f"cannot give {interface} its name again") as ipr:
            link = next((link for link in ipr.get_links() if link["index"] == index), None)
            if link is None or link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") not in _REMOVABLE_KINDS:
                return None
            ipr.link("set", index=index, state="down")
            ipr.link("set", index=index, ifname=interface)
            return str(link.get_attr("IFLA_IFNAME"))
    except NetlinkError as error:
        raise OverlayError(str(error)) from error


def has_address(interface: str, address: str) -> bool:
    """Return whether the interface exists and has the address. Raises OverlayError."""
    try:
        with open_iproute(interface) as ipr:
            index = _index(ipr, interface)
            return index is not None and any(
                message.get_attr("IFA_LOCAL") == address for message in ipr.get_addr(index=index)
            )
    except NetlinkError as error:
        raise OverlayError(str(error)) from error


def is_link_up(interface: str) -> bool:
    """Return whether the interface exists and is set up. Raises OverlayError."""
    try:
        with open_iproute(interface) as ipr:
            index = _index(ipr, interface)
            return index is not None and bool(ipr.get_links(index)[0]["flags"] & _IFF_UP)
    except NetlinkError as error:
        raise OverlayError(str(error)) from error


def set_link_down(interface: str) -> None:
    """Set the interface down, which removes its routes. Raises OverlayError."""
    try:
        with open_iproute(f"cannot set {interface} down") as ipr:
            index = _index(ipr, interface)
            if index is not None:
                ipr.link("set", index=index, state="down")
    except NetlinkError as error:
        raise OverlayError(str(error)) from error


def remove_link(interface: str) -> bool:
    """Remove the interface, which ends its wireguard-go; return whether it existed.

    Raises OverlayError if it is of a kind that no overlay has, or the kernel refuses.
    """
    try:
        with open_iproute(f"cannot remove {interface}") as ipr:
            index = _index(ipr, interface)
            if index is None:
                return False
            kind = ipr.get_links(index)[0].get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
            if kind not in _REMOVABLE_KINDS:
                raise OverlayError(
                    f"{interface} is of kind {kind}, so it is not an overlay's; give the overlay another interface name"
                )
            ipr.link("del", index=index)
    except NetlinkError as error:
        raise OverlayError(str(error)) from error
    return True


def _index(ipr: Any, interface: str) -> int | None:
    found: list[int] = ipr.link_lookup(ifname=interface)
    return found[0] if found else None


def _ensure_up(ipr: Any, index: int, config: OverlayConfig, differences: Differences) -> None:
    link = ipr.get_links(index)[0]
    mtu, is_up = link.get_attr("IFLA_MTU"), bool(link["flags"] & _IFF_UP)
    differences.compare("mtu", config.mtu, mtu)
    differences.compare("up", True, is_up)
    if mtu != config.mtu or not is_up:
        ipr.link("set", index=index, mtu=config.mtu, state="up")


def _ensure_addresses(
    ipr: Any, index: int, config: OverlayConfig, keeps_former: bool, differences: Differences
) -> None:
    wanted = {
        f"{config.address}/{config.prefix_length}": _SCOPE_GLOBAL,
        host_prefix(probe_address(config.address)): _SCOPE_LINK,
    }
    found = set()
    for message in ipr.get_addr(index=index):
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        # The kernel gives IPv6 interfaces a link-local address by itself.
        if not (message["family"] == AF_INET6 and ip_address(address).is_link_local):
            found.add(f"{address}/{message['prefixlen']}")
    former = host_prefix(former_probe_address(config.address))
    if keeps_former and former in found:
        wanted[former] = _SCOPE_LINK
    differences.compare("addresses", sorted(wanted), sorted(found))
    for cidr in found - wanted.keys():
        address, _slash, length = cidr.partition("/")
        ipr.addr("del", index=index, address=address, prefixlen=int(length))
    for cidr in wanted.keys() - found:
        address, _slash, length = cidr.partition("/")
        ipr.addr("add", index=index, address=address, prefixlen=int(length), scope=wanted[cidr])


def _ensure_routes(
    ipr: Any, index: int, config: OverlayConfig, routes: PodRoutes, keeps_former: bool, differences: Differences
) -> None:
    wanted = {PROBE_NETWORK: probe_address(config.address)}
    for cidr in (*routes.pod_cidrs, *routes.service_cidrs):
        # Packets from the node to pods get its host overlay address as source: all nodes have a route back to it. A
        # packet to a Service gets its source before kube-proxy has chosen the pod, by the route to the Service.
        wanted[cidr] = config.address if family(cidr) == family(config.address) else ""
    found: dict[str, str] = {}
    for message in ipr.get_routes():
        if message["proto"] == ROUTE_PROTOCOL and message.get_attr("RTA_OIF") == index:
            cidr = f"{message.get_attr('RTA_DST')}/{message['dst_len']}"
            found[cidr] = message.get_attr("RTA_PREFSRC") or ""
    if keeps_former:
        former = {host_prefix(former_probe_address(peer.address)) for peer in config.peers}
        wanted.update({cidr: found[cidr] for cidr in former & found.keys()})
    differences.compare("routes", dict(sorted(wanted.items())), dict(sorted(found.items())))
    _ensure_network_route(ipr, index, config, differences)
    for cidr, source in wanted.items():
        if found.get(cidr) != source:
            extra: dict[str, Any] = {"prefsrc": source} if source else {}
            if family(cidr) == AF_INET:
                extra["scope"] = _SCOPE_LINK
            ipr.route("replace", family=family(cidr), dst=cidr, oif=index, proto=ROUTE_PROTOCOL, **extra)
    for cidr in found.keys() - wanted.keys():
        ipr.route("del", family=family(cidr), dst=cidr, oif=index, proto=ROUTE_PROTOCOL, scope=ANY_SCOPE)


def _ensure_network_route(ipr: Any, index: int, config: OverlayConfig, differences: Differences) -> None:
    """Keep the route to the host overlay, which the kernel has added with the address and adds no second time."""
    network = str(ip_network(config.host_cidr))
    has_route = any(
        message["proto"] == _KERNEL_PROTOCOL
        and message.get_attr("RTA_OIF") == index
        and f"{message.get_attr('RTA_DST')}/{message['dst_len']}" == network
        for message in ipr.get_routes(family=family(network), table=_MAIN_TABLE)
    )
    differences.compare("route to the host overlay", True, has_route)
    if not has_route:
        scope = {"scope": _SCOPE_LINK, "prefsrc": config.address} if family(network) == AF_INET else {"priority": 256}
        ipr.route("replace", family=family(network), dst=network, oif=index, proto=_KERNEL_PROTOCOL, **scope)


def _ensure_sysctls(config: OverlayConfig, routes: PodRoutes, differences: Differences) -> None:
    wanted = {
        # The kernel forwards between pod bridge and overlay; on a relay also from one peer to another.
        "net/ipv4/ip_forward": "1",
        # A relay sends packets out through the interface they came in by, which the kernel would report as a detour.
        "net/ipv4/conf/all/send_redirects": "0",
        f"net/ipv4/conf/{config.interface}/send_redirects": "0",
        # WireGuard proves the source by its key. Loose (2) overrides a strict "all", which would drop relayed packets.
        f"net/ipv4/conf/{config.interface}/rp_filter": "2",
    }
    if any(family(cidr) == AF_INET6 for cidr in (config.host_cidr, *routes.pod_cidrs)):
        wanted["net/ipv6/conf/all/forwarding"] = "1"
    found = read_sysctls(wanted)
    for name, value in wanted.items():
        differences.compare(dotted(name), value, found.get(name))
    write_sysctls(wanted, found)
