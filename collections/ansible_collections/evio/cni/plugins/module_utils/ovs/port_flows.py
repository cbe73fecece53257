# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Install the flows of one port, which enforce port security on it and steer its packets.

Which flows those are: port_security and pod_steering.
"""

from __future__ import annotations

from .cookies import closed_port, cookie_of
from .openflow import OpenFlow, Selection
from .pod_steering import Steering
from .port_security import flows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from ..cni.netconf import NetConf


class PortFlows:
    """A connection to the network's bridge, which ADD opens while it waits for IPAM.

    For a network whose ports and bridge need no flows it connects to nothing and installs nothing.
    """

    def __init__(self, conf: NetConf, bridge_mac: str) -> None:
        """Connect, and install the flows that steer on a bridge that has none of them. Raises OpenFlowError."""
        self._has_port_security = conf.port_security
        self._steering = Steering(conf)
        self._bridge: OpenFlow | None = None
        if conf.port_security or self._steering.links:
            self._bridge = OpenFlow(conf.ovsdb, conf.bridge)
            try:
                self._ensure_steering(bridge_mac)
            except BaseException:
                self._bridge.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._bridge is not None:
            self._bridge.close()

    def install(
        self,
        ofport: int,
        name: str,
        mac: str,
        addresses: list[str],
        removed_ports: dict[int, str],
        *,
        is_in_use: bool = False,
    ) -> list[int]:
        """Let the port send only frames from the pod's own MAC and addresses, and delete the flows of removed ports.

        ``ofport`` is the port's OpenFlow number, ``name`` the name of the host's end. ``is_in_use``: the pod may send
        already, so nothing of it passes while its old flows are replaced. Returns the numbers of the removed ports
        whose flows are deleted: all, or none without port security. Raises OpenFlowError.
        """
        if self._bridge is None or not self._has_port_security:
            return []
        cookie = cookie_of(name)
        deletions = [Selection(cookie), *flows_of_removed_ports(removed_ports)]
        flows = flows_of(ofport, mac, addresses, self._steering)
        if is_in_use:
            self._bridge.replace(deletions, cookie, flows, closed_port(name, ofport))
        else:
            self._bridge.change(deletions, cookie, flows)
        return list(removed_ports)

    def _ensure_steering(self, mac: str) -> None:
        # The bridge gets all of them in one write: if there is one, there are all. repair counts them.
        if (
            self._bridge is None
            or not self._steering.links
            or self._bridge.count(Selection(self._steering.cookie(mac)))
        ):
            return
        # Only the first ADD on a bridge needs it.
        from .bridge_steering import install_steering

        install_steering(self._bridge, self._steering, mac)


def flows_of_removed_ports(removed_ports: dict[int, str]) -> list[Selection]:
    """Select the flows of removed ports by number and cookie: vswitchd may have given the number to another port."""
    return [Selection(cookie_of(name), port=number) for number, name in removed_ports.items()]
