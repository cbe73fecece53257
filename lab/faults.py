"""Faults to inject into the lab: a cut link, a router that forgets or translates otherwise, a new address, a reboot."""

from __future__ import annotations

from pathlib import Path

import network
import nodes
from commands import LabError, in_netns, run
from state import Lab
from topology import Node, Router, Topology


def cut(lab: Lab, node: Node) -> None:
    """Drop all packets between the node's site and the public segment; links keep their carrier."""
    network.set_uplink(lab.prefix, network.uplink_port(node), is_up=False)


def heal(lab: Lab, node: Node) -> None:
    """Undo a cut."""
    network.set_uplink(lab.prefix, network.uplink_port(node), is_up=True)


def forget(lab: Lab, topology: Topology, node: Node) -> None:
    """Make the node's router lose its connections and translations, as a restart of it does.

    Raises LabError if the node has no router.
    """
    router = _router(topology, node)
    conntrack = str(Path(__file__).with_name("conntrack.py"))
    run(*in_netns(lab.netns(router.name), ["/usr/bin/python3", conntrack]))


def switch_nat(lab: Lab, topology: Topology, node: Node, nat: str) -> None:
    """Change how the node's router translates (topology.NAT_TYPES); it forgets the translations it had."""
    changed = topology.with_nat(_router(topology, node), nat)
    network.set_nat(lab.prefix, changed, _router(changed, node))
    forget(lab, changed, node)
    lab.write(changed, is_complete=True)


def readdress(lab: Lab, topology: Topology, node: Node) -> None:
    """Give the node's site another public address, with IPv6 also another prefix, as providers do."""
    router = _router(topology, node)
    changed = topology.with_other_address(router)
    network.readdress(lab.prefix, topology, changed, router.name)
    lab.write(changed, is_complete=True)


def reboot(lab: Lab, topology: Topology, node: Node) -> None:
    """Stop a node and start it again: its files stay, its processes and network settings go."""
    nodes.reboot(lab, topology, node)


def _router(topology: Topology, node: Node) -> Router:
    router = topology.router_of(node)
    if router is None:
        raise LabError(f"{node.name} is public: it has no router")
    return router
