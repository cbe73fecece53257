# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The content of a node's conflist, the network configuration list that the container runtime reads.

Pure. ``conf_dir`` puts the file in place, and ``netconf`` reads the plugin's part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import defaults, paths
from ..cidr import ip_version
from ..subnets import NodeSubnet
from .netconf import HOST_LOCAL

CNI_VERSION = "1.0.0"
"""For runtimes older than CNI 1.1.0; a newer runtime takes the highest of CNI_VERSIONS that it knows."""

CNI_VERSIONS = ("0.4.0", "1.0.0", "1.1.0")

PLUGIN = "evio"
"""The plugin's type: its file name in the runtime's plugin directory."""

_CHAINED: dict[str, dict[str, Any]] = {
    "portmap": {"capabilities": {"portMappings": True}, "snat": True},
    "bandwidth": {"capabilities": {"bandwidth": True}},
}

_ENFORCED_BY_THE_KERNEL = ("bandwidth",)
"""Chained plugins that work on the host's end of the pod, past which vswitchd's own datapath takes frames."""

CHAINED_PLUGINS = tuple(_CHAINED)
"""The plugins that run after ours on nodes where they are installed, in this order."""


@dataclass(frozen=True)
class PodNetwork:
    """The network of one node's pods: everything that its conflist says."""

    bridge: str
    subnets: tuple[NodeSubnet, ...]
    """The node's subnets, at most one of each family."""
    cluster_cidrs: tuple[str, ...]
    """Networks (CIDR) that are never masqueraded: both overlays."""
    mtu: int
    """Bytes of an IP packet; the same on pods, bridge and tunnel."""
    datapath_type: str = defaults.DATAPATH_TYPE
    epoch: int = 0
    """etcd's revision of the node's claim; 0 without a registry."""
    name: str = "evio"
    ip_masq: bool = True
    port_security: bool = True
    ovsdb: str = paths.OVSDB
    state_dir: str = paths.STATE_DIR
    segments: tuple[str, ...] = ()
    """Pod networks whose nodes' bridges form one layer-2 segment, as with EdgeVPN.io; at most one of each family."""
    flat: bool = False
    """Whether pods on such a segment have the whole pod network on their link, instead of their node's subnet."""
    service_cidrs: tuple[str, ...] = ()
    """Networks of Services that the node itself reaches by the bridge."""
    chained: tuple[str, ...] = ()
    """The plugins among CHAINED_PLUGINS that are installed on the node."""


def build_conflist(network: PodNetwork) -> dict[str, Any]:
    """Return the conflist of this network (CNI 1.1.0 section 1), as an object for ``json.dumps``."""
    return {
        "cniVersion": CNI_VERSION,
        "cniVersions": list(CNI_VERSIONS),
        "name": network.name,
        "plugins": [_evio(network), *({"type": name, **_CHAINED[name]} for name in _chained(network))],
    }


def node_subnets(plugin: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the node's subnets from our plugin's entry in a conflist. Raises KeyError or TypeError if it has none."""
    subnets = plugin.get("nodeSubnets") or [part["subnet"] for ranges in plugin["ipam"]["ranges"] for part in ranges]
    return tuple(str(cidr) for cidr in subnets)


def _chained(network: PodNetwork) -> Iterator[str]:
    """Yield the chained plugins that do on this datapath what they say.

    On vswitchd's, the bandwidth plugin lets a pod send without limit (225 Mbit/s at a limit of 10): tc's ingress hook
    comes after the packet sockets that vswitchd reads. There ``_evio`` declares the capability, to refuse it in words.
    """
    for name in network.chained:
        if network.datapath_type != "netdev" or name not in _ENFORCED_BY_THE_KERNEL:
            yield name


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
        "capabilities": {"ips": True, "mac": True, **_refused_capabilities(network)},
        **({"serviceCIDRs": list(network.service_cidrs)} if network.service_cidrs else {}),
        **({"nodeSubnets": [subnet.cidr for subnet in network.subnets]} if network.flat else {}),
        "ipam": {"type": HOST_LOCAL, "ranges": [[_range(network, subnet)] for subnet in network.subnets]},
    }


def _refused_capabilities(network: PodNetwork) -> dict[str, bool]:
    return dict.fromkeys(_ENFORCED_BY_THE_KERNEL, True) if network.datapath_type == "netdev" else {}


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


def _segment(network: PodNetwork, subnet: NodeSubnet) -> str | None:
    """Return the pod network that is a layer-2 segment, of the subnet's family; None if there is none."""
    return next((cidr for cidr in network.segments if ip_version(cidr) == subnet.family), None)


def _one_or_list(gateways: Sequence[str]) -> str | list[str]:
    return gateways[0] if len(gateways) == 1 else list(gateways)
