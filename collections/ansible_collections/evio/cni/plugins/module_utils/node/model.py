# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node tells of itself, as types: ``status`` reads it, ``problems`` says what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .certificates import Certificate
from .report import NetworkStatus
from .services import LoggedError, Service

IDLE, RELAYED, NONE = "idle", "relayed", "none"
"""Kinds of ways to a peer beside DIRECT: by a relay while nothing is sent, by a relay, and none."""


@dataclass(frozen=True)
class Peer:
    """The way to another node of the host overlay."""

    name: str
    address: str
    """Its host overlay address."""
    kind: str
    """DIRECT, RELAYED, IDLE or NONE."""
    path: str | None
    """DIRECT, the name of the relay, or None."""
    rtt_ms: float | None
    endpoint: str | None
    """``address:port`` to which packets are sent on the direct way; None if it is not known."""
    is_relay: bool = False
    handshake_age: float | None = None
    """Seconds since WireGuard's last handshake; None without one, and with EdgeVPN.io."""
    received_bytes: int | None = None
    sent_bytes: int | None = None
    """Counted by WireGuard since its interface was made; None with EdgeVPN.io."""
    underlay_mtu: int | None = None
    """Bytes of the largest packet that the kernel knows to reach the endpoint."""


@dataclass(frozen=True)
class Overlay:
    """The host overlay as this node sees it."""

    interface: str
    device: str
    """``kernel``, ``wireguard-go`` or ``EdgeVPN.io``."""
    address: str
    mtu: int | None
    """Bytes, of the interface; None if it does not exist."""
    is_relay: bool
    public_endpoint: str | None
    """At which all nodes reach this one; None behind a NAT."""
    listen_port: int | None
    age_seconds: float
    """Since the agent wrote its state."""
    fault: str | None
    blocked: tuple[str, ...]
    """One sentence for each chain of the node's firewalls that drops the overlay's packets."""
    summary: str
    peers: tuple[Peer, ...]
    key_age_seconds: float | None = None
    """Age of the node's WireGuard key; None without one."""
    is_rekeying: bool = False
    """Whether a rotation of WireGuard keys is not finished: two keys of a node are accepted."""


@dataclass(frozen=True)
class Claim:
    """The pod subnets that this node is configured with."""

    subnets: tuple[str, ...]
    epoch: int
    fence: str | None
    """Why new pods are refused; None if they are not."""


@dataclass(frozen=True)
class Versions:
    """What runs on the node; None where it is not there or not known."""

    evio: str | None
    python: str
    kernel: str
    openvswitch: str | None
    cni: tuple[str, ...]
    collection: str | None = None
    """Version of the collection that the programs came with, such as 0.1.0; ``evio`` is the name of their archive."""


@dataclass(frozen=True)
class NodeStatus:
    """One node. The fields are the keys of ``evio status --json``, beside ``schema`` and ``problems``."""

    time: float
    """Seconds since 1970, by the node's clock."""
    hostname: str
    node: str
    """The name under which it was set up; empty before."""
    cluster: str
    versions: Versions
    services: tuple[Service, ...]
    overlay: Overlay | None
    overlay_fault: str | None
    """Why there is no overlay, although one is configured."""
    claim: Claim | None
    has_rules: bool | None
    """Whether nftables has the node's table; None if that cannot be asked."""
    networks: tuple[NetworkStatus, ...]
    networks_fault: str | None
    """Why the node has no network for pods; None where it has one, or is not set up for pods."""
    runtime_fault: str | None
    """Why the container runtime did not tell the pods' names; None where it did, or none was asked."""
    certificates: tuple[Certificate, ...]
    errors: tuple[LoggedError, ...]
    """The last ones, the newest first."""
    faults: tuple[str, ...] = field(default=())
    """What could not be read besides."""
