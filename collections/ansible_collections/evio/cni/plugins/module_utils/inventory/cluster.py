# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster as the inventory describes it: checked as a whole before any node is changed.

Pure. Subnet arithmetic is subnets' subject; what a backend makes of the description is overlay's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from ..errors import EvioError
from ..mtu import LEAST_OVERLAY_MTU, MOST_OVERLAY_MTU
from ..names import is_node_name
from ..overlay.edgevpn.accounts import XmppAccount, refuse_shared_accounts
from ..overlay.edgevpn.config import DEFAULT_MTU, EdgeVpnNode, EdgeVpnOverlay, EdgeVpnTuning, build_edgevpn_config
from ..overlay.edgevpn.naming import (
    BOUNDED_FLOOD,
    SWITCH_PROTOCOLS,
    check_node_ids,
    check_overlay_ids,
    node_id,
    tap_characters,
)
from ..overlay.edgevpn.schema import EdgeVpnConfigError
from ..overlay.endpoint import OverlayError, endpoint_host, is_named, parse_public_endpoint
from ..subnets import parse_pools, refuse_overlaps

OVERLAYS = ("evio", "wireguard", "external")
KUBERNETES = ("none", "kubeadm", "existing")
_CLUSTER_NAME_LENGTH = 63

_KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""A DNS subdomain, which the name of a node is (kubernetes.io, "Object Names and IDs")."""
_KUBERNETES_NAME_LENGTH = 253
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):(\d{1,5})")


class ClusterError(EvioError):
    """The cluster cannot work as it is described; the message names the variable and the value."""


@dataclass(frozen=True)
class EdgeVpnMember:
    """The settings of one host for EdgeVPN.io. A setting that the inventory does not give is empty."""

    host_account: str = ""
    """Username of the host overlay on the signalling server."""
    pod_account: str = ""
    """Username of the pod overlay on the signalling server."""
    node_id: str = ""
    """EdgeVPN.io's NodeId; if it is empty, it is made from the names of cluster and node."""
    tuning: EdgeVpnTuning = field(default_factory=EdgeVpnTuning)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """What the inventory merges over EdgeVPN.io's configuration file."""
    replaces_lists: bool = False
    """Whether a list in ``overrides`` replaces the file's own list."""


@dataclass(frozen=True)
class EdgeVpnSite:
    """The settings of all hosts for EdgeVPN.io."""

    xmpp_host: str = ""
    overlay_ids: tuple[str, ...] = ()
    """The ids of host overlay and pod overlay."""
    signalling: tuple[str, ...] = ()
    """Names of the hosts on which the role xmpp sets up a signalling server."""
    switch_protocol: str = BOUNDED_FLOOD
    """How the overlays' bridges avoid loops; ``learning`` if they do not."""
    has_pod_overlay: bool = True
    """Whether EdgeVPN.io carries the pods' packets too."""


@dataclass(frozen=True)
class KubernetesSite:
    """The settings of all hosts for Kubernetes."""

    source: str = "none"
    """Where the cluster comes from: one of KUBERNETES."""
    endpoint: str = ""
    """The API server's ``host:port`` that the inventory gives, or empty."""
    node_names: tuple[str, ...] = ()
    """Names in Kubernetes of the nodes of ``pod_nodes``."""


@dataclass(frozen=True)
class Node:
    """One host of the inventory."""

    name: str
    host_overlay_address: str | None
    public_endpoint: str | None = None
    """Address or DNS name, with or without a port, at which every node reaches this one; None if it is behind a NAT."""
    evio: EdgeVpnMember = EdgeVpnMember()


@dataclass(frozen=True)
class Cluster:
    """The variables of the inventory that concern all nodes, as they were given."""

    name: str
    host_overlay_cidr: str
    pod_cidr: str
    """One CIDR, or one IPv4 and one IPv6 CIDR with a comma between them."""
    node_bits: str
    """Bits that number the nodes' subnets: one value, or one value for each CIDR of pod_cidr."""
    nodes: tuple[Node, ...]
    overlay: str = "wireguard"
    mtu: int | None = None
    """Bytes; None if the backend measures it."""
    reserved_cidrs: tuple[str, ...] = ()
    """CIDRs inside the pod overlay that no node's subnet may touch."""
    service_cidrs: tuple[str, ...] = ()
    """The networks of the Services' addresses, at most one of each IP version."""
    control_plane: tuple[str, ...] = ()
    """Names of the nodes that hold etcd."""
    pod_nodes: tuple[str, ...] = ()
    """Names of the nodes that run pods."""
    etcd_managed: bool = False
    """Whether the playbooks run the role etcd on the nodes of ``control_plane``."""
    kubernetes: KubernetesSite = KubernetesSite()
    evio: EdgeVpnSite = EdgeVpnSite()
    """Ignored unless ``overlay`` is evio."""


