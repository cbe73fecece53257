# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compare an attachment with what it should be, link by link, in the order in which a frame of the pod passes them.

CHECK raises the first fault, ``evio explain`` prints every finding, ``evio repair`` mends the faults that have a mend.
Nothing is changed here. What an attachment should be: expected.
"""

from __future__ import annotations

import posix

from .. import paths
from ..cidr import AF_INET, AF_INET6, family, is_in, packed, split_cidr
from ..cni.netconf import HOST_LOCAL, NetConf
from ..errors import EvioError
from ..firewall.network_rules import FAMILY, HOST_ENDS, TABLE, rules_of
from ..ipam.host_local import Reservations
from ..kernel.ethtool import has_tx_checksum
from ..kernel.netlink import NetlinkError
from ..kernel.netns import open_netns
from ..kernel.pod_netlink import PodNetlink
from ..kernel.rtnetlink import Netlink, has_ipv6
from ..overlay.state import overlay_fault, read_state
from ..ovs.external_ids import MAC_ID
from ..ovs.flows import has_port_security, lacks_bridge_flows, lacks_normal_flow
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.openflow import OpenFlowError
from ..ovs.port_state import port_of, resolve_datapath
from ..ovs.ports import has_daemon, segment_of, switch_of
from ..state.fence import read_fence
from .repair_bridge import bridge_of
from .setup_bridge import is_as_wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..cni.interfaces import Interface
    from ..firewall.network_rules import NetworkRules
    from ..kernel.links import Link
    from ..ovs.port_state import Port
    from .expected import Expected, ExpectedRoute

LEAVE_ALONE, SET_UP, PLUG_IN, INSTALL_PORT_SECURITY = "leave alone", "set up", "plug in", "install port security"
"""Mends: what ``evio repair`` does about a fault of one pod; LEAVE_ALONE forbids to mend the pod's other faults.

The bridge and the node's rules need none: repair makes them as configured, once for all pods.
"""

_REPAIR = "evio repair"
_RECREATE = "recreate the pod"
_START_SWITCH = "start Open vSwitch, then evio repair"
_ASK_OWNER = "ask the owner of the bridge, which is not evio.cni's, for its flows"
_SHOW_AGENTS = {
    paths.OVERLAY_CONFIG: "systemctl status evio-overlay",
    paths.EDGEVPN_MEMBERS: "systemctl status evio evio-edgevpn-agent",
}
"""How to look at the overlay's agent, by the file that it reads."""
_ANY_MAC = "02:00:00:00:00:00"


class Finding:
    """One statement about one link of the chain: that the link holds, or one fault of it."""

    __slots__ = ("is_known", "link", "mend", "remedy", "what")

    def __init__(self, link: str, what: str, remedy: str = "", *, mend: str = "", is_known: bool = True) -> None:
        self.link = link
        """The link's name."""
        self.what = what
        """One sentence for people."""
        self.remedy = remedy
        """The command or the step that mends the fault; empty where the link holds."""
        self.mend = mend
        """What ``evio repair`` does about it; empty where it does nothing for this pod alone."""
        self.is_known = is_known
        """False where nothing could be found out, as while Open vSwitch does not answer."""

    @property
    def holds(self) -> bool:
        """Whether the link is as it should be."""
        return not self.remedy


def findings(conf: NetConf, expected: Expected, *, thorough: bool = False) -> Iterator[Finding]:
    """Yield the findings of all links: for each its faults, or one finding that it holds.

    ``thorough`` is for people: it adds links beside the attachment itself (journal, claim, tunnel) and compares every
    property of the bridge, for which the libraries ``ovs`` and ``pyroute2`` are imported. Raises NetlinkError.
    """
    if not conf.datapath_type:
        _read_datapath(conf)
    if thorough:
        yield from entry_findings(conf, expected)
    yield from reservation_findings(conf, expected)
    with Netlink() as host:
        host_end, bridge = host.link(expected.interfaces.host.name), host.link(conf.bridge)
        yield from _pod_findings(conf, expected, host_end)
        yield from host_end_findings(expected, host_end, bridge if thorough else None)
        yield from _port_findings(conf, expected, thorough)
        yield from bridge_findings(conf, host, bridge, expected.interfaces.bridge.mac, thorough=thorough)
    yield from rules_findings(rules_of(conf, expected.addresses))
    if thorough:
        yield from _tunnel_findings()


def _read_datapath(conf: NetConf) -> None:
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            resolve_datapath(conf, ovsdb)
    except OvsdbError:
        return  # The finding of the port says that the OVSDB does not answer.


