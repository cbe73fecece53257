# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why a pod is not reachable: every link of its chain in the order in which a packet passes them, each looked at.

Nothing is changed; what can be mended is named together with the command that does it.
"""

from __future__ import annotations

import posix
from dataclasses import dataclass
from typing import Any

from .bridge import compare_bridge
from .errors import EvioError
from .journal import Journal
from .netconf import NetConf
from .netlink import NetlinkError
from .node_rules import FAMILY, HOST_ENDS, TABLE, rules_of
from .openflow import OpenFlowError
from .ovsdb_rpc import Ovsdb
from .port_guard import is_guarded
from .ready_bridge import bridge_of
from .rtnetlink import Link, Netlink, split_cidr


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
    conf, container_id, ifname, entry = _find(networks, pod)
    name = Journal(conf.state_dir, conf.name).host_end(container_id, ifname)
    return [
        Finding(
            "attachment", True, f"{container_id} {ifname} of network {conf.name}, {', '.join(entry.get('ips', ()))}"
        ),
        *_inside(entry, ifname),
        _host_end(name),
        _port(conf, name, entry),
        _bridge(conf),
        *_rules(conf, entry),
    ]


def _find(networks: list[NetConf], pod: str) -> tuple[NetConf, str, str, dict[str, Any]]:
    found = []
    for conf in networks:
        journal = Journal(conf.state_dir, conf.name)
        for container_id, ifname in journal.attachments():
            entry = journal.read(container_id, ifname) or {}
            addresses = [address.partition("/")[0] for address in entry.get("ips", ())]
            if container_id.startswith(pod) or pod in addresses:
                found.append((conf, container_id, ifname, entry))
    if not found:
        raise UnknownPodError(f"no pod of this node has a container whose id starts with {pod!r}, or that address")
    if len(found) > 1:
        raise UnknownPodError(f"{len(found)} pods have a container whose id starts with {pod!r}; give more of it")
    return found[0]


def _inside(entry: dict[str, Any], ifname: str) -> list[Finding]:
    path = entry.get("netns", "")
    try:
        netns = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        return [
            Finding("pod", False, f"its namespace {path} is gone ({error.strerror})", "the runtime removes the pod")
        ]
    try:
        pod = Netlink(netns)
        try:
            return [_pod(pod.link(ifname), pod, entry, ifname)]
        finally:
            pod.close()
    except (NetlinkError, OSError):
        return [Finding("pod", False, f"{path} is no network namespace any more", "the runtime removes the pod")]
    finally:
        posix.close(netns)


def _pod(link: Link | None, pod: Netlink, entry: dict[str, Any], ifname: str) -> Finding:
    restart = "start the pod anew"
    if link is None:
        return Finding("pod", False, f"{ifname} is gone", restart)
    if not link.is_up:
        return Finding("pod", False, f"{ifname} is down", restart)
    there = pod.addresses(link.index)
    for address in entry.get("ips", ()):
        if split_cidr(address) not in there:
            return Finding("pod", False, f"{ifname} has lost {address}", restart)
    return Finding("pod", True, f"{ifname} is up, MAC {link.mac}, MTU {link.mtu}")


def _host_end(name: str) -> Finding:
    host = Netlink()
    try:
        link = host.link(name)
    finally:
        host.close()
    if link is None:
        return Finding("host's end", False, f"{name} is gone", "start the pod anew")
    if not link.is_up:
        return Finding("host's end", False, f"{name} is down", f"ip link set {name} up")
    return Finding("host's end", True, f"{name} is up, MTU {link.mtu}")


def _port(conf: NetConf, name: str, entry: dict[str, Any]) -> Finding:
    try:
        ovsdb = Ovsdb(conf.ovsdb)
        try:
            port, is_served = ovsdb.port(conf.bridge, name), ovsdb.has_daemon()
        finally:
            ovsdb.close()
    except EvioError as error:
        return Finding("port", False, str(error), "start Open vSwitch, then evio repair")
    if not is_served:
        return Finding("port", False, "no ovs-vswitchd serves the OVSDB", "start Open vSwitch, then evio repair")
    if port is None or not port.bridged:
        return Finding("port", False, f"{name} is no port of {conf.bridge}", "evio repair")
    if port.ofport <= 0 or port.error:
        return Finding("port", False, f"Open vSwitch cannot use it: {port.error or 'it has no number'}", "evio repair")
    try:
        guarded = is_guarded(conf, name, port.ofport, entry.get("mac", ""), entry.get("ips", []))
    except OpenFlowError as error:
        return Finding("port", False, str(error), "start Open vSwitch, then evio repair")
    if not guarded:
        return Finding("port", False, f"{name} is without the flows that guard it", "evio repair")
    return Finding(
        "port", True, f"number {port.ofport} of {conf.bridge}, {'guarded' if conf.port_security else 'open'}"
    )


def _bridge(conf: NetConf) -> Finding:
    try:
        differences = compare_bridge(bridge_of(conf), ovsdb=conf.ovsdb)
    except EvioError as error:
        return Finding("bridge", False, str(error), "evio repair")
    wrong = [f"{one.name} is {one.found!r}, not {one.wanted!r}" for one in differences]
    if wrong:
        return Finding("bridge", False, "; ".join(wrong), "evio repair")
    return Finding("bridge", True, f"{conf.bridge} is up with {', '.join(conf.gateways)}, MTU {conf.mtu}")


def _rules(conf: NetConf, entry: dict[str, Any]) -> list[Finding]:
    rules = rules_of(conf, entry.get("ips", []))
    missing = rules.missing()
    return [
        Finding(
            "host ends" if name == HOST_ENDS else "masquerade",
            name not in missing,
            f"chain {name} of table {FAMILY} {TABLE}{' is not whole' if name in missing else ''}",
            "evio repair" if name in missing else "",
        )
        for name in rules.chains
    ]
