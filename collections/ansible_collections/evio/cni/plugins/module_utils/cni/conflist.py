# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shape of a node's CNI configuration: from its pod network to the conflist that the runtime reads.

Pure. How the file gets into place is conf_dir's subject, what the plugin makes of it netconf's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import paths
from ..subnets import NodeSubnet

CNI_VERSION = "1.0.0"
"""What a runtime older than CNI 1.1.0 reads; a newer one takes the highest of CNI_VERSIONS that it knows."""
CNI_VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
PLUGIN = "evio"
"""The plugin's type, which is its file name in the runtime's bin_dir."""
_CHAINED: dict[str, dict[str, Any]] = {
    "portmap": {"capabilities": {"portMappings": True}, "snat": True},
    "bandwidth": {"capabilities": {"bandwidth": True}},
}
CHAINED_PLUGINS = tuple(_CHAINED)
"""Plugins that are run after ours where their binaries are there, in this order."""


@dataclass(frozen=True)
class PodNetwork:
    """What one node's pods get: everything that goes into its conflist."""

    bridge: str
    subnets: tuple[NodeSubnet, ...]
    """The node's subnets, at most one a family."""
    cluster_cidrs: tuple[str, ...]
    """Networks that are never masqueraded: both overlays."""
    mtu: int
    """Bytes of an IP packet, the same on pods, bridge and tunnel."""
    datapath_type: str = "system"
    epoch: int = 0
    """etcd's revision of the node's claim; 0 where there is no registry."""
    name: str = "evio"
    ip_masq: bool = True
    port_security: bool = True
    ovsdb: str = paths.OVSDB
    state_dir: str = paths.STATE_DIR
    segments: tuple[str, ...] = ()
    """Pod networks in which all nodes' bridges are one layer-2 segment, as with EdgeVPN.io; at most one a family."""
    flat: bool = False
    """On such a segment: pods have the whole network on their link, and not their node's subnet."""
    chained: tuple[str, ...] = ()
    """Those of CHAINED_PLUGINS that are installed on the node."""


def build_conflist(network: PodNetwork) -> dict[str, Any]:
    """The conflist of CNI 1.1.0 section 1 for this network, ready for ``json.dumps``."""
    return {
        "cniVersion": CNI_VERSION,
        "cniVersions": list(CNI_VERSIONS),
        "name": network.name,
        "plugins": [_evio(network), *({"type": name, **_CHAINED[name]} for name in network.chained)],
    }


def _evio(network: PodNetwork) -> dict[str, Any]:
    return {
        "type": PLUGIN,
        "bridge": network.bridge,
        "isGateway": True,
        "isDefaultGateway": True,
        "ipMasq": network.ip_masq,
        "mtu": network.mtu,
        "gateway": _one_or_list([_gateway(network, subnet) for subnet in network.subnets]),
        "clusterCIDRs": list(network.cluster_cidrs),
        "datapathType": network.datapath_type,
        "ovsdb": network.ovsdb,
        "stateDir": network.state_dir,
        "epoch": network.epoch,
        "portSecurity": network.port_security,
        "capabilities": {"ips": True, "mac": True},
        **({"nodeSubnets": [subnet.cidr for subnet in network.subnets]} if network.flat else {}),
        "ipam": {"type": "host-local", "ranges": [[_range(network, subnet)] for subnet in network.subnets]},
    }


def node_subnets(plugin: Mapping[str, Any]) -> tuple[str, ...]:
    """The node's subnets, of our plugin's entry. Raises KeyError or TypeError for one that does not tell."""
    told = plugin.get("nodeSubnets") or [part["subnet"] for ranges in plugin["ipam"]["ranges"] for part in ranges]
    return tuple(str(cidr) for cidr in told)


def _segment(network: PodNetwork, subnet: NodeSubnet) -> str | None:
    return next((cidr for cidr in network.segments if (":" in cidr) == (subnet.family == 6)), None)


def _gateway(network: PodNetwork, subnet: NodeSubnet) -> str:
    segment = _segment(network, subnet)
    return subnet.gateway if segment is None else subnet.gateway_in(segment)


def _range(network: PodNetwork, subnet: NodeSubnet) -> dict[str, str]:
    return {
        "subnet": (network.flat and _segment(network, subnet)) or subnet.cidr,
        "rangeStart": subnet.range_start,
        "rangeEnd": subnet.range_end,
        "gateway": subnet.gateway_address,
    }


def _one_or_list(gateways: Sequence[str]) -> str | list[str]:
    return gateways[0] if len(gateways) == 1 else list(gateways)
