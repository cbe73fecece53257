# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Install the flows of one port, which enforce port security on it and steer its packets.

Which flows those are: port_security and pod_steering.
"""

from __future__ import annotations

from ..deadline import seconds_left
from .cookies import closed_port, cookie_of, flows_of_number, flows_of_removed_port
from .openflow import NotServedError, OpenFlow, OpenFlowError, Selection
from .pod_steering import Steering
from .port_security import flows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from ..cni.netconf import NetConf


_START_SECONDS = 5.0
"""For which ``wait_closed`` waits for a bridge that is not served: vswitchd may just be starting."""


class PortFlows:
    """The flows of the port ``name`` of the network's bridge. Its methods follow in the order in which ADD calls them.

    For a network whose ports and bridge need no flows it connects to nothing and installs nothing.
    """

    def __init__(self, conf: NetConf, name: str) -> None:
        self._conf = conf
        self._name = name
        self._steering = Steering(conf)
        self._bridge: OpenFlow | None = None
        self._bridge_mac = ""
        self._ofport: int | None = None
        self._failure: OpenFlowError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception: object, *_details: object) -> None:
        if self._bridge is None:
            return
        if exception is not None:
            # The next ADD deletes the flows of a removed port: they must not come after that, from a connection that
            # vswitchd had not read yet.
            self._bridge.settle()
        self._bridge.close()

    def begin(self, bridge_mac: str, ofport: int | None) -> None:
        """Connect, and send what ``wait_closed`` waits for, and raises the errors of.

        With ``ofport``, the OpenFlow number of a port that is about to be added, that port is closed before it exists:
        all that it sends is dropped until ``install``.
        """
        self._bridge_mac = bridge_mac
        if not self._conf.port_security and not self._steering.links:
            return
        self._ofport = ofport
        try:
            self._connect()
        except OpenFlowError as error:
            self._failure = error

    def abandon(self) -> None:
        """Take back what ``begin`` has sent, for another ``begin``: the number is another port's.

        The flow stays where that port has no flows yet: it has taken the place of that port's own, which goes with
        ``install``.
        """
        bridge, self._bridge, self._failure = self._bridge, None, None
        if bridge is None:
            return
        with bridge:
            try:
                if self._ofport is not None and bridge.count(flows_of_number(self._ofport)):
                    bridge.change([closed_port(self._name, self._ofport)], 0, [])
            except OpenFlowError:
                return  # Without vswitchd there are no flows.

    def wait_closed(self) -> None:
        """Wait until the port is closed, and install the flows that steer on a bridge that has none of them.

        Raises OpenFlowError.
        """
        if isinstance(self._failure, NotServedError):
            self._connect_again()
        elif self._failure is not None:
            raise self._failure
        # The bridge gets all of its flows in one write: if there is one, there are all. repair counts them.
        if self._bridge is None or self._bridge.finish_count() or not self._steering.links:
            return
        # Only the first ADD on a bridge needs it.
        from .bridge_steering import install_steering

        install_steering(self._bridge, self._steering, self._bridge_mac)

    def _connect(self) -> None:
        closed = None if self._ofport is None else closed_port(self._name, self._ofport)
        self._bridge = OpenFlow(self._conf.ovsdb, self._conf.bridge)
        self._bridge.begin_count(Selection(self._steering.cookie(self._bridge_mac)), closed)

    def _connect_again(self) -> None:
        """Connect until vswitchd serves the bridge. Raises OpenFlowError if it does not within _START_SECONDS."""
        # Only while vswitchd starts.
        from time import monotonic, sleep

        end = monotonic() + min(_START_SECONDS, seconds_left(_START_SECONDS))
        while True:
            try:
                return self._connect()
            except NotServedError:
                if monotonic() > end:
                    raise
                sleep(0.02)

    def install(self, ofport: int, mac: str, addresses: list[str], removed_ports: dict[int, str]) -> list[int]:
        """Let the port send only frames from the pod's own MAC and addresses, and delete the flows of removed ports.

        Nothing that the pod sends passes while old flows of the port are replaced. ``ofport`` is the port's OpenFlow
        number. Returns the numbers of the removed ports whose flows are deleted: all, or none without port security.
        Raises OpenFlowError.
        """
        if self._bridge is None or not self._conf.port_security:
            return []
        cookie = cookie_of(self._name)
        deletions = [Selection(cookie), *flows_of_removed_ports(removed_ports)]
        flows = flows_of(ofport, mac, addresses, self._steering)
        self._bridge.replace(deletions, cookie, flows, closed_port(self._name, ofport))
        return list(removed_ports)


def flows_of_removed_ports(removed_ports: dict[int, str]) -> list[Selection]:
    """Select the flows of removed ports, given as names by number."""
    return [flows_of_removed_port(name, number) for number, name in removed_ports.items()]