def check_cluster(cluster: Cluster) -> None:
    """Raise an EvioError for the first value that cannot work."""
    _check_names(cluster)
    host_overlay = _network("evio_host_overlay_cidr", cluster.host_overlay_cidr)
    pools = parse_pools(cluster.pod_cidr, cluster.node_bits)
    refuse_overlaps(_networks(cluster))
    for index, cidr in enumerate(cluster.reserved_cidrs):
        _network(f"evio_reserved_cidrs[{index}]", cidr)
    _check_service_networks(cluster.service_cidrs, [ip_network(pool.pod_cidr) for pool in pools])
    _check_mtu(cluster, [host_overlay, *(ip_network(pool.pod_cidr) for pool in pools)])
    for pool in pools:
        if len(cluster.nodes) > pool.size:
            raise ClusterError(
                f"evio_node_bits: {cluster.node_bits!r} makes {pool.size} subnets of {pool.pod_cidr}, "
                f"but the inventory has {len(cluster.nodes)} nodes; raise evio_node_bits or widen evio_pod_cidr"
            )
    _check_addresses(cluster.nodes, host_overlay)
    _check_relays(cluster)
    _check_kubernetes(cluster)
    if cluster.overlay == "evio":
        _check_edgevpn(cluster, host_overlay)
        _check_switch_protocol(cluster, [ip_network(pool.pod_cidr) for pool in pools])
        _check_edgevpn_settings(cluster, host_overlay)


def check_leaving(cluster: Cluster, leaving: Sequence[str]) -> None:
    """Raise ClusterError if one of these nodes is not in the cluster, or the cluster cannot work without them."""
    if not leaving:
        raise ClusterError(
            "evio_leaving_nodes: no node is named; use --extra-vars evio_leaving_nodes=node3, several with commas"
        )
    names = {node.name for node in cluster.nodes}
    for name in leaving:
        if name not in names:
            raise ClusterError(
                f"evio_leaving_nodes: {name!r} is not in evio_nodes, which has {', '.join(sorted(names))}"
            )
    without = f"evio_leaving_nodes: without {', '.join(leaving)} there is no"
    remaining = [node for node in cluster.nodes if node.name not in leaving]
    if not set(cluster.control_plane) - set(leaving):
        raise ClusterError(f"{without} node left in evio_control_plane, and so no etcd")
    if cluster.overlay == "wireguard" and not any(node.public_endpoint for node in remaining):
        raise ClusterError(
            f"{without} relay left, through which the other nodes find each other; give another node an "
            "evio_public_endpoint and run bootstrap.yml first"
        )
    signalling = cluster.evio.signalling
    if cluster.overlay == "evio" and signalling and not set(signalling) - set(leaving):
        raise ClusterError(
            f"{without} host left in evio_signalling, through which the other nodes find each other; add another host, "
            "set evio_xmpp_host to it and run bootstrap.yml first"
        )


def _check_names(cluster: Cluster) -> None:
    if not is_node_name(cluster.name) or len(cluster.name) > _CLUSTER_NAME_LENGTH:
        raise ClusterError(
            f"evio_cluster: {cluster.name!r} cannot be a key in etcd; use letters, digits, '-', '_' and '.', at most "
            f"{_CLUSTER_NAME_LENGTH}"
        )
    if cluster.overlay not in OVERLAYS:
        raise ClusterError(f"evio_overlay: {cluster.overlay!r} is not one of {', '.join(OVERLAYS)}")
    if not cluster.nodes:
        raise ClusterError("group evio_nodes: it has no node")
    if not cluster.control_plane:
        raise ClusterError("group evio_control_plane: it has no node; etcd runs there")
    names = {node.name for node in cluster.nodes}
    for group, members in (("evio_control_plane", cluster.control_plane), ("evio_pod_nodes", cluster.pod_nodes)):
        strangers = sorted(set(members) - names)
        if strangers:
            raise ClusterError(f"group {group}: {strangers[0]!r} is not in evio_nodes")
    if cluster.etcd_managed and len(cluster.control_plane) > 1:
        raise ClusterError(
            f"group evio_control_plane: it has {len(cluster.control_plane)} hosts "
            f"({', '.join(cluster.control_plane)}), but evio_etcd_managed runs an etcd of one member; each host would "
            "get an etcd of its own. Leave only the host in the group whose etcd has the claims, or set up an etcd of "
            "several members (as kubeadm's documentation does), set evio_etcd_managed: false and give its members in "
            "evio_etcd_endpoints"
        )


