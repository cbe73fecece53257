"""Services without Kubernetes: for each pod an address that every node translates to it, as kube-proxy's rules do.

proof.py puts the rules into the nodes and takes them away again; probes.py asks the addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_network

import nodes
import pods
from commands import run
from pods import Pod
from state import Lab
from topology import Node

PORT = 80

_NETWORK = ip_network("10.96.0.0/12")
"""The default of evio_service_network. The last addresses are used, which Kubernetes hardly gives to a Service."""

_TABLE = "ip evio_lab_services"

_NO_TABLE = f"add table {_TABLE}\ndelete table {_TABLE}\n"
"""Commands that work whether there is the table or not."""


def addresses(running: Sequence[Pod]) -> dict[str, str]:
    """Return the address of each pod's Service by the pod's name."""
    return {pod.name: str(_NETWORK[-2 - number]) for number, pod in enumerate(running)}


@contextmanager
def translated(lab: Lab, running: Sequence[Pod]) -> Iterator[Mapping[str, str]]:
    """Let every node translate the Services' addresses during the block; give them by the pods' names.

    Raises LabError if a node refuses the rules.
    """
    services = addresses(running)
    try:
        _on_every_node(lab, _NO_TABLE + _ruleset(running, services))
        yield services
    finally:
        _on_every_node(lab, _NO_TABLE)


def _ruleset(running: Sequence[Pod], services: Mapping[str, str]) -> str:
    """Return nft's commands: translate what pods and the node itself send, and drop what conntrack calls invalid.

    A pod that is its own backend is masqueraded: it would take a packet from its own address for a forgery.
    """
    translations = [
        f"ip daddr {services[pod.name]} tcp dport {PORT} dnat to {pod.address}:{pods.PORT}" for pod in running
    ]
    chains = {
        "pods": ("nat hook prerouting priority -100", translations),
        "node": ("nat hook output priority -100", translations),
        "hairpin": (
            "nat hook postrouting priority 99",
            [f"ct status dnat ip saddr {pod.address} ip daddr {pod.address} masquerade" for pod in running],
        ),
        "invalid": ("filter hook forward priority -1", ["ct state invalid drop"]),
    }
    lines = [f"add table {_TABLE}"]
    for name, (hook, rules) in chains.items():
        lines.append(f"add chain {_TABLE} {name} {{ type {hook}; }}")
        lines += [f"add rule {_TABLE} {name} {rule}" for rule in rules]
    return "\n".join(lines) + "\n"


def _on_every_node(lab: Lab, ruleset: str) -> None:
    def apply(node: Node) -> None:
        run(*nodes.command(lab, node, ["nft", "-f", "-"]), stdin=ruleset)

    with ThreadPoolExecutor(max_workers=16) as workers:
        list(workers.map(apply, lab.topology().nodes))
