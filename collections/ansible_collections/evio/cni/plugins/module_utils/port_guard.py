# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The flows of a pod bridge: those of port_security that guard a pod's port, put in, looked for and swept up, and the
one behind them by which the bridge switches.

DEL does not wait for vswitchd, which takes a device off its datapath in a dozen milliseconds: it notes the port on the
bridge (CLOSED_PORT_ID), and the flows, which match nothing any more, go with the next ADD, GC or repair.
"""

from __future__ import annotations

from .openflow import Flow, OpenFlow, OpenFlowError, Selection
from .port_security import OURS, OURS_MASK, cookie_of, flows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netconf import NetConf
    from .ovsdb_rpc import Ovsdb

_ALL = Selection(0, 0)
_OURS = Selection(OURS, OURS_MASK)


def guard(
    conf: NetConf, name: str, ofport: int, mac: str, addresses: list[str], closed: dict[int, str] | None = None
) -> None:
    """Let the port send only what is the pod's own; everything, where the network is without port security.

    ``name`` is that of the host's end, ``ofport`` its OpenFlow number; ``closed`` are ports that are gone, whose flows
    go as well. Raises OpenFlowError.
    """
    cookie = cookie_of(name)
    flows = flows_of(ofport, mac, addresses) if conf.port_security else []
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        bridge.change([Selection(cookie), *_behind(closed or {})], cookie, flows)


def is_guarded(conf: NetConf, name: str, ofport: int, mac: str, addresses: list[str]) -> bool:
    """Whether the port has as many flows as it shall. Raises OpenFlowError."""
    wanted = flows_of(ofport, mac, addresses) if conf.port_security else []
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        return bridge.count(Selection(cookie_of(name))) == len(wanted)


def is_silenced(conf: NetConf, ovsdb: Ovsdb) -> bool:
    """Whether the bridge passes nothing on: the flow that vswitchd gives a bridge was deleted, and no controller of its
    puts in others. Raises OpenFlowError and SwitchError.
    """
    if ovsdb.has_controller(conf.bridge):
        return False
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        return bridge.count(_ALL) == bridge.count(_OURS)


def give_voice(conf: NetConf, ovsdb: Ovsdb) -> bool:
    """Let such a bridge switch frames again as one that was just made; False if it does. Raises as ``is_silenced``."""
    if not is_silenced(conf, ovsdb):
        return False
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        bridge.change([], 0, [Flow(0, [], may_pass=True)])
    return True


def sweep(conf: NetConf) -> None:
    """Take out every flow of ours whose port is gone. Raises OpenFlowError and SwitchError.

    A bridge that takes no calls has no flows either: it is not there, or its vswitchd is not.
    """
    from .ovsdb_rpc import Ovsdb

    try:
        bridge = OpenFlow(conf.ovsdb, conf.bridge)
    except OpenFlowError:
        return
    with bridge:
        matched = bridge.ports(_OURS)
        # After the flows: a port is there before its flows are.
        with Ovsdb(conf.ovsdb) as ovsdb:
            there = {port.ofport: port.name for port in ovsdb.ports(conf.bridge) if port.bridged}
            closed = ovsdb.switch(conf.bridge).closed
            dead = [Selection(OURS, OURS_MASK, number) for number in sorted(matched - there.keys())]
            # One that was plugged in again may have its old number.
            gone = {number: name for number, name in closed.items() if there.get(number) != name}
            bridge.change([*dead, *_behind(gone)], OURS, [])
            if closed:
                ovsdb.forget_closed(conf.bridge, closed)


def _behind(closed: dict[int, str]) -> list[Selection]:
    """By whose they were too: a vswitchd that was started anew may have given a number to another port by now."""
    return [Selection(cookie_of(name), port=number) for number, name in closed.items()]