def _networks(cluster: Cluster) -> Mapping[str, str]:
    """Return the CIDRs that must not overlap, by the name of their variable."""
    named = {"evio_host_overlay_cidr": cluster.host_overlay_cidr}
    services = cluster.service_cidrs
    for index, cidr in enumerate(services):
        named["evio_service_network" if len(services) == 1 else f"evio_service_network[{index}]"] = cidr
    pods = cluster.pod_cidr.split(",")
    for index, cidr in enumerate(pods):
        named["evio_pod_cidr" if len(pods) == 1 else f"evio_pod_cidr[{index}]"] = cidr.strip()
    return named


def _check_service_networks(cidrs: Sequence[str], pods: Sequence[IPv4Network | IPv6Network]) -> None:
    """Raise ClusterError if there are two of one IP version, or one of a version that pods have not."""
    networks = [_network("evio_service_network", cidr) for cidr in cidrs]
    for index, network in enumerate(networks):
        if network.version in [other.version for other in networks[:index]]:
            raise ClusterError(
                f"evio_service_network: {network} is the second of IPv{network.version}; give one of each"
            )
        if network.version not in [pod.version for pod in pods]:
            raise ClusterError(
                f"evio_service_network: {network} is of IPv{network.version}, and evio_pod_cidr has no such network"
            )