def entry_findings(conf: NetConf, expected: Expected) -> list[Finding]:
    """Return the findings of the journal entry, and of the node's claim on its pod subnet."""
    faults = []
    if not expected.is_complete:
        faults.append(
            Finding(
                "attachment",
                "the journal entry is damaged: the pod's MAC or addresses are missing",
                _RECREATE,
                mend=LEAVE_ALONE,
            )
        )
    lost = read_fence(conf.state_dir)
    if lost is not None:
        what = f"this node's claim on its pod subnet is lost: {lost}"
        faults.append(Finding("attachment", what, "run bootstrap.yml, which says what to do"))
    what = f"{expected.attachment} of network {conf.name}, {', '.join(expected.addresses)}"
    return faults or [Finding("attachment", what)]


def reservation_findings(conf: NetConf, expected: Expected) -> list[Finding]:
    """Return the findings of host-local's reservations, address by address: its CHECK is content with one of them."""
    if conf.ipam_type != HOST_LOCAL or not expected.addresses:
        return []
    reservations, attachment, faults = Reservations(conf), expected.attachment, []
    for address in (cidr.partition("/")[0] for cidr in expected.addresses):
        holder = reservations.holder(address)
        if holder is None:
            what = f"host-local: {address} is reserved for nobody, so another pod may get it"
            faults.append(Finding("reservation", what, _REPAIR))
        elif holder.container_id != attachment.container_id or holder.ifname not in ("", attachment.ifname):
            what = f"host-local: {address} is reserved for {str(holder).rstrip()}"
            faults.append(Finding("reservation", what, _RECREATE, mend=LEAVE_ALONE))
    return faults or [Finding("reservation", "host-local has the pod's addresses reserved for it")]


def host_end_findings(expected: Expected, link: Link | None, bridge: Link | None = None) -> list[Finding]:
    """Return the findings of the veth's end on the host; its MTU is compared with that of ``bridge``, where given."""
    name = expected.interfaces.host.name
    if link is None:
        return [Finding("host's end", f"the host end {name} of the pod's interface is gone", _RECREATE)]
    faults = []
    if not link.is_up:
        what = f"the host end {name} of the pod's interface is down"
        faults.append(Finding("host's end", what, _REPAIR, mend=SET_UP))
    faults += _interface_faults("host's end", "the host end", link, expected.interfaces.host, _RECREATE)
    if bridge is not None and link.mtu > bridge.mtu:
        what = f"the host end {name} has an MTU of {link.mtu} bytes, more than the bridge's {bridge.mtu}"
        faults.append(Finding("host's end", what, _RECREATE))
    news = f", new pods get up to {bridge.mtu}" if bridge is not None and link.mtu < bridge.mtu else ""
    return faults or [Finding("host's end", f"{name} is up, MTU {link.mtu}{news}")]


def port_findings(conf: NetConf, expected: Expected, port: Port | None) -> list[Finding]:
    """Return the findings of the Open vSwitch port and its port-security flows."""
    name = expected.interfaces.host.name
    if port is None or not port.bridged:
        return [Finding("port", f"{name} is not a port of the bridge {conf.bridge}", _REPAIR, mend=PLUG_IN)]
    if port.ofport <= 0 or port.error:
        what = f"Open vSwitch cannot use the port {name}: {port.error or 'it has no OpenFlow number'}"
        return [Finding("port", what, _REPAIR, mend=PLUG_IN)]
    if difference := port.segment.difference(segment_of(conf)):
        return [Finding("port", f"{name} {difference}", _REPAIR, mend=PLUG_IN)]
    allowed = port.external_ids.get(MAC_ID, "")
    if conf.port_security and expected.interfaces.pod.mac and allowed not in ("", expected.interfaces.pod.mac):
        what = (
            f"port security lets the port {name} send from the MAC {allowed} alone, and a plugin after evio has given "
            f"the pod's {expected.interfaces.pod.name} the MAC {expected.interfaces.pod.mac}"
        )
        return [Finding("port", what, _REPAIR, mend=INSTALL_PORT_SECURITY)]
    # The flows are counted, and every MAC has the same number of flows.
    mac = expected.interfaces.pod.mac or _ANY_MAC
    try:
        is_secure = has_port_security(conf, name, port.ofport, mac, expected.addresses)
    except OpenFlowError as error:
        return [Finding("port", str(error), _START_SWITCH, is_known=False)]
    if not is_secure and conf.port_security:
        what = f"port-security flows of the port {name} are missing"
        return [Finding("port", what, _REPAIR, mend=INSTALL_PORT_SECURITY)]
    if not is_secure:
        what = f"the port {name} still has port-security flows, and portSecurity is false"
        return [Finding("port", what, _REPAIR, mend=INSTALL_PORT_SECURITY)]
    state = "on" if conf.port_security else "off"
    return [Finding("port", f"OpenFlow port {port.ofport} of {conf.bridge}, port security {state}")]


