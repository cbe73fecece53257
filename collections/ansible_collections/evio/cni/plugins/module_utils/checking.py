# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CHECK: every link of a pod's attachment compared with what ADD has left; nothing is changed."""

from __future__ import annotations

import posix

from .cni_protocol import INVALID_ENVIRONMENT, NOT_AS_ATTACHED, TRY_AGAIN, Call, CniError
from .ipam import start_ipam
from .journal import Journal
from .netconf import NetConf
from .netns import open_netns
from .node_rules import rules_of
from .openflow import OpenFlowError
from .ovsdb_rpc import Ovsdb, SwitchError
from .ownership import ADDRESS_ID, MAC_ID
from .port_guard import is_guarded
from .ready_bridge import is_as_wanted
from .rtnetlink import AF_INET, AF_INET6, Link, Netlink, packed, split_cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def check(call: Call, conf: NetConf) -> None:
    """Raise CniError for the first thing that is not as ADD has left it; TRY_AGAIN where that cannot be told now."""
    if conf.previous is None:
        raise CniError(INVALID_ENVIRONMENT, "CHECK needs the result of ADD: prevResult is not in the configuration")
    name = Journal(conf.state_dir, conf.name).host_end(call.container_id, call.ifname)
    ipam = start_ipam("CHECK", call, conf)
    try:
        _check_pod(call, conf)
        _check_host(conf, name)
        try:
            _check_port(conf, name)
        except (SwitchError, OpenFlowError) as error:
            raise CniError(TRY_AGAIN, str(error)) from None
    finally:
        failure = ipam.finish_quietly()
    if failure is not None:
        raise failure


def _check_pod(call: Call, conf: NetConf) -> None:
    previous = conf.previous or {}
    netns = open_netns(call.netns)
    try:
        pod = Netlink(netns)
        try:
            link = pod.link(call.ifname)
            if link is None:
                raise CniError(NOT_AS_ATTACHED, f"{call.ifname} is not in the pod any more")
            if not link.is_up:
                raise CniError(NOT_AS_ATTACHED, f"{call.ifname} of the pod is down")
            ours = [
                place for place, one in enumerate(previous.get("interfaces") or ()) if one.get("name") == call.ifname
            ]
            mac = previous["interfaces"][ours[0]].get("mac") if ours else None
            if mac and mac.lower() != link.mac:
                raise CniError(NOT_AS_ATTACHED, f"{call.ifname} has the MAC {link.mac}, ADD has given it {mac}")
            wanted = [ip["address"] for ip in previous.get("ips") or () if ip.get("interface") in ours]
            there = pod.addresses(link.index)
            for address in wanted:
                if split_cidr(address) not in there:
                    raise CniError(NOT_AS_ATTACHED, f"{call.ifname} of the pod has lost its address {address}")
            _check_routes(pod, link, previous)
        finally:
            pod.close()
    finally:
        posix.close(netns)


def _check_routes(pod: Netlink, link: Link, previous: dict[str, Any]) -> None:
    routes = {family: pod.routes(family) for family in (AF_INET, AF_INET6)}
    for route in previous.get("routes") or ():
        gateway = route.get("gw")
        if not gateway:
            continue
        destination, length = split_cidr(route["dst"])
        family = AF_INET if len(destination) == 4 else AF_INET6
        if (destination if length else b"", length, packed(gateway), link.index) not in routes[family]:
            raise CniError(NOT_AS_ATTACHED, f"the pod has lost its route to {route['dst']} by {gateway}")


def _check_host(conf: NetConf, name: str) -> None:
    host = Netlink()
    try:
        link = host.link(name)
        if link is None or not link.is_up:
            raise CniError(
                NOT_AS_ATTACHED, f"the host's end of the pod's interface, {name}, is {'down' if link else 'gone'}"
            )
        bridge = host.link(conf.bridge)
        if bridge is None or not is_as_wanted(conf, host, bridge):
            raise CniError(NOT_AS_ATTACHED, f"the bridge {conf.bridge} is not as configured; `evio repair` mends it")
    finally:
        host.close()
    ips = list((conf.previous or {}).get("ips") or ())
    missing = rules_of(conf, [ip["address"] for ip in ips]).missing()
    if missing:
        raise CniError(
            NOT_AS_ATTACHED, f"rules of the node are gone, {', '.join(missing)} of nftables; `evio repair` mends them"
        )


def _check_port(conf: NetConf, name: str) -> None:
    ovsdb = Ovsdb(conf.ovsdb)
    try:
        port = ovsdb.port(conf.bridge, name)
    finally:
        ovsdb.close()
    if port is None or not port.bridged:
        raise CniError(NOT_AS_ATTACHED, f"{name} is not a port of the bridge {conf.bridge}; `evio repair` mends it")
    if port.ofport <= 0 or port.error:
        raise CniError(NOT_AS_ATTACHED, f"Open vSwitch cannot use the port {name}: {port.error or 'it has no number'}")
    ids = port.external_ids
    if not is_guarded(
        conf, name, port.ofport, ids.get(MAC_ID, ""), list(filter(None, ids.get(ADDRESS_ID, "").split(",")))
    ):
        raise CniError(NOT_AS_ATTACHED, f"the flows that guard the port {name} are gone; `evio repair` mends it")
