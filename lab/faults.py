"""What goes wrong in life, done to the lab on purpose: a link that carries nothing, a router that forgets, a reboot."""

from __future__ import annotations

from pathlib import Path

import network
import nodes
from commands import LabError, in_netns, run
from state import Lab
from topology import Node, Router, Topology


def cut(lab: Lab, node: Node) -> None:
    """Let nothing pass between the node's site and the public segment; links stay up, so nobody is told."""
    network.set_uplink(lab.prefix, network.uplink_port(node), is_up=False)


def heal(lab: Lab, node: Node) -> None:
    """Undo a cut."""
    network.set_uplink(lab.prefix, network.uplink_port(node), is_up=True)


def forget(lab: Lab, topology: Topology, node: Node) -> None:
    """Make the node's router lose its connections and translations, as its restart does.

    Raises LabError if the node has no router.
    """
    router = _router(topology, node)
    conntrack = str(Path(__file__).with_name("conntrack.py"))
    run(*in_netns(lab.netns(router.name), ["/usr/bin/python3", conntrack]))


def switch_nat(lab: Lab, topology: Topology, node: Node, nat: str) -> None:
    """Make the node's router translate in another way from now on (topology.NAT_TYPES), old translations forgotten."""
    changed = topology.with_nat(_router(topology, node), nat)
    network.set_nat(lab.prefix, changed, _router(changed, node))
    forget(lab, changed, node)
    lab.write(changed, is_complete=True)


def readdress(lab: Lab, topology: Topology, node: Node) -> None:
    """Give the node's site another public address, with IPv6 another prefix, as a provider does over night."""
    router = _router(topology, node)
    changed = topology.with_other_address(router)
    network.readdress(lab.prefix, topology, changed, router.name)
    lab.write(changed, is_complete=True)


def reboot(lab: Lab, topology: Topology, node: Node) -> None:
    """Stop a node and start it again: its files stay, its processes and the state of its network do not."""
    nodes.reboot(lab, topology, node)


def _router(topology: Topology, node: Node) -> Router:
    router = topology.router_of(node)
    if router is None:
        raise LabError(f"{node.name} is public: there is no router in front of it")
    return router
