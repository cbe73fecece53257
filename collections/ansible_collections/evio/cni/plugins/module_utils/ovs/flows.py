# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The flows of a pod bridge: those of pods' ports, those that steer packets, and its NORMAL flow, which switches.

The fail mode of our bridges is ``secure``: a vswitchd that has just started lets nothing pass. ``guard_ports`` ends
that: it installs the flows that steer, those of the pods' ports, and then the NORMAL flow. The flows that an ADD
installs: port_flows. DEL deletes no flows, because vswitchd takes a dozen milliseconds to release a port: it notes the
port on the bridge, and the next ADD, GC or repair deletes its flows.
"""

from __future__ import annotations

from ..cidr import family
from ..state.lock import LONGEST_CALL_SECONDS
from .bridge_steering import install_steering, lacks_steering
from .cookies import BRIDGE_FLOWS, CLOSED_BIT, OURS, OURS_MASK, closed_port, cookie_of, flows_of_number
from .jsonrpc import OvsdbClient
from .openflow import NORMAL, Flow, OpenFlow, OpenFlowError, Selection
from .pod_steering import Steering
from .port_flows import flows_of_removed_ports
from .port_security import flows_of
from .port_state import forget_removed_ports, has_controller, ports_of
from .ports import switch_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cni.netconf import NetConf
    from .port_state import Port

_ANY_MAC = "02:00:00:00:00:00"

_ALL_FLOWS = Selection(0, 0)

_OUR_FLOWS = Selection(OURS, OURS_MASK)


def clear_port_security(conf: NetConf, name: str) -> None:
    """Delete the port's flows, so that it may send everything. Raises OpenFlowError."""
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        bridge.change([Selection(cookie_of(name))], 0, [])


def has_port_security(conf: NetConf, name: str, ofport: int, mac: str, addresses: list[str]) -> bool:
    """Return whether the port has as many flows as it needs: none without port security. Raises OpenFlowError.

    Flows of a number that the port had before do not count for it.
    """
    wanted = flows_of(ofport, mac, addresses, Steering(conf)) if conf.port_security else []
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        return bridge.count(Selection(cookie_of(name), port=ofport if wanted else None)) == len(wanted)


def ports_without_security(conf: NetConf, ports: dict[str, tuple[int, tuple[str, ...]]]) -> list[str]:
    """Return the names of those ports that do not have as many flows as they need, as ``has_port_security`` says it.

    ``ports`` are OpenFlow number and addresses of the pod, by the port's name. The bridge is asked once for all of
    them. Raises OpenFlowError.
    """
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        flows = bridge.flows_of_ports(_OUR_FLOWS)
    of_port: dict[tuple[int, int], int] = {}
    of_name: dict[int, int] = {}
    for flow in flows:
        of_port[flow.cookie, flow.port] = of_port.get((flow.cookie, flow.port), 0) + 1
        of_name[flow.cookie] = of_name.get(flow.cookie, 0) + 1
    if not conf.port_security:
        return [name for name in ports if of_name.get(cookie_of(name))]
    # Every MAC, number and address of a family has as many flows.
    steering, wanted = Steering(conf), {}
    found = []
    for name, (number, addresses) in ports.items():
        families = tuple(sorted(map(family, addresses)))
        if families not in wanted:
            wanted[families] = len(flows_of(number, _ANY_MAC, list(addresses), steering))
        if of_port.get((cookie_of(name), number), 0) != wanted[families]:
            found.append(name)
    return found


def lacks_bridge_flows(conf: NetConf, ovsdb: OvsdbClient, mac: str) -> bool:
    """Return whether the bridge with this MAC lacks a flow that steers packets of pods, and has no controller.

    A controller manages all flows. Raises OpenFlowError and OvsdbError.
    """
    if has_controller(ovsdb, conf.bridge):
        return False
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        return lacks_steering(bridge, Steering(conf), mac)


def clear_steering(ovsdb: str, bridge: str) -> None:
    """Delete the bridge's flows that steer packets of pods, for a bridge that is no pod bridge any more.

    Where no vswitchd serves the bridge, there are no flows.
    """
    try:
        with OpenFlow(ovsdb, bridge) as connection:
            connection.change([BRIDGE_FLOWS], 0, [])
    except OpenFlowError:
        return


def lacks_normal_flow(conf: NetConf, ovsdb: OvsdbClient) -> bool:
    """Return whether the bridge forwards nothing: it has no controller, and no flows but those of port security.

    That is so once vswitchd has been started again, or somebody has deleted the NORMAL flow. Raises OpenFlowError and
    OvsdbError.
    """
    if has_controller(ovsdb, conf.bridge):
        return False
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        return bridge.count(_ALL_FLOWS) == bridge.count(_OUR_FLOWS)


def add_normal_flow(ovsdb: str, bridge: str) -> None:
    """Add the NORMAL flow of a bridge that has just been created. Raises OpenFlowError."""
    with OpenFlow(ovsdb, bridge) as connection:
        connection.change([], 0, [Flow(0, [], NORMAL)])


