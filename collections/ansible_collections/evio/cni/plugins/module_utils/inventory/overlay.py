# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the nodes of a run must know of each other in the overlay: found out once, and handed on to all of them.

Pure. Lists of all nodes are JSON text or names with commas: Ansible hands a text on to each of N nodes at once, and a
list element by element, N times N.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..overlay.wireguard.config import PodRoutes, digest_of_pod_routes, render_pod_routes


@dataclass(frozen=True)
class OverlayNode:
    """One node: what the inventory says, and what this run has read on the node, None or empty if it has not."""

    name: str
    address: str
    endpoint: str | None = None
    edgevpn_id: str = ""
    has_told_key: bool = False
    public_key: str | None = None
    """The public key that the node has told; None in check mode if the run would make it."""
    next_public_key: str | None = None
    """The public key to which the node changes while keys are rotated; None at other times."""
    measured_mtu: int | None = None
    cidrs: tuple[str, ...] | None = None
    """The pod subnets of the node's claim."""
    configured_cidrs: tuple[str, ...] = ()


def describe_nodes(
    nodes: Sequence[OverlayNode],
    run: Iterable[str],
    other_subnets: Mapping[str, Any],
    *,
    pod_cidrs: Sequence[str] = (),
    service_cidrs: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what overlay_nodes_info returns. ``other_subnets``: claims of nodes that this run has not asked."""
    in_run = frozenset(run)
    asked = [node for node in nodes if node.has_told_key]
    claimants = [node for node in nodes if node.cidrs is not None]
    pod_subnets = {**other_subnets, **{node.name: list(node.cidrs or ()) for node in claimants}}
    digest = None
    # A node whose claim is not known keeps what each node knows of it.
    if pod_cidrs and len(claimants) == len(nodes):
        routes = PodRoutes(tuple(pod_cidrs), pod_subnets, tuple(service_cidrs))
        digest = digest_of_pod_routes(render_pod_routes(routes))
    return {
        "addresses": json.dumps({node.name: node.address for node in nodes}),
        "edgevpn_ids": json.dumps({node.name: node.edgevpn_id for node in nodes}),
        "relays": [node.endpoint for node in nodes if node.endpoint],
        "outside": [node.name for node in nodes if node.name not in in_run],
        "members": json.dumps([_member(node) for node in asked]),
        "unasked": ",".join(node.name for node in nodes if not node.has_told_key),
        "mtu": min((node.measured_mtu for node in nodes if node.measured_mtu is not None), default=None),
        "pod_subnets": json.dumps(pod_subnets),
        "pod_routes_digest": digest,
        "without_claim": ",".join(node.name for node in nodes if node.cidrs is None),
        "has_new_claims": any(node.cidrs != node.configured_cidrs for node in claimants),
    }


def _member(node: OverlayNode) -> dict[str, str | None]:
    """Return an entry of the option members of wireguard_overlay."""
    member = {"name": node.name, "address": node.address, "public_key": node.public_key, "endpoint": node.endpoint}
    return {**member, "next_public_key": node.next_public_key} if node.next_public_key else member