def bridge_findings(
    conf: NetConf, host: Netlink, device: Link | None, mac: str = "", *, thorough: bool = False
) -> list[Finding]:
    """Return the findings of the bridge, whose network device is ``device``.

    ``mac`` is the MAC that ADD found, empty where that is not known. ``thorough`` is as for ``findings``.
    """
    if device is None:
        return [Finding("bridge", f"the bridge {conf.bridge} does not exist", _REPAIR)]
    gateways = ", ".join(conf.gateways) or "no gateway"
    settings = f"{gateways}, MTU {conf.mtu or 'not fixed'}"
    faults = []
    try:
        if thorough:
            faults += [Finding("bridge", what, _REPAIR) for what in _bridge_differences(conf)]
        elif not is_as_wanted(conf, host, device):
            what = f"the bridge {conf.bridge} is not as configured (up, {settings})"
            faults.append(Finding("bridge", what, _REPAIR))
        elif conf.gateways and mac not in ("", device.mac):
            what = f"the bridge {conf.bridge} has the MAC {device.mac}, ADD found {mac}"
            faults.append(Finding("bridge", what, _RECREATE))
        with OvsdbClient(conf.ovsdb) as ovsdb:
            if lacks_normal_flow(conf, ovsdb):
                what = f"the bridge {conf.bridge} has lost its NORMAL flow and forwards nothing"
                remedy = _ASK_OWNER if switch_of(ovsdb, conf.bridge).is_borrowed else _REPAIR
                faults.append(Finding("bridge", what, remedy))
            elif lacks_bridge_flows(conf, ovsdb, device.mac):
                what = (
                    f"the bridge {conf.bridge} has lost the flows that send packets between pods by the node's kernel: "
                    "Services with a backend on this node do not answer its pods"
                )
                faults.append(Finding("bridge", what, _REPAIR))
    except (OvsdbError, OpenFlowError) as error:
        faults.append(Finding("bridge", str(error), _START_SWITCH, is_known=False))
    # A bridge of somebody else may be down.
    return faults or [Finding("bridge", f"{conf.bridge} is {'up' if device.is_up else 'down'}, {settings}")]


def rules_findings(rules: NetworkRules) -> list[Finding]:
    """Return the finding of each nftables chain that the network has. Raises NetlinkError."""
    missing = rules.missing()
    found = []
    for chain in rules.chains:
        link, what = "host ends" if chain == HOST_ENDS else "masquerade", f"chain {chain} of table {FAMILY} {TABLE}"
        if chain in missing:
            found.append(Finding(link, f"nftables: {what} is missing or incomplete", _REPAIR))
        else:
            found.append(Finding(link, f"nftables: {what}"))
    return found


def _pod_findings(conf: NetConf, expected: Expected, host_end: Link | None) -> list[Finding]:
    pod = expected.interfaces.pod
    try:
        netns = open_netns(pod.sandbox)
    except EvioError as error:
        return [Finding("pod", f"the pod's network namespace {error}", "evio gc, unless the runtime removes the pod")]
    try:
        with PodNetlink(netns) as netlink:
            link = netlink.link(pod.name)
            if link is None:
                return [Finding("pod", f"{pod.name} is not in the pod any more", _RECREATE)]
            faults = [
                *_pod_link_faults(expected, link, host_end),
                *_pod_address_faults(expected, netlink, link),
                *_checksum_faults(conf, expected, netlink),
            ]
            return faults or [Finding("pod", f"{link.name} is up, MAC {link.mac}, MTU {link.mtu}")]
    except (NetlinkError, OSError) as error:
        return [Finding("pod", f"cannot look into the pod: {error}", "run evio explain again", is_known=False)]
    finally:
        posix.close(netns)


def _pod_link_faults(expected: Expected, link: Link, host_end: Link | None) -> Iterator[Finding]:
    pod = expected.interfaces.pod
    if not link.is_up:
        yield Finding("pod", f"{pod.name} of the pod is down", _RECREATE)
    yield from _interface_faults("pod", "the pod's", link, pod, _RECREATE)
    if not pod.mtu and host_end is not None and link.mtu != host_end.mtu:
        what = f"the pod's {pod.name} has an MTU of {link.mtu} bytes, its host end has {host_end.mtu}"
        yield Finding("pod", what, _RECREATE)


