# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel's and Open vSwitch's part of ADD: veth pair, port and flows, addresses and routes, the node's rules.

Ordered so that nobody waits for nobody: while IPAM works, the pair is made and plugged into the bridge. What is left
then takes a fraction of a millisecond each: the addresses, the flows, the routes.
"""

from __future__ import annotations

import posix

from .cni_protocol import FAILED, INVALID_CONFIG, INVALID_ENVIRONMENT, ROUTE_NUMBERS, Call, CniError
from .errors import NothingBegunError
from .ipam import IpamCall, start_ipam
from .netconf import NetConf
from .netlink import NetlinkError
from .netns import inside
from .node_rules import rules_of
from .ovsdb_rpc import Ovsdb, SwitchError
from .ownership import address_ids, external_ids, host_ifname
from .port_guard import guard
from .ready_bridge import ready_bridge
from .result import addresses_of, result_of, routes_of
from .rtnetlink import Netlink, Route, split_cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_EACCES, _EEXIST = 13, 17
_ROOM_ATTEMPTS = 5
"""What one ADD has made free, another may take."""


def wire(
    call: Call, conf: NetConf, netns: int, ipam: IpamCall, note: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Attach the pod, and return the result; ``note`` is told what the journal is to know of it besides.

    Raises EvioError, with things left behind.
    """
    name = host_ifname(conf.name, call.container_id, call.ifname)
    mac, host_mac = _pod_mac(call, conf), _random_mac()
    own_mac = mac.hex(":")
    with Netlink() as host, _connect(conf.ovsdb) as ovsdb:
        switch = ovsdb.switch(conf.bridge)
        bridge = ready_bridge(conf, host, switch)
        mtu = conf.mtu or bridge.mtu
        _create_veth(host, name, host_mac, call.ifname, mac, netns, mtu)
        ids = external_ids(call.container_id, call.ifname, conf.name, own_mac)
        with ovsdb.begin_port(conf.bridge, name, ids) as port, Netlink(netns) as pod:
            # vswitchd's datapath passes on what it gets: without its TSO, a pod must fill in its checksums itself.
            alone = conf.datapath_type == "netdev" and not switch.has_userspace_tso
            index = _prepare_pod(pod, netns, call.ifname, without_checksums=alone)
            answer = _answer_of(ipam, call, conf)
            ips = addresses_of(conf, answer)
            routes = routes_of(conf, answer, ips)
            own_ips = [ip["address"] for ip in ips]
            noted = ovsdb.begin_ids(name, address_ids(own_ips))
            _address_pod(pod, netns, call.ifname, index, own_ips)
            rules_of(conf, own_ips).ensure()
            note({"mac": own_mac, "ips": own_ips})
            ofport = port.finish()
            ovsdb.finish(noted)
            if conf.port_security:
                guard(conf, name, ofport, own_mac, own_ips, switch.closed)
                if switch.closed:
                    ovsdb.forget_closed(conf.bridge, switch.closed)
            # Not before, or the first frame, which tells the neighbours of the address, would be lost.
            _open_pod(pod, call.ifname, index, routes)
    interfaces = [
        {"name": conf.bridge, "mac": bridge.mac, "mtu": bridge.mtu},
        {"name": name, "mac": host_mac.hex(":"), "mtu": mtu},
        {"name": call.ifname, "mac": own_mac, "mtu": mtu, "sandbox": call.netns},
    ]
    return result_of(conf, interfaces, ips, routes, answer)


def _connect(ovsdb: str) -> Ovsdb:
    try:
        return Ovsdb(ovsdb)
    except SwitchError as error:
        raise NothingBegunError(str(error)) from None


def _answer_of(ipam: IpamCall, call: Call, conf: NetConf) -> dict[str, Any]:
    """IPAM's answer; where it has refused one for want of room, the dead give theirs back and it is asked again."""
    for _attempt in range(_ROOM_ATTEMPTS):
        try:
            return ipam.finish()
        except CniError as refusal:
            from .collection import make_room

            if not make_room(call, conf, refusal):
                raise
        ipam = start_ipam("ADD", call, conf)
    return ipam.finish()


def _prepare_pod(pod: Netlink, netns: int, ifname: str, *, without_checksums: bool) -> int:
    """The index of the pod's end, which is still down; ``without_checksums``: it fills them in itself from now on."""
    link = pod.link(ifname)
    if link is None:
        raise CniError(FAILED, f"{ifname} has gone from the pod while it was set up")
    if without_checksums:
        from .offload import disable_tx_checksum

        try:
            disable_tx_checksum(netns, link.index)
        except (NetlinkError, OSError) as error:
            raise _pod_failure(ifname, error) from None
    return link.index


def _address_pod(pod: Netlink, netns: int, ifname: str, index: int, ips: list[str]) -> None:
    addresses = [split_cidr(ip) for ip in ips]
    try:
        try:
            pod.give_addresses(index, addresses)
        except NetlinkError as error:
            if error.errno != _EACCES:
                raise
            # IPv6 was switched off where the interface came to be; IPAM has given it an address all the same.
            from .sysctls import write_sysctls

            inside(netns, lambda: write_sysctls({f"net/ipv6/conf/{ifname}/disable_ipv6": "0"}))
            pod.give_addresses(index, [one for one in addresses if len(one[0]) == 16])
    except (NetlinkError, OSError) as error:
        raise _pod_failure(ifname, error) from None


def _open_pod(pod: Netlink, ifname: str, index: int, routes: list[dict[str, Any]]) -> None:
    """Up, and then its routes."""
    try:
        pod.open_link(
            index, [Route(one["dst"], one.get("gw"), **{key: one.get(key) for key in ROUTE_NUMBERS}) for one in routes]
        )
    except (NetlinkError, OSError) as error:
        raise _pod_failure(ifname, error) from None


def _pod_failure(ifname: str, error: Exception) -> CniError:
    return CniError(FAILED, f"cannot set up {ifname} in the pod: {error}")


def _create_veth(host: Netlink, name: str, host_mac: bytes, ifname: str, mac: bytes, netns: int, mtu: int) -> None:
    try:
        host.create_veth(name, host_mac, ifname, mac, netns, mtu)
    except NetlinkError as error:
        if error.errno == _EEXIST:
            raise CniError(FAILED, f"the pod has an interface {ifname} already, or the host one named {name}") from None
        raise CniError(FAILED, str(error)) from None


def _pod_mac(call: Call, conf: NetConf) -> bytes:
    wanted = conf.mac or call.arguments.get("MAC")
    if not wanted:
        return _random_mac()
    try:
        mac = bytes.fromhex(wanted.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6 or mac[0] & 1 or not any(mac):
        code = INVALID_CONFIG if conf.mac else INVALID_ENVIRONMENT
        raise CniError(code, f"mac: {wanted!r} is not the address of one interface")
    return mac


def _random_mac() -> bytes:
    mac = bytearray(posix.urandom(6))
    mac[0] = mac[0] & 0xFE | 0x02  # Of one interface, and locally administered (IEEE 802).
    return bytes(mac)
