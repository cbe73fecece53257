#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show what the WireGuard overlay's agents cost as the cluster grows: bytes on the underlay and CPU, idle and in use.

The agents' path selection and messages run as they are; WireGuard, NATs and time are simulated. Bytes are those of IPv4
packets: of the agents' messages, and of WireGuard's own handshakes every two minutes. CPU is that of path selection and
of encoding and decoding messages, without the system calls around them. Beside it stands the arithmetic of a full mesh
in which every pair sends WireGuard's persistent keepalive every 25 s, as KubeSpan and Flannel's WireGuard backend do.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))

from ansible_collections.evio.cni.tests.unit.overlay_network import Network

RELAYS = 2

MEASURED = RELAYS
"""The number of the node that is measured: it knows all others. The other nodes know whom they talk to."""

WARM_UP = 25.0
"""Seconds before the measurement."""

REKEY = (20 + 8) * 3 + 148 + 92 + 32
"""Bytes of a WireGuard handshake of a pair: initiation, response, and the keepalive that confirms it."""

REKEY_SECONDS = 120.0
"""REKEY_AFTER_TIME of WireGuard."""

KEEPALIVE = 20 + 8 + 32
KEEPALIVE_SECONDS = 25.0


@dataclass(frozen=True)
class Cost:
    """What a node and a relay send in B/s, and use of a core in percent."""

    node_out: float
    relay_out: float
    node_cpu: float
    relay_cpu: float


def measure(nodes: int, pairs: int, seconds: float) -> Cost:
    """Return the cost with so many nodes in all, of which each but the relays talks to ``pairs`` others."""
    ring = range(RELAYS, nodes)

    def partners(index: int) -> set[int]:
        steps = [step for step in range(-(pairs // 2), pairs // 2 + 1) if step]
        return {RELAYS + (index - RELAYS + step) % len(ring) for step in steps}

    known = {index: partners(index) for index in ring}
    network = Network(
        RELAYS,
        nodes - RELAYS,
        delay=0.02,
        knows=lambda index, other: index <= MEASURED or other <= MEASURED or other in known[index],
    )
    network.run(5.0)
    for index in ring:
        for other in known[index]:
            network.talk(index, other)
    network.run(WARM_UP)
    node, relay = (network.peers[index].address for index in (MEASURED, 0))
    for other in known[MEASURED]:
        assert network.hop(MEASURED, other) == network.peers[other].name
    before = {address: (network.sent[address], network.cpu[address]) for address in (node, relay)}
    network.run(seconds)
    (node_out, node_cpu), (relay_out, relay_cpu) = (
        ((network.sent[address] - sent) / seconds, 100 * (network.cpu[address] - cpu) / seconds)
        for address, (sent, cpu) in before.items()
    )
    return Cost(node_out + rekeys(RELAYS + len(known[MEASURED])), relay_out + rekeys(nodes - 1), node_cpu, relay_cpu)


def rekeys(sessions: int) -> float:
    """Return the B/s of handshakes that one end of so many WireGuard sessions sends."""
    return sessions * REKEY / 2 / REKEY_SECONDS


def full_mesh(nodes: int) -> float:
    """Return the B/s that each node of a full mesh of keepalives sends."""
    return (nodes - 1) * KEEPALIVE / KEEPALIVE_SECONDS + rekeys(nodes - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1000], help="nodes, 2 relays among them")
    parser.add_argument("--pairs", type=int, nargs="+", default=[0, 10], help="pairs in use at each node")
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated seconds (default: %(default)s)")
    arguments = parser.parse_args()
    print("nodes  in use at each  node out  relay out a node  node CPU  relay CPU   full mesh of keepalives, node out")
    for pairs in arguments.pairs:
        for nodes in arguments.sizes:
            cost = measure(nodes, pairs, arguments.seconds)
            mesh = full_mesh(nodes)
            print(
                f"{nodes:5}  {f'{pairs} pairs' if pairs else 'nothing':14}  {cost.node_out:4.0f} B/s  "
                f"{cost.relay_out / (nodes - 1):12.1f} B/s  {cost.node_cpu:6.3f} %  {cost.relay_cpu:7.3f} %   "
                f"{mesh:5.0f} B/s, {mesh / cost.node_out:.1f} times ours",
                flush=True,
            )


if __name__ == "__main__":
    main()
