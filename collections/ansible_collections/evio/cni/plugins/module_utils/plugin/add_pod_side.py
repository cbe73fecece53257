# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod's part of ADD, for which IPAM and vswitchd have to be awaited: addresses, flows, the node's rules, routes."""

from __future__ import annotations

from ..cidr import split_cidr
from ..cni.netconf import NetConf
from ..cni.result import addresses_of, result_of, routes_of
from ..cni.spec import FAILED, ROUTE_NUMBERS, Call, CniError
from ..firewall.network_rules import rules_of
from ..ipam.delegate import IpamCall, start_ipam
from ..kernel.ethtool import disable_tx_checksum
from ..kernel.netlink import NetlinkError
from ..kernel.netns import in_netns
from ..kernel.rtnetlink import PodNetlink, Route
from ..ovs.external_ids import address_ids
from ..ovs.flows import PortSecurity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.attachment import Attachment
    from ..cni.interfaces import Interfaces
    from ..ovs.ports import NewPort

_EACCES = 13
_ROOM_ATTEMPTS = 5
"""What one ADD has made free, another may take."""


def setup_pod_side(
    call: Call,
    conf: NetConf,
    attachment: Attachment,
    netns: int,
    ipam: IpamCall,
    port: NewPort,
    interfaces: Interfaces,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the pod's end what IPAM wants it to be. Returns as ``setup_host_side``.

    Raises EvioError, with things left behind.
    """
    mac = interfaces.pod.mac
    with PodNetlink(netns) as pod:
        # vswitchd's datapath passes on what it gets: without its TSO, a pod must fill in its checksums itself.
        alone = conf.datapath_type == "netdev" and not port.switch.has_userspace_tso
        index = _prepare(pod, call.ifname, without_checksums=alone)
        number = port.wait_ofport()
        with PortSecurity(conf) as guard:
            answer = _answer_of(ipam, attachment, call, conf)
            ips = addresses_of(conf, answer)
            routes = routes_of(conf, answer, ips)
            addresses = [ip["address"] for ip in ips]
            _give_addresses(pod, netns, call.ifname, index, addresses)
            rules_of(conf, addresses).ensure()
            gone = guard.install_port_security(number, port.name, mac, addresses, port.switch.removed_ports)
            port.add_external_ids(address_ids(addresses), gone)
            # Not before, or the first frame, which tells the neighbours of the address, would be lost.
            _open(pod, call.ifname, index, routes)
            port.flush()
    return result_of(conf, interfaces, ips, routes, answer), {"mac": mac, "ips": addresses}


def _answer_of(ipam: IpamCall, attachment: Attachment, call: Call, conf: NetConf) -> dict[str, Any]:
    """IPAM's answer; where it has refused one for want of room, the dead give theirs back and it is asked again."""
    for _attempt in range(_ROOM_ATTEMPTS):
        try:
            return ipam.result()
        except CniError as refusal:
            from .reclaim import reclaim_addresses

            if not reclaim_addresses(conf, refusal, call.path):
                raise
        ipam = start_ipam("ADD", attachment, conf, call.path, call.netns)
    return ipam.result()


def _prepare(pod: PodNetlink, ifname: str, *, without_checksums: bool) -> int:
    """The index of the pod's end, which is still down; ``without_checksums``: it fills them in itself from now on."""
    try:
        if without_checksums:
            disable_tx_checksum(pod, ifname)
        return pod.index(ifname)
    except NetlinkError as error:
        raise _failure(ifname, error) from None


def _give_addresses(pod: PodNetlink, netns: int, ifname: str, index: int, ips: list[str]) -> None:
    addresses = [split_cidr(ip) for ip in ips]
    try:
        try:
            pod.give_addresses(index, addresses)
        except NetlinkError as error:
            if error.errno != _EACCES:
                raise
            # IPv6 was switched off where the interface came to be; IPAM has given it an address all the same.
            from ..kernel.sysctl import write_sysctls

            in_netns(netns, lambda: write_sysctls({f"net/ipv6/conf/{ifname}/disable_ipv6": "0"}))
            pod.give_addresses(index, [one for one in addresses if len(one[0]) == 16])
    except (NetlinkError, OSError) as error:
        raise _failure(ifname, error) from None


def _open(pod: PodNetlink, ifname: str, index: int, routes: list[dict[str, Any]]) -> None:
    """Up, and then its routes."""
    try:
        pod.open_link(
            index, [Route(one["dst"], one.get("gw"), **{key: one.get(key) for key in ROUTE_NUMBERS}) for one in routes]
        )
    except (NetlinkError, OSError) as error:
        raise _failure(ifname, error) from None


def _failure(ifname: str, error: Exception) -> CniError:
    return CniError(FAILED, f"cannot set up {ifname} in the pod: {error}")
