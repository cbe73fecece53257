# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CHECK: every link of a pod's attachment compared with what ADD has said and left; nothing is changed.

What the result speaks of and ADD has not made (interfaces, addresses and routes of the plugins before ours) is looked
at no further than that it is there.
"""

from __future__ import annotations

import posix

from ..cidr import AF_INET, AF_INET6, is_in, packed, split_cidr
from ..cni.attachment import Attachment
from ..cni.netconf import NetConf
from ..cni.spec import INVALID_CONFIG, NOT_AS_ATTACHED, TRY_AGAIN, Call, CniError
from ..firewall.network_rules import rules_of
from ..ipam.delegate import start_ipam
from ..ipam.host_local import HOST_LOCAL, Reservations
from ..kernel.ethtool import has_tx_checksum
from ..kernel.netns import open_netns
from ..kernel.rtnetlink import Netlink, PodNetlink
from ..ovs.flows import has_port_security, lacks_normal_flow
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.openflow import OpenFlowError
from ..ovs.ports import Port, port_of, switch_of
from ..state.journal import Journal
from .setup_bridge import is_as_wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..kernel.links import Link

_MAIN_TABLE = (None, 0, 254)


def cmd_check(call: Call, conf: NetConf) -> None:
    """Raise CniError for the first thing that is not as ADD has left it; TRY_AGAIN where that cannot be told now."""
    if conf.previous is None:
        raise CniError(INVALID_CONFIG, "CHECK needs the result of ADD: prevResult is not in the configuration")
    netns = open_netns(call.netns)
    try:
        attachment = Attachment(conf.name, call.container_id, call.ifname)
        ipam = start_ipam("CHECK", attachment, conf, call.path, call.netns)
        try:
            _check(call, attachment, conf, netns)
        finally:
            failure = ipam.result_or_error()
    finally:
        posix.close(netns)
    if failure is not None:
        raise failure


def _check(call: Call, attachment: Attachment, conf: NetConf, netns: int) -> None:
    said = PrevResult(call, conf, Journal(conf.state_dir).host_end(attachment))
    with PodNetlink(netns) as pod, Netlink() as host:
        host_end = host.link(said.host_end["name"])
        link = _check_pod(pod, host_end, said)
        _check_routes(pod, link, said)
        leaves_out = has_tx_checksum(pod, link.name)
        _check_host(conf, host, host_end, said)
    _check_reservations(attachment, conf, said)
    try:
        _check_switch(conf, link, leaves_out, said)
    except (OvsdbError, OpenFlowError) as error:
        raise CniError(TRY_AGAIN, str(error)) from None


class PrevResult:
    """What the result of ADD says of our attachment."""

    def __init__(self, call: Call, conf: NetConf, name: str) -> None:
        previous = conf.previous or {}
        interfaces = list(previous.get("interfaces") or ())
        ours = [place for place, one in enumerate(interfaces) if _is_pods(one, call)]
        if len(ours) != 1:
            raise CniError(
                NOT_AS_ATTACHED, f"prevResult has {len(ours) or 'no'} interfaces {call.ifname} in {call.netns}"
            )
        self.pod: dict[str, Any] = interfaces[ours[0]]
        self.host_end = _on_host(interfaces, name)
        self.bridge = _on_host(interfaces, conf.bridge)
        self.addresses = [ip["address"] for ip in previous.get("ips") or () if ip.get("interface") == ours[0]]
        if not self.addresses:
            raise CniError(NOT_AS_ATTACHED, f"prevResult has no address of {call.ifname}")
        self.routes: list[dict[str, Any]] = list(previous.get("routes") or ())


def _is_pods(interface: dict[str, Any], call: Call) -> bool:
    return interface["name"] == call.ifname and interface.get("sandbox") == call.netns


def _on_host(interfaces: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for interface in interfaces:
        if interface["name"] == name and not interface.get("sandbox"):
            return interface
    raise CniError(NOT_AS_ATTACHED, f"prevResult has no interface {name} of the host")


def _check_pod(pod: PodNetlink, host_end: Link | None, said: PrevResult) -> Link:
    """The pod's end, which it returns."""
    name = said.pod["name"]
    link = pod.link(name)
    if link is None:
        raise CniError(NOT_AS_ATTACHED, f"{name} is not in the pod any more")
    if not link.is_up:
        raise CniError(NOT_AS_ATTACHED, f"{name} of the pod is down")
    _compare(link, {"mtu": host_end.mtu if host_end else None, **said.pod}, "the pod's ")
    there = pod.addresses(link.index)
    for address in said.addresses:
        if split_cidr(address) not in there:
            raise CniError(NOT_AS_ATTACHED, f"{name} of the pod has lost its address {address}")
    return link


