# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel's and Open vSwitch's part of ADD: veth pair, port and flows, addresses and routes, the node's rules.

Ordered so that nobody waits for nobody: IPAM's process works while the pair is made, vswitchd while the pod's end is.
"""

from __future__ import annotations

import posix

from .cni_protocol import FAILED, INVALID_ENVIRONMENT, Call, CniError
from .ipam import IpamCall, start_ipam
from .netconf import NetConf
from .netlink import NetlinkError
from .node_rules import rules_of
from .ovsdb_rpc import Ovsdb
from .ownership import external_ids, host_ifname
from .port_guard import guard
from .ready_bridge import ready_bridge
from .result import addresses_of, result_of, routes_of
from .rtnetlink import Netlink, packed, split_cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_EEXIST = 17
_USERSPACE_TSO = "userspace-tso-enable"


def wire(
    call: Call, conf: NetConf, netns: int, ipam: IpamCall, note: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Attach the pod, and return the result; ``note`` is told what the journal is to know of it besides.

    Raises EvioError, with things left behind.
    """
    name = host_ifname(call.container_id, call.ifname)
    mac, host_mac = _pod_mac(call, conf), _random_mac()
    host = Netlink()
    try:
        ovsdb = Ovsdb(conf.ovsdb)
        try:
            switch = ovsdb.switch(conf.bridge)
            bridge = ready_bridge(conf, host, switch)
            mtu = conf.mtu or bridge.mtu
            _create_veth(host, name, host_mac, call.ifname, mac, netns, mtu)
            pod = Netlink(netns)
            try:
                answer = _answer_of(ipam, call, conf)
                ips = addresses_of(answer)
                routes = routes_of(conf, answer, ips)
                own_mac, own_ips = mac.hex(":"), [ip["address"] for ip in ips]
                # All that is to be said of the port in one change: vswitchd goes through all its ports at each.
                ids = external_ids(call.container_id, call.ifname, conf.name, own_mac, own_ips)
                ovsdb.begin_port(conf.bridge, name, ids)
                try:
                    without_checksums = _needs_checksums(conf, switch.other_config)
                    index = _address_pod(pod, netns, call.ifname, own_ips, without_checksums=without_checksums)
                    rules_of(conf, own_ips).ensure()
                    note({"mac": own_mac, "ips": own_ips})
                finally:
                    # Awaited whatever happens, so that what undoes it comes after it.
                    ofport = ovsdb.finish_port(name)
                if conf.port_security:
                    guard(conf, name, ofport, own_mac, own_ips, switch.closed)
                    if switch.closed:
                        ovsdb.forget_closed(conf.bridge, switch.closed)
                # Not before, or the first frame, which tells the neighbours of the address, would be lost.
                _open_pod(pod, call.ifname, index, routes)
            finally:
                pod.close()
        finally:
            ovsdb.close()
    finally:
        host.close()
    interfaces = [
        {"name": conf.bridge, "mac": bridge.mac, "mtu": bridge.mtu},
        {"name": name, "mac": host_mac.hex(":"), "mtu": mtu},
        {"name": call.ifname, "mac": own_mac, "mtu": mtu, "sandbox": call.netns},
    ]
    return result_of(conf, interfaces, ips, routes, answer)


def _answer_of(ipam: IpamCall, call: Call, conf: NetConf) -> dict[str, Any]:
    """IPAM's answer; where it has refused one for want of room, the dead give theirs back and it is asked again."""
    try:
        return ipam.finish()
    except CniError as refusal:
        from .collection import make_room

        if not make_room(call, conf, refusal):
            raise
    return start_ipam("ADD", call, conf).finish()


def _address_pod(pod: Netlink, netns: int, ifname: str, ips: list[str], *, without_checksums: bool) -> int:
    """Give the pod's end its addresses, still down, and return its index.

    ``without_checksums``: it fills them in itself from now on.
    """
    link = pod.link(ifname)
    if link is None:
        raise CniError(FAILED, f"{ifname} has gone from the pod while it was set up")
    try:
        if without_checksums:
            from .offload import disable_tx_checksum

            disable_tx_checksum(netns, link.index)
        pod.give_addresses(link.index, [split_cidr(ip) for ip in ips])
    except (NetlinkError, OSError) as error:
        raise _pod_failure(ifname, error) from None
    return link.index


def _open_pod(pod: Netlink, ifname: str, index: int, routes: list[dict[str, Any]]) -> None:
    """Up, and then its routes."""
    try:
        pod.open_link(
            index, [(*split_cidr(one["dst"]), packed(one["gw"]) if one.get("gw") else None) for one in routes]
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
    if len(mac) != 6 or mac[0] & 1:
        raise CniError(INVALID_ENVIRONMENT, f"mac: {wanted!r} is not the address of one interface")
    return mac


def _random_mac() -> bytes:
    mac = bytearray(posix.urandom(6))
    mac[0] = mac[0] & 0xFE | 0x02  # Of one interface, and locally administered (IEEE 802).
    return bytes(mac)


def _needs_checksums(conf: NetConf, other_config: dict[str, str]) -> bool:
    """vswitchd's datapath passes on what it gets: without its TSO, a pod must fill in its checksums itself."""
    return conf.datapath_type == "netdev" and other_config.get(_USERSPACE_TSO) != "true"
