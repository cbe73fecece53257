# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's side of ADD: the veth pair, and its port on the bridge. What the pod gets then is pod_side's subject.

Ordered so that nobody waits for nobody: while IPAM works, the pair is made; while vswitchd takes up the port, the code
of the pod's side is read. What is left then takes a fraction of a millisecond each: addresses, flows, routes.
"""

from __future__ import annotations

import posix

from ..cni.interfaces import Interface, Interfaces
from ..cni.netconf import NetConf
from ..cni.spec import FAILED, INVALID_CONFIG, INVALID_ENVIRONMENT, Call, CniError
from ..errors import NothingBegunError
from ..ipam.delegate import IpamCall
from ..kernel.netlink import NetlinkError
from ..kernel.rtnetlink import Netlink
from ..ovs.external_ids import external_ids
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.ports import NewPort
from .setup_bridge import repaired_bridge, setup_bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.attachment import Attachment

_EEXIST = 17


def setup_host_side(
    call: Call, conf: NetConf, attachment: Attachment, name: str, netns: int, ipam: IpamCall
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attach the pod; ``name`` is for the host's end. Returns the result, and what the journal is to know besides.

    Raises EvioError, with things left behind.
    """
    mac, host_mac = _pod_mac(call, conf), _random_mac()
    ids = external_ids(attachment, mac.hex(":"))
    with Netlink() as host, _connect(conf.ovsdb) as ovsdb:
        bridge = setup_bridge(conf, host)
        mtu = conf.mtu or bridge.mtu
        _create_veth(host, name, host_mac, call.ifname, mac, netns, mtu)
        port = NewPort(ovsdb, conf.bridge, name, ids)
        from .add_pod_side import setup_pod_side

        if not port.has_bridge():
            # What is there of it is a device that vswitchd is about to take away: its database was begun anew.
            bridge = repaired_bridge(conf, host)
            port = NewPort(ovsdb, conf.bridge, name, ids)
        interfaces = Interfaces(
            Interface(conf.bridge, bridge.mac, bridge.mtu),
            Interface(name, host_mac.hex(":"), mtu),
            Interface(call.ifname, mac.hex(":"), mtu, call.netns),
        )
        with port:
            return setup_pod_side(call, conf, attachment, netns, ipam, port, interfaces)


def _connect(ovsdb: str) -> OvsdbClient:
    try:
        return OvsdbClient(ovsdb)
    except OvsdbError as error:
        raise NothingBegunError(str(error)) from None


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
