# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster's description as the inventory gives it: checked as a whole before anything is changed anywhere.

Pure. Subnet arithmetic is left to subnets; what a backend makes of the description to evio_config and overlay_config.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ..errors import EvioError
from ..mtu import LEAST_MTU_IPV6
from ..overlay.edgevpn.config import check_node_ids, check_overlay_ids, node_id
from ..overlay.endpoint import OverlayError, parse_endpoint
from ..subnets import parse_pools, refuse_overlaps

OVERLAYS = ("evio", "wireguard", "external")
_CLUSTER_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
_LOWEST_MTU = 576
_HIGHEST_MTU = 9000


class ClusterError(EvioError):
    """The description cannot work; the message names the variable and the value."""


@dataclass(frozen=True)
class EdgeVpnMember:
    """What EdgeVPN.io needs to know of one host. Empty is what the inventory does not give."""

    host_account: str = ""
    pod_account: str = ""
    """Usernames on the signalling server, one for each overlay."""
    node_id: str = ""
    """Made from the names where it is empty."""


@dataclass(frozen=True)
class EdgeVpnSite:
    """What all hosts have in common with EdgeVPN.io."""

    xmpp_host: str = ""
    overlay_ids: tuple[str, ...] = ()
    """The host overlay's and the pod overlay's."""
    signalling: tuple[str, ...] = ()
    """Hosts that the role xmpp makes signalling servers of."""


@dataclass(frozen=True)
class Node:
    """One host of the inventory."""

    name: str
    host_overlay_address: str | None
    public_endpoint: str | None = None
    """Address or address:port under which anybody reaches the node; None behind a NAT."""
    evio: EdgeVpnMember = EdgeVpnMember()


@dataclass(frozen=True)
class Cluster:
    """The inventory's variables that concern all nodes, as they were given."""

    name: str
    host_overlay_cidr: str
    pod_cidr: str
    """One CIDR, or two with a comma between them (one a family)."""
    node_bits: str
    """One number, or one for each CIDR of pod_cidr."""
    nodes: tuple[Node, ...]
    overlay: str = "wireguard"
    mtu: int | None = None
    """None: the backend finds it out."""
    reserved_cidrs: tuple[str, ...] = ()
    control_plane: tuple[str, ...] = ()
    evio: EdgeVpnSite = EdgeVpnSite()
    """Of no interest with another overlay."""


def check_cluster(cluster: Cluster) -> None:
    """Raise ClusterError or SubnetError for the first thing that cannot work; return if all of it can."""
    _check_names(cluster)
    host_overlay = _network("evio_host_overlay_cidr", cluster.host_overlay_cidr)
    pools = parse_pools(cluster.pod_cidr, cluster.node_bits)
    refuse_overlaps(_networks(cluster))
    _check_mtu(cluster, [host_overlay, *(ip_network(pool.pod_cidr) for pool in pools)])
    for pool in pools:
        if len(cluster.nodes) > pool.size:
            raise ClusterError(
                f"evio_node_bits: {cluster.node_bits!r} makes {pool.size} subnets of {pool.pod_cidr}, "
                f"but the inventory has {len(cluster.nodes)} nodes; raise evio_node_bits or widen evio_pod_cidr"
            )
    _check_addresses(cluster.nodes, host_overlay)
    _check_relays(cluster)
    if cluster.overlay == "evio":
        _check_edgevpn(cluster, host_overlay)


def check_leaving(cluster: Cluster, leaving: Sequence[str]) -> None:
    """Raise ClusterError if the cluster cannot do without these nodes, or does not have them."""
    if not leaving:
        raise ClusterError("evio_leaving_nodes: no node is named; give --extra-vars evio_leaving_nodes=node3")
    names = {node.name for node in cluster.nodes}
    for name in leaving:
        if name not in names:
            known = ", ".join(sorted(names))
            raise ClusterError(f"evio_leaving_nodes: {name!r} is not in evio_nodes, which has {known}")
    if not set(cluster.control_plane) - set(leaving):
        raise ClusterError(
            f"evio_leaving_nodes: {', '.join(leaving)} would take the last node out of evio_control_plane, "
            "and etcd with it"
        )
    if cluster.overlay == "wireguard" and not any(
        node.public_endpoint for node in cluster.nodes if node.name not in leaving
    ):
        raise ClusterError(
            f"evio_leaving_nodes: {', '.join(leaving)} would take the last relay, and the others would lose "
            "each other; give another node an evio_public_endpoint and run bootstrap.yml first"
        )
    signalling = cluster.evio.signalling
    if cluster.overlay == "evio" and signalling and not set(signalling) - set(leaving):
        raise ClusterError(
            f"evio_leaving_nodes: {', '.join(leaving)} would take the last host out of evio_signalling, and others "
            "would not find each other any more; have another signalling host and evio_xmpp_host, and run "
            "bootstrap.yml first"
        )