def _network(variable: str, value: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(value)
    except ValueError as error:
        raise ClusterError(f"{variable}: {value!r} is not a network in CIDR notation: {error}") from error


def _check_mtu(cluster: Cluster, networks: Sequence[IPv4Network | IPv6Network]) -> None:
    least = max(LEAST_OVERLAY_MTU[network.version] for network in networks)
    if cluster.mtu is not None and not least <= cluster.mtu <= MOST_OVERLAY_MTU:
        raise ClusterError(f"evio_mtu: {cluster.mtu} is not between {least} and {MOST_OVERLAY_MTU} bytes")


def _check_addresses(nodes: Sequence[Node], host_overlay: IPv4Network | IPv6Network) -> None:
    owner: dict[IPv4Address | IPv6Address, str] = {}
    for node in nodes:
        if not node.host_overlay_address:
            raise ClusterError(
                f"evio_host_overlay_address: {node.name} has none; give it an unused address of {host_overlay}"
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
                endpoint = parse_public_endpoint(node.public_endpoint)
            except OverlayError as error:
                raise ClusterError(f"{node.name}: {error}") from error
            _check_outside(node, endpoint, _networks(cluster))
    needs_relay = cluster.overlay == "wireguard" and len(cluster.nodes) > 1
    if needs_relay and not any(node.public_endpoint for node in cluster.nodes):
        raise ClusterError(
            "evio_public_endpoint: no node has one; nodes behind NATs find each other through at least one node that "
            "every node can reach"
        )


def _check_outside(node: Node, endpoint: str, networks: Mapping[str, str]) -> None:
    if is_named(endpoint):
        return
    for variable, cidr in networks.items():
        if ip_address(endpoint_host(endpoint)) in ip_network(cidr):
            raise ClusterError(
                f"{node.name}: evio_public_endpoint: {node.public_endpoint!r} is inside {variable} {cidr}: the "
                "overlay's packets would enter their own tunnel; give the address that the host has outside the overlay"
            )


def _check_kubernetes(cluster: Cluster) -> None:
    site = cluster.kubernetes
    if site.source not in KUBERNETES:
        raise ClusterError(f"evio_kubernetes: {site.source!r} is not one of {', '.join(KUBERNETES)}")
    if site.source == "none":
        return
    for name in site.node_names:
        if len(name) > _KUBERNETES_NAME_LENGTH or not _KUBERNETES_NAME.fullmatch(name):
            raise ClusterError(
                f"evio_kubernetes_node_name: {name!r} cannot be the name of a node in Kubernetes; use small letters, "
                "digits, '-' and '.'"
            )
    twice = sorted({name for name in site.node_names if site.node_names.count(name) > 1})
    if twice:
        raise ClusterError(f"evio_kubernetes_node_name: {twice[0]!r} is given to two hosts")
    if not cluster.pod_nodes:
        raise ClusterError(f"group evio_pod_nodes: it has no host, but evio_kubernetes is {site.source}")
    if site.source == "kubeadm":
        _check_kubeadm(cluster)


def _check_kubeadm(cluster: Cluster) -> None:
    endpoint = cluster.kubernetes.endpoint
    outside = [name for name in cluster.control_plane if name not in cluster.pod_nodes]
    if outside:
        raise ClusterError(
            f"group evio_control_plane: {outside[0]!r} is not in evio_pod_nodes; kubeadm runs the control plane as pods"
        )
    match = _ENDPOINT.fullmatch(endpoint)
    if endpoint and (match is None or not 0 < int(match[2]) < 1 << 16):
        raise ClusterError(f"evio_kubernetes_endpoint: {endpoint!r} is not host:port")
    if len(cluster.control_plane) > 1 and not endpoint:
        raise ClusterError(
            f"evio_kubernetes_endpoint: not given, but evio_control_plane has {len(cluster.control_plane)} hosts; set "
            "it to a name and port that lead to each of them (a DNS name of their host overlay addresses), or to the "
            "first host's overlay address if its loss may stop the API"
        )


def _check_edgevpn(cluster: Cluster, host_overlay: IPv4Network | IPv6Network) -> None:
    if host_overlay.version != 4:
        raise ClusterError(f"evio_host_overlay_cidr: {host_overlay}; EdgeVPN.io gives its bridges IPv4 addresses only")
    if not cluster.evio.xmpp_host:
        raise ClusterError("evio_xmpp_host: not given; EdgeVPN.io's nodes find each other through a signalling server")
    if len(cluster.evio.overlay_ids) != 2:
        raise ClusterError(f"overlay_ids: {list(cluster.evio.overlay_ids)} are not the host overlay's and the pods' id")
    check_overlay_ids(cluster.evio.overlay_ids)
    usernames = [
        (f"{variable} of {node.name}", account)
        for node in cluster.nodes
        for variable, account in (
            ("evio_xmpp_host_account", node.evio.host_account),
            *([("evio_xmpp_pod_account", node.evio.pod_account)] if cluster.evio.has_pod_overlay else []),
        )
    ]
    for holder, username in usernames:
        if not username:
            raise ClusterError(f"{holder}: not given; each node has one account for each overlay")
    refuse_shared_accounts(usernames)
    check_node_ids(_node_ids(cluster))


def _node_ids(cluster: Cluster) -> dict[str, str]:
    return {node.name: node.evio.node_id or node_id(cluster.name, node.name) for node in cluster.nodes}


def _check_edgevpn_settings(cluster: Cluster, host_overlay: IPv4Network | IPv6Network) -> None:
    """Build the configuration file of each node, as its host will, without what only the host knows."""
    identities = _node_ids(cluster)
    for node in cluster.nodes:
        try:
            config = build_edgevpn_config(_edgevpn_node(cluster, node, host_overlay.prefixlen))
            check_node_ids(identities, tap_characters(config))
        except EdgeVpnConfigError as error:
            raise ClusterError(f"settings of EdgeVPN.io for {node.name}: {error}") from None


def _edgevpn_node(cluster: Cluster, node: Node, prefix_length: int) -> EdgeVpnNode:
    site, member = cluster.evio, node.evio
    host_id, pod_id = site.overlay_ids
    pods = EdgeVpnOverlay(pod_id, XmppAccount(member.pod_account, "-"))
    return EdgeVpnNode(
        node_id=_node_ids(cluster)[node.name],
        host_overlay=EdgeVpnOverlay(
            host_id, XmppAccount(member.host_account, "-"), f"{node.host_overlay_address}/{prefix_length}"
        ),
        pod_overlay=pods if site.has_pod_overlay else None,
        xmpp_host=site.xmpp_host,
        mtu=cluster.mtu or DEFAULT_MTU,
        switch_protocol=None if site.switch_protocol == "learning" else site.switch_protocol,
        node_count=len(cluster.nodes),
        tuning=member.tuning,
        overrides=member.overrides,
        replaces_lists=member.replaces_lists,
    )


def _check_switch_protocol(cluster: Cluster, pools: Sequence[IPv4Network | IPv6Network]) -> None:
    protocol = cluster.evio.switch_protocol
    if protocol not in (*SWITCH_PROTOCOLS, "learning"):
        raise ClusterError(f"evio_switch_protocol: {protocol!r} is not one of {', '.join(SWITCH_PROTOCOLS)}, learning")
    if protocol == "learning" and len(cluster.nodes) > 2:
        raise ClusterError(
            f"evio_switch_protocol: learning switches do not avoid loops, and the tunnels between "
            f"{len(cluster.nodes)} nodes are one; use {' or '.join(SWITCH_PROTOCOLS)}"
        )
    for pool in pools if cluster.evio.has_pod_overlay else ():
        if pool.version == 6 and protocol == BOUNDED_FLOOD:
            raise ClusterError(
                f"evio_pod_cidr: {pool} is IPv6, of which EdgeVPN.io's BoundedFlood drops neighbour discovery; set "
                "evio_switch_protocol: STP, or take an IPv4 network"
            )
