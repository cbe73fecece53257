# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node's nftables rules for the overlay: what pods and other nodes reach by its interface and at its services.

Chains in our own table. A drop of theirs is final; a packet that they let through still passes every other chain of
the same hook. docs/security.md says what the rules are for. The overlay's agent keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import collapse_addresses, ip_network

from ..cidr import AF_INET, family
from ..kernel import nft
from ..names import short_hash
from .network_rules import FAMILY, TABLE, NetworkRules

_PREFIX = "overlay-"

_FORWARD_HOOK = "type filter hook forward priority filter; policy accept;"

_INPUT_HOOK = "type filter hook input priority filter; policy accept;"


@dataclass(frozen=True)
class OverlayNetworks:
    """What the rules have to know of the overlay. Networks are in CIDR notation, of either IP version."""

    interface: str
    """The overlay's interface."""
    networks: tuple[str, ...]
    """The networks of all host overlay addresses and of all pods."""
    own_subnets: tuple[str, ...]
    """The pod subnets of this node."""
    probe_addresses: tuple[str, ...]
    """This node's IPv4 addresses for the agents' messages: nothing but another node's agent may send to them."""
    probe_port: int
    """UDP port of these messages, at both ends."""


def overlay_rules(overlay: OverlayNetworks) -> NetworkRules:
    """Return the rules of the overlay's interface; the chains' names contain a hash of their content."""
    forward, received = _forward_rules(overlay), _input_rules(overlay)
    name = _PREFIX + short_hash("\n".join([*forward, "-", *received]))
    return NetworkRules(
        _PREFIX, {f"{name}-forward": (_FORWARD_HOOK, forward), f"{name}-input": (_INPUT_HOOK, received)}
    )


def openflow_rules(ports: Iterable[int]) -> NetworkRules:
    """Return the rules that leave TCP ports to this node alone: EdgeVPN.io's OpenFlow controller serves everyone."""
    rules = [
        f'iifname != "lo" tcp dport {{ {", ".join(map(str, ports))} }} drop comment "OpenFlow: this node alone"',
    ]
    name = f"{_PREFIX}{short_hash(rules[0])}-openflow"
    return NetworkRules(_PREFIX, {name: (_INPUT_HOOK, rules)})


def remove_overlay_rules() -> None:
    """Delete the rules of the overlay's interface, and our table if nothing else is in it. Raises NftError."""
    chains = nft.chains(TABLE, FAMILY)
    ours = [name for name in chains if name.startswith(_PREFIX)]
    if not ours:
        return
    lines = [f"{verb} chain {FAMILY} {TABLE} {name}" for name in ours for verb in ("flush", "delete")]
    nft.apply("\n".join(lines if len(ours) < len(chains) else [f"delete table {FAMILY} {TABLE}"]) + "\n")


def _forward_rules(overlay: OverlayNetworks) -> list[str]:
    incoming, outgoing = f'iifname "{overlay.interface}"', f'oifname "{overlay.interface}"'
    return [
        # Probe addresses are no part of the overlay's networks: the agents send to them, and no packet is forwarded.
        *_drop_unless("daddr", overlay.networks, outgoing, "to the overlay: only nodes and pods, no probe address"),
        f'iifname != "{overlay.interface}" accept',
        *_drop_unless("saddr", overlay.networks, incoming, "from the overlay: only nodes and pods"),
        # The node is a relay. Here conntrack is not asked: a relay may see one direction of a connection alone.
        f"{outgoing} accept",
        *(f"{_ip(subnet)} daddr {subnet} accept" for subnet in overlay.own_subnets),
        *_ANSWERED_OR_TRANSLATED,
        'drop comment "from the overlay: not to the LAN or the internet of this node"',
    ]


def _input_rules(overlay: OverlayNetworks) -> list[str]:
    incoming = f'iifname "{overlay.interface}"'
    probes = f"ip daddr {_any_of(overlay.probe_addresses)}"
    port = overlay.probe_port
    ipv4 = [cidr for cidr in overlay.networks if family(cidr) == AF_INET]
    from_probe_address = f"ip saddr != {_any_of(ipv4)} " if ipv4 else ""
    return [
        f'{incoming} {probes} {from_probe_address}udp sport {port} udp dport {port} accept comment "agents"',
        f'{probes} iifname != "lo" drop comment "only the agents of other nodes send to the probe address"',
        f'iifname != "{overlay.interface}" accept',
        *_drop_unless("saddr", overlay.networks, incoming, "from the overlay: only nodes and pods"),
        *_ANSWERED_OR_TRANSLATED,
        *_drop_unless("daddr", overlay.networks, incoming, "from the overlay: only this node's overlay addresses"),
    ]


_ANSWERED_OR_TRANSLATED = (
    "ct state established,related accept",
    # A NodePort or hostPort: this node itself has chosen the destination.
    "ct status dnat accept",
)


def _drop_unless(key: str, networks: Iterable[str], interface: str, comment: str) -> list[str]:
    """Return a rule for each IP version that drops packets with this address in none of the networks."""
    rules = []
    for ip in ("ip", "ip6"):
        inside = [cidr for cidr in networks if _ip(cidr) == ip]
        match = f"{ip} {key} != {_any_of(inside)}" if inside else f"meta nfproto {'ipv4' if ip == 'ip' else 'ipv6'}"
        rules.append(f'{interface} {match} drop comment "{comment}"')
    return rules


def _ip(cidr: str) -> str:
    return "ip" if family(cidr) == AF_INET else "ip6"


def _any_of(networks: Iterable[str]) -> str:
    """Return an anonymous set for nft, which refuses networks that overlap. All are of one IP version."""
    return f"{{ {', '.join(map(str, collapse_addresses(map(ip_network, networks))))} }}"  # type: ignore[type-var]
