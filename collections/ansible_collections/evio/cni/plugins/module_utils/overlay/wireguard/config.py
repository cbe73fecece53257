# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two configuration files of a node's overlay, overlay.json and pod-routes.json: their shape and their rules.

Pure. The module wireguard_overlay writes the files, the node's agent reads them. How a peer is reached at a given
moment is path_selection's subject.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from ...defaults import OVERLAY_MTU
from ...mtu import LEAST_OVERLAY_MTU, MOST_OVERLAY_MTU
from ...names import is_node_name
from ..endpoint import LISTEN_PORT, OverlayError, endpoint_host, is_named, parse_public_endpoint

SCHEMA = 1
"""Version of both files' shape."""

INTERFACE = "evio0"

PROBE_PORT = 51821
"""UDP port of the agents' messages, bound to the probe address of the overlay interface only."""

OVERHEAD = 80
"""Bytes that WireGuard adds to a packet on an IPv6 underlay: 40 IP + 8 UDP + 16 header + 16 tag. On IPv4, 20 less."""

UDP_HEADERS = 28
"""Bytes of the IPv4 and UDP headers of the agents' messages: probe addresses are IPv4."""

_INTERFACE_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,15}$")
"""IFNAMSIZ of linux/if.h is 16 with the final zero."""

PROBE_NETWORK = "247.0.0.0/8"
"""The network of the probe addresses, a part of 240.0.0.0/4, which RFC 1112 section 4 reserves and which Linux routes
like any other. Packets with these addresses never leave the tunnel. No host has services there, unlike in
169.254.0.0/16 (clouds' metadata and boot volumes, node-local DNS), 100.64.0.0/10 (networks of providers and VPNs) and
198.18.0.0/15 (proxies)."""

_FIRST_PROBE_ADDRESS = int(ip_network(PROBE_NETWORK).network_address)


@dataclass(frozen=True)
class OverlayPeer:
    """Another node of the host overlay."""

    name: str
    public_key: str
    """WireGuard's: 32 bytes in base64."""
    address: str
    """The node's host overlay address."""
    endpoint: str | None = None
    """``address:port`` or ``name:port`` at which every node reaches it; None if it is behind a NAT."""
    next_public_key: str | None = None
    """The key to which the node changes while keys are rotated: its packets are accepted with both. Else None."""

    @property
    def public_keys(self) -> tuple[str, ...]:
        """The keys that the node may have now."""
        return (self.public_key,) if self.next_public_key is None else (self.public_key, self.next_public_key)

    @property
    def is_relay(self) -> bool:
        """Whether the node forwards packets of nodes that cannot reach each other: every node reaches it."""
        return self.endpoint is not None


@dataclass(frozen=True)
class OverlayConfig:
    """The host overlay as one node sees it: ``overlay.json``."""

    node: str
    """This node's name."""
    address: str
    """This node's host overlay address."""
    host_cidr: str
    """The network of all host overlay addresses."""
    public_key: str
    endpoint: str | None = None
    """``address:port`` or ``name:port`` at which every node reaches this one; None if it is behind a NAT."""
    interface: str = INTERFACE
    listen_port: int = LISTEN_PORT
    mtu: int = OVERLAY_MTU
    peers: tuple[OverlayPeer, ...] = ()
    """All other nodes."""
    next_public_key: str | None = None
    """The key to which this node changes while keys are rotated, else None. The key file says which one it has."""

    @property
    def prefix_length(self) -> int:
        """Prefix length of host_cidr."""
        return ip_network(self.host_cidr).prefixlen

    @property
    def is_relay(self) -> bool:
        """Whether this node forwards packets of nodes that cannot reach each other."""
        return self.endpoint is not None

    @property
    def members(self) -> tuple[OverlayPeer, ...]:
        """This node and its peers."""
        own = OverlayPeer(self.node, self.public_key, self.address, self.endpoint, self.next_public_key)
        return (own, *self.peers)


@dataclass(frozen=True)
class PodRoutes:
    """The pod subnets of all nodes: ``pod-routes.json``. Empty until the subnets are claimed."""

    pod_cidrs: tuple[str, ...] = ()
    """The networks that all pod subnets are part of."""
    subnets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """CIDRs by the name of the node."""
    service_cidrs: tuple[str, ...] = ()
    """The networks of the Services' addresses, at most one of each IP version."""


