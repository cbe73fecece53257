# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The overlay interface in the kernel's eyes: MTU, addresses, routes and the sysctls it needs.

Whether the interface is WireGuard's, and by whom, is wireguard's subject; the pod bridge's own routes are bridge's.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from ...differences import Differences
from ...kernel.iproute import open_iproute
from ...kernel.netlink import NetlinkError
from ..endpoint import OverlayError
from .config import OverlayConfig, PodRoutes, host_prefix, probe_address

ROUTE_PROTOCOL = 225
"""Marks our routes (rtnetlink(7): values above RTPROT_STATIC are for whoever wants to tell theirs from others')."""
_SCOPE_GLOBAL = 0
_SCOPE_LINK = 253
"""include/uapi/linux/rtnetlink.h: rt_scope_t."""
_DISPOSABLE_KINDS = ("tun", "wireguard")


def ensure_link(config: OverlayConfig, routes: PodRoutes) -> Differences:
    """Make the interface be as the two files say; what it changed. OverlayError if it is not there or refuses."""
    differences = Differences()
    try:
        with open_iproute(config.interface) as ipr:
            index = _index(ipr, config.interface)
            if index is None:
                raise OverlayError(f"{config.interface}: no such interface")
            _ensure_up(ipr, index, config, differences)
            _ensure_addresses(ipr, index, config, differences)
            _ensure_routes(ipr, index, config, routes, differences)
    except NetlinkError as error:
        raise OverlayError(str(error)) from error
    _ensure_sysctls(config, routes, differences)
    return differences


def link_exists(interface: str) -> bool:
    """Whether there is an interface of that name."""
    return any(name == interface for _number, name in socket.if_nameindex())


def remove_link(interface: str) -> bool:
    """Remove the interface, and with it its wireguard-go; False if it was not there. Never one of another kind."""
    try:
        with open_iproute(f"cannot remove {interface}") as ipr:
            index = _index(ipr, interface)
            if index is None:
                return False
            kind = ipr.get_links(index)[0].get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
            if kind not in _DISPOSABLE_KINDS:
                raise OverlayError(
                    f"{interface} is of kind {kind}: not an overlay's; give the overlay another interface name"
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
    mtu, is_up = link.get_attr("IFLA_MTU"), bool(link["flags"] & 1)
    differences.compare("mtu", config.mtu, mtu)
    differences.compare("up", True, is_up)
    if mtu != config.mtu or not is_up:
        ipr.link("set", index=index, mtu=config.mtu, state="up")


def _ensure_addresses(ipr: Any, index: int, config: OverlayConfig, differences: Differences) -> None:
    wanted = {
        f"{config.address}/{config.prefix_length}": _SCOPE_GLOBAL,
        host_prefix(probe_address(config.address)): _SCOPE_LINK,
    }
    found = set()
    for message in ipr.get_addr(index=index):
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if not (message["family"] == 10 and ip_address(address).is_link_local):
            found.add(f"{address}/{message['prefixlen']}")
    differences.compare("addresses", sorted(wanted), sorted(found))
    for cidr in found - wanted.keys():
        address, _slash, length = cidr.partition("/")
        ipr.addr("del", index=index, address=address, prefixlen=int(length))
    for cidr in wanted.keys() - found:
        address, _slash, length = cidr.partition("/")
        ipr.addr("add", index=index, address=address, prefixlen=int(length), scope=wanted[cidr])


def _ensure_routes(ipr: Any, index: int, config: OverlayConfig, routes: PodRoutes, differences: Differences) -> None:
    wanted = {host_prefix(probe_address(peer.address)): probe_address(config.address) for peer in config.peers}
    own_family = ip_address(config.address).version
    for cidr in routes.pod_cidrs:
        wanted[cidr] = config.address if ip_network(cidr).version == own_family else ""
    found: dict[str, str] = {}
    for message in ipr.get_routes():
        if message["proto"] == ROUTE_PROTOCOL and message.get_attr("RTA_OIF") == index:
            cidr = f"{message.get_attr('RTA_DST')}/{message['dst_len']}"
            found[cidr] = message.get_attr("RTA_PREFSRC") or ""
    differences.compare("routes", dict(sorted(wanted.items())), dict(sorted(found.items())))
    for cidr in found.keys() - wanted.keys():
        ipr.route("del", dst=cidr, oif=index, proto=ROUTE_PROTOCOL)
    for cidr, source in wanted.items():
        if found.get(cidr) != source:
            family = 10 if ip_network(cidr).version == 6 else 2
            extra = {"prefsrc": source} if source else {}
            scope = {"scope": _SCOPE_LINK} if family == 2 else {}
            ipr.route("replace", family=family, dst=cidr, oif=index, proto=ROUTE_PROTOCOL, **scope, **extra)


def _ensure_sysctls(config: OverlayConfig, routes: PodRoutes, differences: Differences) -> None:
    wanted = {
        # The kernel forwards between pods' bridge and overlay; a relay also from one peer to another.
        "net/ipv4/ip_forward": "1",
        # A relay sends packets out by the interface they came in: no reason to tell the sender of a "better" way.
        "net/ipv4/conf/all/send_redirects": "0",
        f"net/ipv4/conf/{config.interface}/send_redirects": "0",
        # WireGuard proves sources by key; loose (2) wins over a strict "all" and never drops what came by a relay.
        f"net/ipv4/conf/{config.interface}/rp_filter": "2",
    }
    cidrs = [config.host_cidr, *routes.pod_cidrs]
    if any(ip_interface(cidr).version == 6 for cidr in cidrs):
        wanted["net/ipv6/conf/all/forwarding"] = "1"
    for name, value in wanted.items():
        found = _read_sysctl(name)
        differences.compare(name.replace("/", "."), value, found)
        if found != value:
            _write_sysctl(name, value)


def _read_sysctl(name: str) -> str | None:
    with contextlib.suppress(OSError):
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    return None


def _write_sysctl(name: str, value: str) -> None:
    try:
        Path("/proc/sys", name).write_text(value, encoding="ascii")
    except OSError as error:
        raise OverlayError(
            f"cannot set sysctl {name.replace('/', '.')}: {errno.errorcode.get(error.errno or 0)}"
        ) from error