def has_no_flows(ovsdb: str, bridge: str) -> bool:
    """Return whether a bridge has no flow at all; False where no vswitchd serves it."""
    try:
        with OpenFlow(ovsdb, bridge) as connection:
            return connection.count(_ALL_FLOWS) == 0
    except OpenFlowError:
        return False


def read_flows(ovsdb: str, bridge: str) -> list[bytes]:
    """Return all flows of a bridge for ``restore_flows``; none where no vswitchd serves it."""
    try:
        with OpenFlow(ovsdb, bridge) as connection:
            return connection.read()
    except OpenFlowError:
        return []


def restore_flows(ovsdb: str, bridge: str, flows: list[bytes]) -> None:
    """Add flows that ``read_flows`` has returned. Raises OpenFlowError."""
    with OpenFlow(ovsdb, bridge) as connection:
        connection.restore(flows)


class Guarded:
    """What ``guard_ports`` has installed."""

    __slots__ = ("has_added_normal_flow", "has_added_steering", "ports")

    def __init__(self) -> None:
        self.ports: list[Port] = []
        """The ports that got flows."""
        self.has_added_steering = False
        """Whether the bridge lacked flows that steer."""
        self.has_added_normal_flow = False


def guard_ports(
    conf: NetConf, ovsdb: OvsdbClient, bridge_mac: Callable[[], str], wanted: Callable[[Port, int], list[Flow]]
) -> Guarded:
    """Install the missing flows of the bridge and of our ports, of all networks, and then the NORMAL flow.

    ``bridge_mac`` returns the MAC of the bridge, and is called only if there is a bridge. ``wanted`` returns the flows
    of a port, and is told how many the port has; it returns none where the port has no port security. Does nothing
    where the bridge does not exist. Raises OpenFlowError and OvsdbError.
    """
    guarded = Guarded()
    switch = switch_of(ovsdb, conf.bridge)
    if switch.external_ids is None:
        return guarded
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        steering, mac = Steering(conf), bridge_mac()
        guarded.has_added_steering = lacks_steering(bridge, steering, mac)
        if guarded.has_added_steering:
            install_steering(bridge, steering, mac)
        present = [(flow.cookie, flow.port) for flow in bridge.flows_of_ports(_OUR_FLOWS)]
        for port in ports_of(ovsdb, conf.bridge):
            cookie = cookie_of(port.name)
            number = present.count((cookie, port.number))
            # A port that vswitchd has not opened yet, and has to give the requested number, gets its flows beforehand.
            if not port.bridged or not port.number:
                continue
            flows = wanted(port, number)
            # A port of an earlier version has flows, but not those that steer.
            if len(flows) > number:
                bridge.replace([Selection(cookie)], cookie, flows, closed_port(port.name, port.number))
                guarded.ports.append(port)
        # What somebody else's bridge forwards is for its owner to say.
        guarded.has_added_normal_flow = not switch.is_borrowed and lacks_normal_flow(conf, ovsdb)
        if guarded.has_added_normal_flow:
            bridge.change([], 0, [Flow(0, [], NORMAL)])
    return guarded


def is_closed(conf: NetConf, name: str) -> bool:
    """Return whether the port has one flow alone, which drops all that it sends. Raises OpenFlowError."""
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        return bridge.count(Selection(cookie_of(name))) == 1


def delete_stale_flows(conf: NetConf) -> None:
    """Delete all our flows whose port is gone. Raises OpenFlowError and OvsdbError.

    Where the bridge cannot be reached, it is missing or vswitchd does not run: then there are no flows.
    """
    try:
        bridge = OpenFlow(conf.ovsdb, conf.bridge)
    except OpenFlowError:
        return
    with bridge:
        present = bridge.flows_of_ports(_OUR_FLOWS)
        # Ports are read after the flows: ADD creates a port before its flows, so no new port is taken for a stale one.
        # Only the flow that closes the port comes before the port: an ADD may be at work until it is old.
        with OvsdbClient(conf.ovsdb) as ovsdb:
            live = {port.number: port.name for port in ports_of(ovsdb, conf.bridge) if port.bridged}
            removed_ports = switch_of(ovsdb, conf.bridge).removed_ports
            matched = {flow.port for flow in present if not flow.cookie & CLOSED_BIT}
            stale = [flows_of_number(number) for number in sorted(matched - live.keys())]
            closings = (flow for flow in present if flow.cookie & CLOSED_BIT)
            stale += [Selection(one.cookie, port=one.port) for one in closings if one.age > LONGEST_CALL_SECONDS]
            # A port that was added again may have its old number: its flows stay.
            gone = {number: name for number, name in removed_ports.items() if live.get(number) != name}
            bridge.change([*stale, *flows_of_removed_ports(gone)], OURS, [])
            if removed_ports:
                forget_removed_ports(ovsdb, conf.bridge, removed_ports)
