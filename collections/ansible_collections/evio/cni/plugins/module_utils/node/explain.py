# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why a pod is not reachable: every link of its chain in the order in which a packet passes them, each looked at.

Nothing is changed; what can be mended is named together with the command that does it.
"""

from __future__ import annotations

import os
import posix
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .. import paths
from ..cidr import AF_INET, AF_INET6, is_cidr, split_cidr
from ..cni.netconf import NetConf
from ..errors import EvioError
from ..firewall.network_rules import FAMILY, HOST_ENDS, TABLE, rules_of
from ..ipam.host_local import HOST_LOCAL, Reservations
from ..kernel.ethtool import has_tx_checksum
from ..kernel.links import Link
from ..kernel.netlink import NetlinkError
from ..kernel.rtnetlink import Netlink, PodNetlink
from ..overlay.wireguard.state import read_state
from ..ovs.bridge import compare_bridge
from ..ovs.flows import has_port_security, lacks_normal_flow
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.openflow import OpenFlowError
from ..ovs.ports import has_daemon, port_of, switch_of
from ..plugin.setup_bridge import bridge_of
from ..state.attachments import JournalEntry, journal_entries
from ..state.journal import Journal

_START_ANEW = "start the pod anew"
_START_SWITCH = "start Open vSwitch, then evio repair"
_REPAIR = "evio repair"
_LOOK_AT_AGENT = "systemctl status evio-overlay"


class UnknownPodError(EvioError):
    """No attachment of that id or address is in the journal, or more than one."""


@dataclass(frozen=True)
class Finding:
    """One link of the chain; ``remedy`` is empty where it holds."""

    link: str
    holds: bool
    what: str
    remedy: str = ""


def explain(networks: list[NetConf], pod: str) -> list[Finding]:
    """The chain of a pod, by the start of its container's id or by an address of its."""
    conf, noted = _find(networks, pod)
    with Netlink() as host:
        host_end, bridge = host.link(noted.host_end), host.link(conf.bridge)
    return [
        _attachment(conf, noted),
        *_reservation(conf, noted),
        _inside(conf, noted, host_end),
        _host_end(noted, host_end, bridge),
        _port(conf, noted),
        _bridge(conf),
        *_rules(conf, noted),
        *_tunnel(),
    ]


def _find(networks: list[NetConf], pod: str) -> tuple[NetConf, JournalEntry]:
    found = []
    for conf in networks:
        for noted in journal_entries(Journal(conf.state_dir), conf.name):
            if noted.attachment.container_id.startswith(pod) or pod in [ip.partition("/")[0] for ip in noted.ips]:
                found.append((conf, noted))
    if not found:
        raise UnknownPodError(f"no pod of this node has a container whose id starts with {pod!r}, or that address")
    if len(found) > 1:
        raise UnknownPodError(f"{len(found)} pods have a container whose id starts with {pod!r}; give more of it")
    return found[0]


def _attachment(conf: NetConf, noted: JournalEntry) -> Finding:
    what = f"{noted.attachment} of network {conf.name}"
    if not noted.is_whole:
        return Finding("attachment", False, f"{what}: its entry in the journal is damaged", _START_ANEW)
    return Finding("attachment", True, f"{what}, {', '.join(noted.ips)}")


def _reservation(conf: NetConf, noted: JournalEntry) -> list[Finding]:
    if conf.ipam_type != HOST_LOCAL or not noted.ips:
        return []
    reservations, wrong = Reservations(conf), []
    for address in (ip.partition("/")[0] for ip in noted.ips):
        holder = reservations.holder(address)
        if holder is None:
            wrong.append(f"{address} is reserved for nobody, the next pod may get it")
        elif holder.container_id != noted.attachment.container_id:
            wrong.append(f"{address} is reserved for {holder.container_id}")
    return [_finding("reservation", wrong, "by host-local", _START_ANEW)]


