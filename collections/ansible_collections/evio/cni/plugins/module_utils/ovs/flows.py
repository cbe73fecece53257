# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The flows that guard a pod's port: put in over a connection that an ADD opens while it waits for IPAM.

DEL does not wait for vswitchd, which takes a device off its datapath in a dozen milliseconds: it notes the port on the
bridge (REMOVED_PORT_ID), and the flows, which match nothing any more, go with the next ADD, GC or repair. Which flows:
port_security.


The flows of a pod bridge as a whole: those of its ports are there, those of dead ports go, and it switches at all.

For CHECK, GC, repair and the operator's commands. How a port's flows come to be there: port_guard.
"""

from __future__ import annotations

from .jsonrpc import OvsdbClient
from .openflow import Flow, OpenFlow, OpenFlowError, Selection, count, ports
from .port_security import OURS, OURS_MASK, cookie_of, flows_of
from .ports import forget_removed_ports, has_controller, ports_of, switch_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from ..cni.netconf import NetConf


class PortSecurity:
    """A connection to the network's bridge; none where the network is without port security."""

    def __init__(self, conf: NetConf) -> None:
        """Raises OpenFlowError."""
        self._bridge = OpenFlow(conf.ovsdb, conf.bridge) if conf.port_security else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_what: object) -> None:
        if self._bridge is not None:
            self._bridge.close()

    def install_port_security(
        self, ofport: int, name: str, mac: str, addresses: list[str], removed_ports: dict[int, str]
    ) -> list[int]:
        """Let the port send only what is the pod's own.

        ``ofport`` is its OpenFlow number, ``name`` that of the host's end; ``removed_ports`` are ports that are gone:
        their numbers are returned if their flows have gone as well. Raises OpenFlowError.
        """
        if self._bridge is None:
            return []
        cookie = cookie_of(name)
        self._bridge.change(
            [Selection(cookie), *flows_of_removed_ports(removed_ports)], cookie, flows_of(ofport, mac, addresses)
        )
        return list(removed_ports)


def clear_port_security(conf: NetConf, name: str) -> None:
    """Let a port send everything again, as in a network without port security. Raises OpenFlowError."""
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        bridge.change([Selection(cookie_of(name))], 0, [])


def flows_of_removed_ports(removed_ports: dict[int, str]) -> list[Selection]:
    """Select the flows of removed ports by number and by owner: a restarted vswitchd may have given a number to another
    port by now.
    """
    return [Selection(cookie_of(name), port=number) for number, name in removed_ports.items()]


_ALL = Selection(0, 0)
_OURS = Selection(OURS, OURS_MASK)


def has_port_security(conf: NetConf, name: str, ofport: int, mac: str, addresses: list[str]) -> bool:
    """Whether the port has as many flows as it shall. Raises OpenFlowError."""
    wanted = flows_of(ofport, mac, addresses) if conf.port_security else []
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        return count(bridge, Selection(cookie_of(name))) == len(wanted)


def lacks_normal_flow(conf: NetConf, ovsdb: OvsdbClient) -> bool:
    """Whether the bridge passes nothing on: the flow that vswitchd gives a bridge was deleted, and no controller of its
    puts in others. Raises OpenFlowError and OvsdbError.
    """
    if has_controller(ovsdb, conf.bridge):
        return False
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        return count(bridge, _ALL) == count(bridge, _OURS)


def ensure_normal_flow(conf: NetConf, ovsdb: OvsdbClient) -> bool:
    """Put the bridge's NORMAL flow back; False if it is there. Raises as ``lacks_normal_flow``."""
    if not lacks_normal_flow(conf, ovsdb):
        return False
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        bridge.change([], 0, [Flow(0, [], may_pass=True)])
    return True


def delete_stale_flows(conf: NetConf) -> None:
    """Take out every flow of ours whose port is gone. Raises OpenFlowError and OvsdbError.

    A bridge that takes no calls has no flows either: it is not there, or its vswitchd is not.
    """
    try:
        bridge = OpenFlow(conf.ovsdb, conf.bridge)
    except OpenFlowError:
        return
    with bridge:
        matched = ports(bridge, _OURS)
        # After the flows: a port is there before its flows are.
        with OvsdbClient(conf.ovsdb) as ovsdb:
            there = {port.ofport: port.name for port in ports_of(ovsdb, conf.bridge) if port.bridged}
            removed_ports = switch_of(ovsdb, conf.bridge).removed_ports
            dead = [Selection(OURS, OURS_MASK, number) for number in sorted(matched - there.keys())]
            # One that was plugged in again may have its old number.
            gone = {number: name for number, name in removed_ports.items() if there.get(number) != name}
            bridge.change([*dead, *flows_of_removed_ports(gone)], OURS, [])
            if removed_ports:
                forget_removed_ports(ovsdb, conf.bridge, removed_ports)
