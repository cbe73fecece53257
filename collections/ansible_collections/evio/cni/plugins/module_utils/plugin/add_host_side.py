# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's side of ADD: the veth pair, and its port on the bridge. What is set up inside the pod: add_pod_side.

vswitchd looks at all ports of its bridges when a port is added and when a device changes. On a node with many pods, the
request for the port is therefore sent first, and the veth pair is made while it is under way: vswitchd finds the device
then, and sees the changes of both ends together, while the ADD goes on. Until the port has its flows, a flow that was
there before the port drops what the pod sends.
"""

from __future__ import annotations

import posix

from ..cni.spec import FAILED, INVALID_CONFIG, INVALID_ENVIRONMENT, CniError
from ..errors import NothingBegunError
from ..kernel.netlink import NetlinkError
from ..kernel.numbers import EEXIST
from ..kernel.rtnetlink import Netlink
from ..ovs.external_ids import external_ids
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.port_flows import PortFlows
from ..ovs.ports import NewPort, random_ofport, segment_of
from ..state.journal import Journal
from .setup_bridge import setup_bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.attachment import Attachment
    from ..cni.netconf import NetConf
    from ..cni.spec import Call
    from ..ipam.delegate import IpamCall
    from ..kernel.links import Link

FEW_PODS = 20
"""With so many pods, vswitchd looks at all ports in less time than the kernel needs for a veth pair: it would look for
the device too early, note an error, and look again."""


def setup_host_side(
    call: Call, conf: NetConf, attachment: Attachment, host_end: str, netns: int, ipam: IpamCall
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the veth pair, ``host_end`` and the pod's interface, plug it in, and set up the pod's side.

    Return ADD's result in the newest specification's shape, and the keys to add to the journal's entry. Raises
    EvioError, and leaves the undoing to the caller; NothingBegunError where Open vSwitch has not been asked yet.
    """
    mac, host_mac = _pod_mac(call, conf), _random_mac()
    ids = external_ids(attachment, mac.hex(":"))
    with Netlink() as host, _connect(conf.ovsdb) as ovsdb:
        bridge = setup_bridge(conf, host)
        mtu = conf.mtu or bridge.mtu
        with (
            PortFlows(conf, host_end) as flows,
            NewPort(ovsdb, conf.bridge, host_end, ids, segment_of(conf)) as port,
        ):
            is_crowded = Journal(conf.state_dir).size(conf.name) > FEW_PODS
            if is_crowded:
                ofport = _begin_port(conf, bridge, flows, port)
            _create_veth(host, host_end, host_mac, call.ifname, mac, netns, mtu)
            if not is_crowded:
                ofport = _begin_port(conf, bridge, flows, port)
            # stage: read while vswitchd opens the port.
            from ..cni.interfaces import Interface, Interfaces
            from .add_pod_side import setup_pod_side

            while port.is_taken():
                flows.abandon()
                ofport = _begin_port(conf, bridge, flows, port)
            if not port.has_bridge():
                # The database was begun anew: the bridge's device still exists, and vswitchd is about to delete it.
                from .repair_bridge import repaired_bridge

                bridge = repaired_bridge(conf, host)
                flows.abandon()
                ofport = _begin_port(conf, bridge, flows, port)
            conf.datapath_type = conf.datapath_type or port.switch.datapath_type
            interfaces = Interfaces(
                Interface(conf.bridge, bridge.mac, bridge.mtu),
                Interface(host_end, host_mac.hex(":"), mtu),
                Interface(call.ifname, mac.hex(":"), mtu, call.netns),
            )
            return setup_pod_side(call, conf, attachment, netns, ipam, host, flows, port, ofport, interfaces)


def _begin_port(conf: NetConf, bridge: Link, flows: PortFlows, port: NewPort) -> int | None:
    """Send the requests for the port: first its flow that drops, then the port. Return its number. Raises OvsdbError.

    Without port security there is no such flow, and vswitchd chooses the number: None.
    """
    ofport = random_ofport() if conf.port_security else None
    flows.begin(bridge.mac, ofport)
    try:
        port.begin(ofport)
    except OvsdbError:
        flows.abandon()
        raise
    return ofport


def _connect(ovsdb: str) -> OvsdbClient:
    try:
        return OvsdbClient(ovsdb)
    except OvsdbError as error:
        raise NothingBegunError(str(error)) from None


def _create_veth(host: Netlink, name: str, host_mac: bytes, ifname: str, mac: bytes, netns: int, mtu: int) -> None:
    try:
        host.create_veth(name, host_mac, ifname, mac, netns, mtu)
        host.disable_ipv6(name)
    except NetlinkError as error:
        if error.errno == EEXIST:
            raise CniError(FAILED, f"the pod has an interface {ifname} already, or the host has {name}") from None
        raise CniError(FAILED, str(error)) from None


def _pod_mac(call: Call, conf: NetConf) -> bytes:
    """Return the MAC that the configuration or CNI_ARGS ask for, or a random one. Raises CniError."""
    requested = conf.mac or call.arguments.get("MAC")
    if not requested:
        return _random_mac()
    try:
        mac = bytes.fromhex(requested.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6 or mac[0] & 1 or not any(mac):
        code = INVALID_CONFIG if conf.mac else INVALID_ENVIRONMENT
        raise CniError(code, f"mac: {requested!r} is not a unicast MAC address")
    return mac


def _random_mac() -> bytes:
    mac = bytearray(posix.urandom(6))
    mac[0] = mac[0] & 0xFE | 0x02  # Unicast, locally administered (IEEE 802).
    return bytes(mac)
