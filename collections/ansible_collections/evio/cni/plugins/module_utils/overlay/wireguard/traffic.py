# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Learn from the kernel to which nodes this node and its pods send packets, without a program in their way.

What follows from it is path_selection's subject.
"""

from __future__ import annotations

import contextlib
import selectors

from ...firewall.traffic_rules import TrafficRules
from ...kernel.nflog import PacketLog
from .config import PROBE_PORT, OverlayConfig, PodRoutes

_LOG_GROUP = PROBE_PORT
"""nfnetlink_log's group, any number of 16 bits. Programs that log packets use small numbers."""

_READS = 256
"""Reports that are read before the agent looks at its other work."""


class TrafficWatch:
    """The rules that report packets, and the socket to which they do, registered with a selector."""

    def __init__(self, selector: selectors.BaseSelector, data: object) -> None:
        """Touch nothing yet; ``data`` is what the selector reports when packets were reported."""
        self._selector = selector
        self._data = data
        self._log: PacketLog | None = None
        self._installed: TrafficRules | None = None

    def ensure(self, config: OverlayConfig, routes: PodRoutes) -> bool:
        """Make rules and socket as the node's two files need them; return whether rules were missing.

        At the first time all that is sent is reported anew. Raises NetlinkError and NftError.
        """
        if self._log is None:
            self._log = PacketLog(_LOG_GROUP)
            self._selector.register(self._log, selectors.EVENT_READ, self._data)
        subnets = [cidr for node, cidrs in routes.subnets.items() if node != config.node for cidr in cidrs]
        rules = TrafficRules(config.interface, config.host_cidr, routes.pod_cidrs, subnets, _LOG_GROUP)
        if self._installed is not None and rules.are_in_place():
            return False
        rules.install()
        self._installed = rules
        return True

    def destinations(self) -> set[str]:
        """Return the addresses to which packets were sent, as far as they were reported since the last call."""
        return set(self._log.destinations(_READS)) if self._log is not None else set()

    def close(self) -> None:
        """Close the socket. The rules stay for the next agent."""
        if self._log is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._log)
            self._log.close()
            self._log = None
