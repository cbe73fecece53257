# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the node's firewalls have to know of the overlay: its own rules, and what other chains must accept."""

from __future__ import annotations

import threading
from ipaddress import ip_address, ip_network

from ...errors import EvioError
from ...firewall import forwarding
from ...firewall.forwarding import Blocked, Need
from ...firewall.network_rules import NetworkRules
from ...firewall.overlay_rules import OverlayNetworks, overlay_rules
from ...firewall.verdict import Packet
from ...kernel.iproute import open_iproute
from .config import PROBE_PORT, OverlayConfig, PodRoutes, former_probe_address, probe_address

_ELSEWHERE = "8.8.8.8"
"""Stands for a host of the internet in a packet that is only thought of."""


class FirewallWatch:
    """Lets the node's firewalls accept the overlay's packets, in a thread: a program of theirs may take seconds."""

    def __init__(self) -> None:
        self.blocked: tuple[Blocked, ...] = ()
        """The chains that drop packets all the same, as the last look has found."""
        self._thread: threading.Thread | None = None

    def look(self, config: OverlayConfig, routes: PodRoutes) -> None:
        """Begin to look at the firewalls, unless the last look has not ended yet."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, args=(config, routes), daemon=True)
            self._thread.start()

    def _look(self, config: OverlayConfig, routes: PodRoutes) -> None:
        try:
            self.blocked = tuple(forwarding.accept(firewall_needs(config, routes, pod_bridge(config, routes))))
        except (EvioError, OSError, ValueError):
            # A ruleset that cannot be read says nothing about packets.
            self.blocked = ()


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


def pod_bridge(config: OverlayConfig, routes: PodRoutes) -> str | None:
    """Return the interface that has an address in this node's pod subnet; None where there is none yet."""
    subnets = [ip_network(cidr) for cidr in routes.subnets.get(config.node, ())]
    with open_iproute(config.interface) as ipr:
        for message in ipr.get_addr():
            address = ip_address(message.get_attr("IFA_ADDRESS") or "::")
            if any(address in subnet for subnet in subnets):
                [link] = ipr.get_links(message["index"])
                return str(link.get_attr("IFLA_IFNAME"))
    return None


def firewall_needs(config: OverlayConfig, routes: PodRoutes, bridge: str | None) -> list[Need]:
    """Return what the node's firewalls must accept: forwarded packets, and those to the overlay's and agent's ports.

    ``bridge`` is the pod bridge; None where there is none yet.
    """
    overlay, own = config.interface, routes.subnets.get(config.node, ())
    remote = [cidr for node, cidrs in sorted(routes.subnets.items()) if node != config.node for cidr in cidrs]
    packets = _relayed_packets(config)
    for subnet in own if bridge is not None else ():
        for other in [cidr for cidr in remote if (":" in cidr) == (":" in subnet)][:1]:
            pod, there = _host_in(subnet), _host_in(other)
            packets += [Packet(pod, there, bridge, overlay), Packet(there, pod, overlay, bridge)]
    if not packets:
        packets = [Packet(config.address, None, overlay, None), Packet(config.address, None, None, overlay)]
    needs = forwarding.forwarding_needs(overlay, packets)
    if bridge is not None:
        needs += forwarding.forwarding_needs(bridge, packets)
        needs += forwarding.pod_needs(bridge, [_host_in(subnet) for subnet in own])
    return needs + _input_needs(config)


def _relayed_packets(config: OverlayConfig) -> list[Packet]:
    if not config.is_relay or len(config.peers) < 2:
        return []
    first, second = (peer.address for peer in config.peers[:2])
    return [Packet(first, second, config.interface, config.interface)]


def _input_needs(config: OverlayConfig) -> list[Need]:
    needs = []
    if config.peers:
        source, own = probe_address(config.peers[0].address), probe_address(config.address)
        probe = Packet(source, own, config.interface, None, "udp", PROBE_PORT, PROBE_PORT)
        needs.append(forwarding.input_need(probe, config.interface))
    if config.is_relay:
        # Other nodes send first. A node behind a NAT gets answers alone, which every firewall accepts.
        encrypted = Packet(_ELSEWHERE, None, forwarding.uplink(), None, "udp", None, config.listen_port)
        needs.append(forwarding.input_need(encrypted))
    return needs


def _host_in(cidr: str) -> str:
    """Return the second host address of a subnet, which a pod may have."""
    network = ip_network(cidr)
    return str(network[min(2, network.num_addresses - 1)])