def _inside(conf: NetConf, noted: JournalEntry, host_end: Link | None) -> Finding:
    try:
        netns = posix.open(noted.netns, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        return Finding(
            "pod", False, f"its namespace {noted.netns} is gone ({error.strerror})", "the runtime removes the pod"
        )
    try:
        with PodNetlink(netns) as pod:
            link = pod.link(noted.attachment.ifname)
            if link is None:
                return Finding("pod", False, f"{noted.attachment.ifname} is gone", _START_ANEW)
            wrong = [*_wrong_inside(conf, noted, pod, link, host_end), *_wrong_offload(conf, pod, link)]
            well = f"{link.name} is up, MAC {link.mac}, MTU {link.mtu}"
            return _finding("pod", wrong, well, _START_ANEW)
    except (NetlinkError, OSError):
        return Finding("pod", False, f"{noted.netns} is no network namespace any more", "the runtime removes the pod")
    finally:
        posix.close(netns)


def _wrong_inside(
    conf: NetConf, noted: JournalEntry, pod: PodNetlink, link: Link, host_end: Link | None
) -> Iterator[str]:
    if not link.is_up:
        yield f"{link.name} is down"
    if noted.mac and link.mac != noted.mac:
        yield f"{link.name} has the MAC {link.mac}, and may only send from {noted.mac}"
    if host_end is not None and link.mtu != host_end.mtu:
        yield f"{link.name} has an MTU of {link.mtu} bytes, its end on the host one of {host_end.mtu}"
    there = pod.addresses(link.index)
    for address in noted.ips:
        if split_cidr(address) not in there:
            yield f"{link.name} has lost {address}"
    routes = {
        (destination, length)
        for family in (AF_INET, AF_INET6)
        for destination, length, _gateway, index in pod.routes(family)
        if index == link.index
    }
    for route in _wanted_routes(conf, noted):
        destination, length = split_cidr(route)
        if (destination if length else b"", length) not in routes:
            yield f"{link.name} has lost its route to {route}"


def _wanted_routes(conf: NetConf, noted: JournalEntry) -> Iterator[str]:
    """The default routes, as far as it is known that IPAM gave a gateway for them, and host-local's."""
    known = conf.gateways or (noted.ips if conf.ipam_type == HOST_LOCAL else ())
    for default, is_ipv6 in (("0.0.0.0/0", False), ("::/0", True)):
        if conf.is_default_gateway and all(is_ipv6 in [":" in one for one in ips] for ips in (known, noted.ips)):
            yield default
    asked = conf.raw["ipam"].get("routes") if conf.ipam_type == HOST_LOCAL else None
    for route in asked if isinstance(asked, list) else ():
        if isinstance(route, dict) and is_cidr(route.get("dst")):
            yield route["dst"]


def _wrong_offload(conf: NetConf, pod: PodNetlink, link: Link) -> Iterator[str]:
    if conf.datapath_type != "netdev":
        return
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            has_tso = switch_of(ovsdb, conf.bridge).has_userspace_tso
    except OvsdbError:
        return  # The port's link says so.
    if not has_tso and has_tx_checksum(pod, link.name):
        yield f"{link.name} leaves its checksums to a datapath that does not fill them in (ethtool: tx)"


def _host_end(noted: JournalEntry, link: Link | None, bridge: Link | None) -> Finding:
    name = noted.host_end
    if link is None:
        return Finding("host's end", False, f"{name} is gone", _START_ANEW)
    if not link.is_up:
        return Finding("host's end", False, f"{name} is down", f"ip link set {name} up")
    if bridge is not None and link.mtu > bridge.mtu:
        what = f"{name} has an MTU of {link.mtu} bytes, above the {bridge.mtu} of its bridge"
        return Finding("host's end", False, what, _START_ANEW)
    return Finding("host's end", True, f"{name} is up, MTU {link.mtu}")


def _port(conf: NetConf, noted: JournalEntry) -> Finding:
    name = noted.host_end
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            port, is_served = port_of(ovsdb, conf.bridge, name), has_daemon(ovsdb)
    except EvioError as error:
        return Finding("port", False, str(error), _START_SWITCH)
    if not is_served:
        return Finding("port", False, "no ovs-vswitchd serves the OVSDB", _START_SWITCH)
    if port is None or not port.bridged:
        return Finding("port", False, f"{name} is no port of {conf.bridge}", _REPAIR)
    if port.ofport <= 0 or port.error:
        return Finding("port", False, f"Open vSwitch cannot use it: {port.error or 'it has no number'}", _REPAIR)
    if port.tag is not None:
        return Finding("port", False, f"{name} has been put into VLAN {port.tag}", _REPAIR)
    try:
        guarded = not noted.is_whole or has_port_security(conf, name, port.ofport, noted.mac, list(noted.ips))
    except OpenFlowError as error:
        return Finding("port", False, str(error), _START_SWITCH)
    if not guarded:
        return Finding("port", False, f"{name} is without the flows that guard it", _REPAIR)
    return Finding(
        "port", True, f"number {port.ofport} of {conf.bridge}, {'guarded' if conf.port_security else 'open'}"
    )


def _bridge(conf: NetConf) -> Finding:
    try:
        differences = compare_bridge(bridge_of(conf), ovsdb=conf.ovsdb)
        with OvsdbClient(conf.ovsdb) as ovsdb:
            is_dumb = lacks_normal_flow(conf, ovsdb)
    except EvioError as error:
        return Finding("bridge", False, str(error), _REPAIR)
    wrong = [f"{one.name} is {one.found!r}, not {one.wanted!r}" for one in differences]
    if is_dumb:
        wrong.append("the flow it switches by is gone")
    well = f"{conf.bridge} is up with {', '.join(conf.gateways) or 'no gateway'}, MTU {conf.mtu or 'not fixed'}"
    return _finding("bridge", wrong, well, _REPAIR)


def _rules(conf: NetConf, noted: JournalEntry) -> list[Finding]:
    rules = rules_of(conf, list(noted.ips))
    missing = rules.missing()
    return [
        Finding(
            "host ends" if name == HOST_ENDS else "masquerade",
            name not in missing,
            f"chain {name} of table {FAMILY} {TABLE}{' is not whole' if name in missing else ''}",
            _REPAIR if name in missing else "",
        )
        for name in rules.chains
    ]


def _tunnel() -> list[Finding]:
    """The way to other nodes, where it is an agent of ours that keeps it up."""
    state = read_state(paths.OVERLAY_STATE)
    if state is None:
        if not os.path.exists(paths.OVERLAY_CONFIG):
            return []
        return [Finding("tunnel", False, "the overlay's agent has not come up since the boot", _LOOK_AT_AGENT)]
    if state.fault:
        return [Finding("tunnel", False, f"the overlay is down: {state.fault}", _LOOK_AT_AGENT)]
    age = time.time() - state.updated
    if age > paths.OVERLAY_STATE_SECONDS:
        return [Finding("tunnel", False, f"the overlay's agent has said nothing for {age:.0f} s", _LOOK_AT_AGENT)]
    lost = [peer.name for peer in state.peers if not peer.path]
    what = f"{state.interface} reaches {len(state.peers) - len(lost)} of {len(state.peers)} nodes"
    return [Finding("tunnel", True, what + (f", not {', '.join(lost)}" if lost else ""))]


def _finding(link: str, wrong: list[str], well: str, remedy: str) -> Finding:
    return Finding(link, False, "; ".join(wrong), remedy) if wrong else Finding(link, True, well)