def _pod_address_faults(expected: Expected, netlink: PodNetlink, link: Link) -> Iterator[Finding]:
    addresses = netlink.addresses(link.index)
    for address in expected.addresses:
        if split_cidr(address) not in addresses:
            yield Finding("pod", f"the pod's {link.name} has lost its address {address}", _RECREATE)
    ours = [split_cidr(address) for address in expected.addresses]
    families = (AF_INET, AF_INET6) if has_ipv6() else (AF_INET,)
    routes = {number: netlink.routes(number) for number in families}
    for route in expected.routes:
        if not _has_route(routes.get(family(route.destination), set()), route, link.index, ours):
            gateway = f" via {route.gateway}" if route.gateway else ""
            yield Finding("pod", f"the pod has lost its route to {route.destination}{gateway}", _RECREATE)


def _has_route(
    routes: set[tuple[bytes, int, bytes, int]], route: ExpectedRoute, index: int, ours: list[tuple[bytes, int]]
) -> bool:
    """Whether the pod has the route: by our interface, or by any where its gateway is in none of our subnets."""
    network, length = split_cidr(route.destination)
    destination = (network if length else b"", length)
    if route.gateway is None:
        return any(found[:2] == destination and found[3] == index for found in routes)
    gateway = packed(route.gateway) if route.gateway else b""
    is_ours = any(is_in(gateway, *address) for address in ours)
    return any(found[:3] == (*destination, gateway) and (found[3] == index or not is_ours) for found in routes)


def _checksum_faults(conf: NetConf, expected: Expected, netlink: PodNetlink) -> Iterator[Finding]:
    """vswitchd's own datapath passes frames on as they are, unless its userspace TSO is on."""
    pod = expected.interfaces.pod
    if conf.datapath_type != "netdev" or not has_tx_checksum(netlink, pod.name):
        return
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            if not switch_of(ovsdb, conf.bridge).needs_checksums:
                return
    except OvsdbError:
        return  # The finding of the port says that the OVSDB does not answer.
    what = f"the pod's {pod.name} leaves its checksums to a datapath that does not fill them in (tx offload is on)"
    yield Finding("pod", what, f"nsenter --net={pod.sandbox} ethtool -K {pod.name} tx off")


def _interface_faults(link: str, what: str, found: Link, wanted: Interface, remedy: str) -> Iterator[Finding]:
    if wanted.mac and found.mac != wanted.mac:
        yield Finding(link, f"{what} {found.name} has the MAC {found.mac}, ADD gave it {wanted.mac}", remedy)
    if wanted.mtu and found.mtu != wanted.mtu:
        yield Finding(link, f"{what} {found.name} has an MTU of {found.mtu} bytes, ADD gave it {wanted.mtu}", remedy)


def _port_findings(conf: NetConf, expected: Expected, thorough: bool) -> list[Finding]:
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            if thorough and not has_daemon(ovsdb):
                return [Finding("port", "no ovs-vswitchd serves the OVSDB", _START_SWITCH, is_known=False)]
            port = port_of(ovsdb, conf.bridge, expected.interfaces.host.name)
    except OvsdbError as error:
        return [Finding("port", str(error), _START_SWITCH, is_known=False)]
    return port_findings(conf, expected, port)


def _bridge_differences(conf: NetConf) -> list[str]:
    """Return one sentence for each property that is not as configured. Raises OvsdbError."""
    # Not for CHECK: importing these libraries takes ten times as long as a whole call.
    from ..ovs.bridge import compare_bridge

    try:
        differences = compare_bridge(bridge_of(conf), ovsdb=conf.ovsdb)
    except OvsdbError:
        raise
    except EvioError as error:
        return [str(error)]
    return [f"{conf.bridge}: {one.name} is {one.found!r}, should be {one.wanted!r}" for one in differences]


def _tunnel_findings() -> list[Finding]:
    """Return the finding of the tunnels to other nodes, if this node has our agent."""
    state = read_state(paths.OVERLAY_STATE)
    shows = [show for config, show in _SHOW_AGENTS.items() if posix.access(config, posix.F_OK)]
    if state is None:
        return [Finding("tunnel", "the overlay's agent has not come up since the boot", show) for show in shows[:1]]
    fault = overlay_fault(paths.OVERLAY_STATE)
    if fault is not None:
        return [Finding("tunnel", fault, (shows or [*_SHOW_AGENTS.values()])[0])]
    if state.summary:
        # EdgeVPN.io's bridges reach a node through others as well: a node without a tunnel of its own is no finding.
        return [Finding("tunnel", state.summary)]
    lost = [peer.name for peer in state.peers if not peer.path]
    what = f"{state.interface} reaches {len(state.peers) - len(lost)} of {len(state.peers)} nodes"
    return [Finding("tunnel", what + (f", not {', '.join(lost)}" if lost else ""))]