def _compare(link: Link, said: dict[str, Any], what: str) -> None:
    """MAC and MTU, where they were said: before CNI 1.1.0 there was no MTU in a result."""
    mac, mtu = said.get("mac"), said.get("mtu")
    if mac and mac.lower() != link.mac:
        raise CniError(NOT_AS_ATTACHED, f"{what}{link.name} has the MAC {link.mac}, ADD has given it {mac}")
    if mtu and mtu != link.mtu:
        raise CniError(NOT_AS_ATTACHED, f"{what}{link.name} has an MTU of {link.mtu} bytes, ADD has given it {mtu}")


def _check_routes(pod: PodNetlink, link: Link, said: PrevResult) -> None:
    """Each is there, and by our interface those whose gateway is in one of our subnets."""
    own = [split_cidr(address) for address in said.addresses]
    routes = {family: pod.routes(family) for family in (AF_INET, AF_INET6)}
    for route in said.routes:
        if route.get("table") not in _MAIN_TABLE:
            continue
        destination, length = split_cidr(route["dst"])
        gateway = packed(route["gw"]) if route.get("gw") else b""
        is_ours = any(is_in(gateway, *address) for address in own)
        there = {
            one[:3]
            for one in routes[AF_INET if len(destination) == 4 else AF_INET6]
            if one[3] == link.index or not is_ours
        }
        if (destination if length else b"", length, gateway) not in there:
            way = f" by {route['gw']}" if gateway else ""
            raise CniError(NOT_AS_ATTACHED, f"the pod has lost its route to {route['dst']}{way}")


def _check_host(conf: NetConf, host: Netlink, link: Link | None, said: PrevResult) -> None:
    name = said.host_end["name"]
    if link is None or not link.is_up:
        raise CniError(
            NOT_AS_ATTACHED, f"the host's end of the pod's interface, {name}, is {'down' if link else 'gone'}"
        )
    _compare(link, said.host_end, "the host's end of the pod's interface, ")
    bridge = host.link(conf.bridge)
    if bridge is None or not is_as_wanted(conf, host, bridge):
        raise CniError(NOT_AS_ATTACHED, f"the bridge {conf.bridge} is not as configured; `evio repair` mends it")
    if conf.gateways:  # Of a bridge without one, Open vSwitch changes the MAC as ports come and go.
        _compare(bridge, {**said.bridge, "mtu": None}, "the bridge ")
    missing = rules_of(conf, said.addresses).missing()
    if missing:
        raise CniError(
            NOT_AS_ATTACHED, f"rules of the node are gone, {', '.join(missing)} of nftables; `evio repair` mends them"
        )


def _check_reservations(attachment: Attachment, conf: NetConf, said: PrevResult) -> None:
    """One by one: host-local is content with any that the container has."""
    if conf.ipam_type != HOST_LOCAL:
        return
    reservations = Reservations(conf)
    for address in said.addresses:
        holder = reservations.holder(address.partition("/")[0])
        if (
            holder is None
            or holder.container_id != attachment.container_id
            or (holder.ifname not in ("", attachment.ifname))
        ):
            to = "nobody" if holder is None else str(holder).rstrip()
            raise CniError(NOT_AS_ATTACHED, f"host-local CHECK: {address} is reserved for {to}")


def _check_switch(conf: NetConf, link: Link, leaves_out: bool, said: PrevResult) -> None:
    with OvsdbClient(conf.ovsdb) as ovsdb:
        port = port_of(ovsdb, conf.bridge, said.host_end["name"])
        _check_port(conf, port, link.mac, said)
        if lacks_normal_flow(conf, ovsdb):
            raise CniError(
                NOT_AS_ATTACHED, f"the bridge {conf.bridge} has lost the flow it switches by; `evio repair` mends it"
            )
        fills_in = conf.datapath_type != "netdev" or switch_of(ovsdb, conf.bridge).has_userspace_tso
    if leaves_out and not fills_in:
        raise CniError(
            NOT_AS_ATTACHED,
            f"{link.name} of the pod leaves its checksums to a datapath that does not fill them in (ethtool: tx)",
        )


def _check_port(conf: NetConf, port: Port | None, mac: str, said: PrevResult) -> None:
    name = said.host_end["name"]
    if port is None or not port.bridged:
        raise CniError(NOT_AS_ATTACHED, f"{name} is not a port of the bridge {conf.bridge}; `evio repair` mends it")
    if port.ofport <= 0 or port.error:
        raise CniError(NOT_AS_ATTACHED, f"Open vSwitch cannot use the port {name}: {port.error or 'it has no number'}")
    if port.tag is not None:
        raise CniError(NOT_AS_ATTACHED, f"{name} has been put into VLAN {port.tag}; `evio repair` takes it out")
    if not has_port_security(conf, name, port.ofport, mac, said.addresses):
        raise CniError(NOT_AS_ATTACHED, f"the flows that guard the port {name} are gone; `evio repair` mends it")
