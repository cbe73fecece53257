# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod's side of ADD, which waits for IPAM and for vswitchd: addresses, the port's flows, the node's rules, routes.

The veth pair exists already, and the port is being added: add_host_side.
"""

from __future__ import annotations

import posix

from ..cidr import split_cidr
from ..cni.netconf import HOST_LOCAL
from ..cni.result import addresses_of, result_of, routes_of
from ..cni.spec import FAILED, ROUTE_NUMBERS, CniError
from ..firewall.network_rules import rules_of
from ..ipam.delegate import start_ipam
from ..kernel.ethtool import disable_tx_checksum
from ..kernel.netlink import NetlinkError
from ..kernel.netns import in_netns
from ..kernel.numbers import EACCES
from ..kernel.pod_netlink import PodNetlink, Route
from ..ovs.external_ids import address_ids
from ..paths import HOST_LOCAL_DATA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.attachment import Attachment
    from ..cni.interfaces import Interfaces
    from ..cni.netconf import NetConf
    from ..cni.spec import Call
    from ..ipam.delegate import IpamCall
    from ..kernel.rtnetlink import Netlink
    from ..ovs.port_flows import PortFlows
    from ..ovs.ports import NewPort

_RECLAIM_ATTEMPTS = 5
"""More than one, because another ADD may take the address that this one has reclaimed."""


def setup_pod_side(
    call: Call,
    conf: NetConf,
    attachment: Attachment,
    netns: int,
    ipam: IpamCall,
    host: Netlink,
    flows: PortFlows,
    port: NewPort,
    ofport: int | None,
    interfaces: Interfaces,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the pod's interface what IPAM answers, and let the port forward. Return as ``setup_host_side``.

    ``ofport`` is the OpenFlow number that the port is to get, None without port security. Raises EvioError, and leaves
    the undoing to the caller.
    """
    mac = interfaces.pod.mac
    with PodNetlink(netns) as pod:
        index = _prepare_interface(pod, call.ifname, needs_checksums=port.switch.needs_checksums)
        # Before the host's end is up: a pod that runs already must not send anything before the port has its flows.
        flows.wait_closed()
        host.set_link_up(port.name)
        answer = _ipam_answer(ipam, attachment, call, conf)
        ips = addresses_of(conf, answer)
        routes = routes_of(conf, answer, ips)
        addresses = [ip["address"] for ip in ips]
        _give_addresses(pod, netns, call.ifname, index, addresses)
        rules_of(conf, addresses).ensure()
        # Before vswitchd has opened the port: it does both in one turn.
        forgotten = [] if ofport is None else flows.install(ofport, mac, addresses, port.switch.removed_ports)
        port.wait_ofport()
        port.add_external_ids(address_ids(addresses), forgotten)
        # After that: the port forwards the first frame, which announces the address to the neighbours.
        _open_interface(pod, call.ifname, index, mac, routes)
        port.flush()
    noted: dict[str, Any] = {"mac": mac, "ips": addresses}
    if port.switch.is_borrowed:
        noted["borrowed"] = True
    return result_of(conf, interfaces, ips, routes, answer), noted


def _ipam_answer(ipam: IpamCall, attachment: Attachment, call: Call, conf: NetConf) -> dict[str, Any]:
    """Return IPAM's answer. If no address is free, reclaim those of dead attachments and ask again; so too if it is the
    address of a live one, whose reservation is lost. Raises EvioError.
    """
    for attempt in range(_RECLAIM_ATTEMPTS + 1):
        if attempt:
            ipam = start_ipam("ADD", attachment, conf, call.path, call.netns)
        try:
            answer = ipam.result()
        except CniError as refusal:
            # Only an ADD that IPAM refuses needs it.
            from .reclaim import reclaim_addresses

            if attempt == _RECLAIM_ATTEMPTS or not reclaim_addresses(conf, refusal, call.path):
                raise
        else:
            if not _has_lost_reservations(conf, answer) or not _gives_up_lost(conf, attachment, answer):
                return answer
    raise CniError(FAILED, "the IPAM plugin gives addresses of running pods again and again")


def _has_lost_reservations(conf: NetConf, answer: dict[str, Any]) -> bool:
    """Return whether fewer addresses are reserved than the journal has attachments, as when /var/lib/cni was emptied.

    Two directories are listed for that and nothing is read.
    """
    if conf.ipam_type != HOST_LOCAL:
        return False
    ips = answer.get("ips")
    each = len(ips) if isinstance(ips, list) and ips else 1
    try:
        attachments = posix.listdir(f"{conf.state_dir}/{conf.name}")
        files = posix.listdir(f"{conf.raw['ipam'].get('dataDir') or HOST_LOCAL_DATA}/{conf.name}")
    except OSError:
        return False
    reserved = sum("0" <= name[0] <= "9" or ":" in name for name in files)
    return reserved < len(attachments) * each


def _gives_up_lost(conf: NetConf, attachment: Attachment, answer: dict[str, Any]) -> bool:
    """Restore the reservations of live pods; return whether one of them has an address of this answer."""
    # Only where reservations are lost.
    from .reclaim import restore_reservations

    restored = restore_reservations(conf, attachment)
    return any(str(ip.get("address")).partition("/")[0] in restored for ip in answer.get("ips") or ())


def _prepare_interface(pod: PodNetlink, ifname: str, *, needs_checksums: bool) -> int:
    """Return the index of the pod's interface, which is still down; switch checksum offload off if need be."""
    try:
        if needs_checksums:
            disable_tx_checksum(pod, ifname)
        return pod.index(ifname)
    except NetlinkError as error:
        raise _failure(ifname, error) from None


def _give_addresses(pod: PodNetlink, netns: int, ifname: str, index: int, cidrs: list[str]) -> None:
    addresses = [split_cidr(cidr) for cidr in cidrs]
    try:
        try:
            pod.set_up_with_addresses(index, addresses)
        except NetlinkError as error:
            if error.errno != EACCES:
                raise
            # Rare: IPv6 is switched off where the interface was made, and IPAM has given it an IPv6 address.
            from ..kernel.sysctl import write_sysctls

            in_netns(netns, lambda: write_sysctls({f"net/ipv6/conf/{ifname}/disable_ipv6": "0"}))
            pod.set_up_with_addresses(index, [address for address in addresses if len(address[0]) == 16])
    except (NetlinkError, OSError) as error:
        raise _failure(ifname, error) from None


def _open_interface(pod: PodNetlink, ifname: str, index: int, mac: str, routes: list[dict[str, Any]]) -> None:
    """Announce the interface's addresses to the neighbours, and add its routes."""
    try:
        pod.announce_with_routes(index, bytes.fromhex(mac.replace(":", "")), [_route(route) for route in routes])
    except (NetlinkError, OSError) as error:
        raise _failure(ifname, error) from None


def _route(route: dict[str, Any]) -> Route:
    return Route(route["dst"], route.get("gw"), **{key: route.get(key) for key in ROUTE_NUMBERS})


def _failure(ifname: str, error: Exception) -> CniError:
    return CniError(FAILED, f"cannot set up {ifname} in the pod: {error}")