def _check_names(cluster: Cluster) -> None:
    if not _CLUSTER_NAME.match(cluster.name):
        raise ClusterError(
            f"evio_cluster: {cluster.name!r} cannot be a key in etcd; use letters, digits, '-', '_' and '.'"
        )
    if cluster.overlay not in OVERLAYS:
        raise ClusterError(f"evio_overlay: {cluster.overlay!r} is none of {', '.join(OVERLAYS)}")
    if not cluster.nodes:
        raise ClusterError("group evio_nodes: no node in it")
    if not cluster.control_plane:
        raise ClusterError("group evio_control_plane: no node in it; etcd's certificate and claims live there")
    strangers = sorted(set(cluster.control_plane) - {node.name for node in cluster.nodes})
    if strangers:
        raise ClusterError(f"group evio_control_plane: {strangers[0]!r} is not in evio_nodes")


def _networks(cluster: Cluster) -> Mapping[str, str]:
    """Every network of the cluster by the name of the variable that gives it."""
    named = {"evio_host_overlay_cidr": cluster.host_overlay_cidr}
    pods = cluster.pod_cidr.split(",")
    for index, cidr in enumerate(pods):
        named["evio_pod_cidr" if len(pods) == 1 else f"evio_pod_cidr[{index}]"] = cidr.strip()
    for index, cidr in enumerate(cluster.reserved_cidrs):
        _network(f"evio_reserved_cidrs[{index}]", cidr)
    return named


def _network(variable: str, value: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(value)
    except ValueError as error:
        raise ClusterError(f"{variable}: {value!r} is not a network in CIDR notation: {error}") from error


def _check_mtu(cluster: Cluster, networks: Sequence[IPv4Network | IPv6Network]) -> None:
    lowest = LEAST_MTU_IPV6 if any(network.version == 6 for network in networks) else _LOWEST_MTU
    if cluster.mtu is not None and not lowest <= cluster.mtu <= _HIGHEST_MTU:
        raise ClusterError(f"evio_mtu: {cluster.mtu} is not between {lowest} and {_HIGHEST_MTU} bytes")


def _check_addresses(nodes: Sequence[Node], host_overlay: IPv4Network | IPv6Network) -> None:
    owner: dict[IPv4Address | IPv6Address, str] = {}
    for node in nodes:
        if not node.host_overlay_address:
            raise ClusterError(
                f"evio_host_overlay_address: {node.name} has none; give it an address of {host_overlay} of its own"
            )
        try:
            address = ip_address(node.host_overlay_address)
        except ValueError as error:
            raise ClusterError(
                f"evio_host_overlay_address: {node.name} has {node.host_overlay_address!r}, not an IP address"
            ) from error
        if address not in host_overlay or address in (host_overlay.network_address, host_overlay.broadcast_address):
            raise ClusterError(
                f"evio_host_overlay_address: {node.name} has {address}, "
                f"not a host address of evio_host_overlay_cidr {host_overlay}"
            )
        if address in owner:
            raise ClusterError(
                f"evio_host_overlay_address: {address} is given to both {owner[address]} and {node.name}"
            )
        owner[address] = node.name


def _check_relays(cluster: Cluster) -> None:
    for node in cluster.nodes:
        if node.public_endpoint is not None:
            try:
                parse_endpoint(node.public_endpoint)
            except OverlayError as error:
                raise ClusterError(f"{node.name}: {error}") from error
    needs_relay = cluster.overlay == "wireguard" and len(cluster.nodes) > 1
    if needs_relay and not any(node.public_endpoint for node in cluster.nodes):
        raise ClusterError(
            "evio_public_endpoint: no node has one; nodes behind NATs find each other through at least one "
            "node that all can reach"
        )


def _check_edgevpn(cluster: Cluster, host_overlay: IPv4Network | IPv6Network) -> None:
    if host_overlay.version != 4:
        raise ClusterError(f"evio_host_overlay_cidr: {host_overlay}; EdgeVPN.io gives its bridges IPv4 addresses alone")
    if not cluster.evio.xmpp_host:
        raise ClusterError("evio_xmpp_host: not given; EdgeVPN.io's nodes meet on a signalling server")
    check_overlay_ids(cluster.evio.overlay_ids)
    owner: dict[str, str] = {}
    for node in cluster.nodes:
        accounts = {
            "evio_xmpp_host_account": node.evio.host_account,
            "evio_xmpp_pod_account": node.evio.pod_account,
        }
        for variable, account in accounts.items():
            if not account:
                raise ClusterError(f"{variable}: {node.name} has none; each node has one for each overlay")
            # RFC 7622 section 3.3: the server takes names in any case for the same.
            other = owner.setdefault(account.lower(), f"{variable} of {node.name}")
            if other != f"{variable} of {node.name}":
                raise ClusterError(
                    f"{variable}: {account} of {node.name} is also the {other}; Evio would mix what is said to either"
                )
    check_node_ids({node.name: node.evio.node_id or node_id(cluster.name, node.name) for node in cluster.nodes})