def parse_overlay(text: str, source: str = "overlay.json") -> OverlayConfig:
    """Return the host overlay of a file's text. Raises OverlayError, which names the source and what is wrong."""
    data = _object(text, source)
    try:
        config = OverlayConfig(
            node=str(data["node"]),
            address=str(data["address"]),
            host_cidr=str(data["host_cidr"]),
            public_key=str(data["public_key"]),
            endpoint=data.get("endpoint"),
            interface=str(data["interface"]),
            listen_port=int(data["listen_port"]),
            mtu=int(data["mtu"]),
            peers=tuple(
                OverlayPeer(
                    str(peer["name"]),
                    str(peer["public_key"]),
                    str(peer["address"]),
                    peer.get("endpoint"),
                    peer.get("next_public_key"),
                )
                for peer in data["peers"]
            ),
            next_public_key=data.get("next_public_key"),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise OverlayError(f"{source}: {error!r}: not an overlay of schema {SCHEMA}; run the playbook again") from error
    check_overlay(config, source)
    return config


def render_overlay(config: OverlayConfig) -> str:
    """Return the file's text, with the peers in the order of their addresses: equal overlays give equal text."""
    return _text(
        {
            "schema": SCHEMA,
            "node": config.node,
            "interface": config.interface,
            "address": config.address,
            "host_cidr": config.host_cidr,
            "public_key": config.public_key,
            **_next_key(config.next_public_key),
            "endpoint": config.endpoint,
            "listen_port": config.listen_port,
            "mtu": config.mtu,
            "peers": [
                {
                    "name": peer.name,
                    "public_key": peer.public_key,
                    **_next_key(peer.next_public_key),
                    "address": peer.address,
                    "endpoint": peer.endpoint,
                }
                for peer in sorted(config.peers, key=_address_order)
            ],
        }
    )


def parse_pod_routes(text: str, source: str = "pod-routes.json") -> PodRoutes:
    """Return the pod routes of a file's text. Raises OverlayError, which names the source and what is wrong."""
    data = _object(text, source)
    try:
        routes = PodRoutes(
            pod_cidrs=tuple(str(cidr) for cidr in data["pod_cidrs"]),
            subnets={str(node): tuple(str(cidr) for cidr in cidrs) for node, cidrs in data["subnets"].items()},
            # Earlier versions have not written it.
            service_cidrs=tuple(str(cidr) for cidr in data.get("service_cidrs", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise OverlayError(f"{source}: {error!r}: not pod routes of schema {SCHEMA}; run the playbook again") from error
    check_pod_routes(routes, source)
    return routes


def render_pod_routes(routes: PodRoutes) -> str:
    """Return the file's text, without the nodes that have no subnet."""
    return _text(
        {
            "schema": SCHEMA,
            "pod_cidrs": list(routes.pod_cidrs),
            "subnets": {node: list(routes.subnets[node]) for node in sorted(routes.subnets) if routes.subnets[node]},
            "service_cidrs": list(routes.service_cidrs),
        }
    )


def digest_of_pod_routes(text: str) -> str:
    """Return a hash of the file's text, in hexadecimal digits, by which a run tells whether it is as it must be."""
    return hashlib.sha256(text.encode()).hexdigest()


def keep_peers(
    wanted: Iterable[OverlayPeer], existing: Iterable[OverlayPeer], keep: Iterable[str]
) -> tuple[OverlayPeer, ...]:
    """Return the wanted peers, and those existing peers whose names are in ``keep``, sorted by address.

    An existing peer with the key and the address of a wanted one is that node under a former name, and is not kept.
    """
    named = {peer.name: peer for peer in wanted}
    same = {(peer.public_key, peer.address) for peer in named.values()}
    kept = {
        peer.name: peer for peer in existing if peer.name in set(keep) and (peer.public_key, peer.address) not in same
    }
    return tuple(sorted({**kept, **named}.values(), key=_address_order))


def new_names(wanted: Iterable[OverlayPeer], existing: Iterable[OverlayPeer]) -> dict[str, str]:
    """Return the new name, by the former name, of each node whose key and address are the same under another name."""
    former = {(peer.public_key, peer.address): peer.name for peer in existing}
    names = {former.get((peer.public_key, peer.address), peer.name): peer.name for peer in wanted}
    return {before: name for before, name in names.items() if before != name}


def rename_subnets(routes: PodRoutes, names: Mapping[str, str]) -> PodRoutes:
    """Return the routes with the nodes' new names, which ``names`` has by the former names."""
    kept = {node: cidrs for node, cidrs in routes.subnets.items() if node not in names}
    renamed = {names[node]: cidrs for node, cidrs in routes.subnets.items() if node in names}
    return replace(routes, subnets={**kept, **renamed})


def keep_subnets(wanted: PodRoutes, existing: PodRoutes, keep: Iterable[str]) -> PodRoutes:
    """Return the wanted subnets, and those that nodes in ``keep`` have already, unless another node has them now."""
    held = {cidr for cidrs in wanted.subnets.values() for cidr in cidrs}
    kept = {
        node: cidrs
        for node, cidrs in existing.subnets.items()
        if node in set(keep) and node not in wanted.subnets and not held.intersection(cidrs)
    }
    return replace(wanted, subnets={**kept, **wanted.subnets})


def digest_of_keys(config: OverlayConfig) -> str:
    """Return a hash of the keys of all nodes, in hexadecimal digits. The agent tells by it which keys it works with."""
    nodes = [(config.node, config.public_key, None), *((p.name, p.public_key, p.next_public_key) for p in config.peers)]
    return hashlib.sha256(json.dumps(sorted(nodes, key=lambda node: node[0])).encode()).hexdigest()


def with_key(config: OverlayConfig, public_key: str) -> OverlayConfig:
    """Return the host overlay with the key that this node has; the same if it has neither of the file's two keys."""
    return replace(config, public_key=public_key) if public_key == config.next_public_key else config


def probe_address(address: str) -> str:
    """Return the IPv4 address of PROBE_NETWORK to which the agents send their messages.

    Its last 24 bits are those of the host overlay address, so that no one has to assign it. It is an AllowedIP of its
    own node alone and is never relayed: a message from this address came over the direct path.
    """
    return str(IPv4Address(_FIRST_PROBE_ADDRESS | (int(ip_address(address)) & 0xFFFFFF)))


def former_probe_address(address: str) -> str:
    """Return the probe address that former versions use: 169.254.0.0 with the last 16 bits of the address.

    Hosts have services in that network. So a node that was set up by such a version keeps the former addresses that it
    has until it has heard all nodes at their present addresses, and no node gets others.
    """
    return str(IPv4Address(0xA9FE0000 | (int(ip_address(address)) & 0xFFFF)))


def overlay_networks(host_cidr: str, pod_cidrs: Iterable[str]) -> dict[str, str]:
    """Return the networks in CIDR notation that only the overlay may use on a node, by what they are called."""
    networks = {"the host overlay": host_cidr, "the overlay's probe network": PROBE_NETWORK}
    for number, cidr in enumerate(pod_cidrs):
        networks["the pod overlay" if number == 0 else "the pod overlay's second network"] = cidr
    return networks


def host_prefix(address: str) -> str:
    """Return the address with the prefix length of a single address, ``/32`` or ``/128``."""
    parsed = ip_address(address)
    return f"{parsed}/{parsed.max_prefixlen}"


def check_overlay(config: OverlayConfig, source: str = "overlay.json") -> None:
    """Raise OverlayError for the first value that cannot work."""
    if not _INTERFACE_NAME.match(config.interface):
        raise OverlayError(
            f"{source}: interface {config.interface!r}: use letters, digits, '-', '_' and '.', at most 15 characters"
        )
    if not 0 < config.listen_port < 65536:
        raise OverlayError(f"{source}: listen_port {config.listen_port} is not between 1 and 65535")
    try:
        network = ip_network(config.host_cidr)
    except ValueError as error:
        raise OverlayError(f"{source}: host_cidr {config.host_cidr!r}: {error}") from error
    least = LEAST_OVERLAY_MTU[network.version]
    if not least <= config.mtu <= MOST_OVERLAY_MTU:
        raise OverlayError(f"{source}: mtu {config.mtu} is not between {least} and {MOST_OVERLAY_MTU} bytes")
    holders: dict[str, str] = {}
    for node in config.members:
        _check_peer(node, source)
        if ip_address(node.address) not in network:
            raise OverlayError(f"{source}: {node.name} has {node.address}, outside the host overlay {network}")
        if node.endpoint is not None and not is_named(node.endpoint) and _host(node.endpoint) in network:
            raise OverlayError(
                f"{source}: {node.name} has endpoint {node.endpoint}, inside the host overlay {network}: WireGuard's "
                "packets would enter their own tunnel; give the address that the node has outside the overlay"
            )
        values = (node.name, *node.public_keys, node.address, probe_address(node.address))
        for value in values:
            if value in holders:
                raise OverlayError(f"{source}: {value} belongs to both {holders[value]} and {node.name}")
        holders.update(dict.fromkeys(values, node.name))


def check_pod_routes(routes: PodRoutes, source: str = "pod-routes.json") -> None:
    """Raise OverlayError if a subnet is not a network, lies outside the pod overlay or overlaps another.

    So too if a service network is not a network or overlaps the pod overlay.
    """
    try:
        pools = [ip_network(cidr) for cidr in routes.pod_cidrs]
        services = [ip_network(cidr) for cidr in routes.service_cidrs]
        held = [(ip_network(cidr), node) for node in sorted(routes.subnets) for cidr in routes.subnets[node]]
    except ValueError as error:
        raise OverlayError(f"{source}: {error}") from error
    for service, pool in itertools.product(services, pools):
        if service.version == pool.version and service.overlaps(pool):
            raise OverlayError(f"{source}: the service network {service} overlaps the pod overlay {pool}")
    held.sort(key=lambda item: (item[0].version, int(item[0].network_address), item[0].prefixlen))
    for subnet, node in held:
        if not any(pool.version == subnet.version and subnet.subnet_of(pool) for pool in pools):  # type: ignore[arg-type]
            raise OverlayError(f"{source}: {subnet} of {node} is outside the pod overlay {', '.join(routes.pod_cidrs)}")
    for (subnet, node), (following, other) in itertools.pairwise(held):
        if subnet.version == following.version and subnet.overlaps(following):
            raise OverlayError(f"{source}: {subnet} of {node} overlaps {following} of {other}")


def _check_peer(peer: OverlayPeer, source: str) -> None:
    if not is_node_name(peer.name):
        raise OverlayError(
            f"{source}: {peer.name!r} is not a node's name: use letters, digits, '-', '_' and '.', 253 at most"
        )
    for public_key in peer.public_keys:
        if not _is_key(public_key):
            raise OverlayError(f"{source}: {peer.name} has public key {public_key!r}, not 32 bytes in base64")
    try:
        ip_address(peer.address)
    except ValueError as error:
        raise OverlayError(f"{source}: {peer.name} has address {peer.address!r}: {error}") from error
    is_text = peer.endpoint is None or isinstance(peer.endpoint, str)
    if not is_text or (peer.endpoint is not None and parse_public_endpoint(peer.endpoint) != peer.endpoint):
        raise OverlayError(f"{source}: {peer.name} has endpoint {peer.endpoint!r}, not address:port or name:port")


def _host(endpoint: str) -> IPv4Address | IPv6Address:
    return ip_address(endpoint_host(endpoint))


def _address_order(peer: OverlayPeer) -> tuple[int, int]:
    address = ip_address(peer.address)
    return (address.version, int(address))


def _is_key(public_key: object) -> bool:
    try:
        return isinstance(public_key, str) and len(base64.b64decode(public_key, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _next_key(public_key: str | None) -> dict[str, str]:
    """Return the entry of a next key; none outside of a rotation, so that the file is as former versions write it."""
    return {} if public_key is None else {"next_public_key": public_key}


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise OverlayError(f"{source}: not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise OverlayError(f"{source}: not of schema {SCHEMA}; run the playbook again")
    return data


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"
