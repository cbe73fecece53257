# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to be done on a node before EdgeVPN.io's controller starts, whoever starts it: evio.service runs this.

The controller only ever sets the switch protocol of its bridges: a spanning tree stays beside BoundedFlood and cuts
pods off for good, and BoundedFlood's OpenFlow controller stays beside a spanning tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import paths
from ...ovs.bridge import remove_bridge
from ...ovs.switching import Switching, surplus_switching
from .naming import BOUNDED_FLOOD, SPANNING_TREE, overlay_bridges
from .schema import EdgeVpnConfigError


def remove_bridges_of_other_protocol(config: Mapping[str, Any], *, ovsdb: str = paths.OVSDB) -> list[str]:
    """Remove the tunnels' bridges that have another switch protocol's settings; return ``eviPODOVL: spanning tree``.

    The controller makes them anew. Pods are plugged into other bridges, which stay. To take only the settings away is
    not enough: Open vSwitch 3.1 floods nothing to ports that had a spanning tree when that is disabled. Nor may it be
    done while the controller runs: without either protocol, the tunnels are a loop. Raises EvioError.
    """
    try:
        protocols = overlay_bridges(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise EdgeVpnConfigError(
            f"EdgeVPN.io's configuration is damaged ({error!r}); run the playbook again"
        ) from error
    allowed = {
        bridge: Switching(spanning_tree=protocol == SPANNING_TREE, controller=protocol == BOUNDED_FLOOD)
        for bridge, protocol in protocols.items()
    }
    surplus = surplus_switching(allowed, ovsdb=ovsdb)
    for name in surplus:
        # EdgeVPN.io's bridges do not have our mark.
        remove_bridge(name, ovsdb=ovsdb, only_ours=False)
    return [f"{name}: {' and '.join(what)}" for name, what in surplus.items()]
