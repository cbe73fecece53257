# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the node's firewalls let pods of a network reach each other and other nodes, where no agent looks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from ..cidr import ip_version
from ..cni.netconf import NetConf
from .forwarding import blocked, forwarding_needs
from .verdict import Packet


def cut_off_by(conf: NetConf) -> str | None:
    """Return which firewall drops what pods send to each other, or to other nodes, whose networks are clusterCIDRs."""
    packets = [
        Packet(gateway.partition("/")[0], str(ip_network(cidr, strict=False)[-1]), conf.bridge)
        for gateway in conf.gateways
        for cidr in conf.cluster_cidrs
        if ip_version(gateway) == ip_version(cidr)
    ]
    addresses = [ip_address(gateway.partition("/")[0]) for gateway in conf.gateways]
    packets += [Packet(str(address), str(address + 1), conf.bridge, conf.bridge) for address in addresses]
    for chain in blocked(forwarding_needs(conf.bridge, packets)):
        return f"a firewall of this node cuts pods off: {chain}"
    return None
