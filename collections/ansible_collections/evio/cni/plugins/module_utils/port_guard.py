# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The flows that guard a pod's port: put in over a connection that an ADD opens while it waits for IPAM.

DEL does not wait for vswitchd, which takes a device off its datapath in a dozen milliseconds: it notes the port on the
bridge (CLOSED_PORT_ID), and the flows, which match nothing any more, go with the next ADD, GC or repair. Which flows:
port_security.
"""

from __future__ import annotations

from .openflow import OpenFlow, Selection
from .port_security import cookie_of, flows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from .netconf import NetConf


class PortGuard:
    """A connection to the network's bridge; none where the network is without port security."""

    def __init__(self, conf: NetConf) -> None:
        """Raises OpenFlowError."""
        self._bridge = OpenFlow(conf.ovsdb, conf.bridge) if conf.port_security else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_what: object) -> None:
        if self._bridge is not None:
            self._bridge.close()

    def confine(self, ofport: int, name: str, mac: str, addresses: list[str], closed: dict[int, str]) -> list[int]:
        """Let the port send only what is the pod's own.

        ``ofport`` is its OpenFlow number, ``name`` that of the host's end; ``closed`` are ports that are gone: their
        numbers are returned if their flows have gone as well. Raises OpenFlowError.
        """
        if self._bridge is None:
            return []
        cookie = cookie_of(name)
        self._bridge.change([Selection(cookie), *behind(closed)], cookie, flows_of(ofport, mac, addresses))
        return list(closed)


def open_to_all(conf: NetConf, name: str) -> None:
    """Let a port send everything again, as in a network without port security. Raises OpenFlowError."""
    with OpenFlow(conf.ovsdb, conf.bridge) as bridge:
        bridge.change([Selection(cookie_of(name))], 0, [])


def behind(closed: dict[int, str]) -> list[Selection]:
    """The flows of closed ports, by whose they were too: a vswitchd that was started anew may have given a number to
    another port by now.
    """
    return [Selection(cookie_of(name), port=number) for number, name in closed.items()]
