# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the node's firewalls have to know of the overlay: its rules in our own nftables table."""

from __future__ import annotations

from ...firewall.network_rules import NetworkRules
from ...firewall.overlay_rules import OverlayNetworks, overlay_rules
from .config import PROBE_PORT, OverlayConfig, PodRoutes, former_probe_address, probe_address


def overlay_rules_of(config: OverlayConfig, routes: PodRoutes) -> NetworkRules:
    """Return the nftables rules of the overlay's interface, as the node's two files describe the overlay."""
    return overlay_rules(
        OverlayNetworks(
            interface=config.interface,
            networks=(config.host_cidr, *routes.pod_cidrs),
            own_subnets=tuple(routes.subnets.get(config.node, ())),
            probe_addresses=(probe_address(config.address), former_probe_address(config.address)),
            probe_port=PROBE_PORT,
        )
    )
