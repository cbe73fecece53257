# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell this node's WireGuard agent the pod subnets of all nodes, as their claims in etcd say: without Ansible.

In a cluster that grows by itself, other nodes claim their subnets at any time. The agent reads the file when it has
changed; the role ``overlay`` writes the same file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_network

from .. import paths
from ..claims.model import Snapshot
from ..claims.registry import Registry
from ..etcd.access import Access
from ..etcd.client import Etcd
from ..managed_file import ManagedFile
from ..overlay.wireguard.config import (
    PodRoutes,
    check_pod_routes,
    keep_subnets,
    parse_pod_routes,
    render_pod_routes,
)

_MODE = 0o600


class PodRoutesKeeper:
    """Keeps the file of the pod routes of one node like the claims of one cluster."""

    def __init__(
        self,
        access: Access,
        cluster: str,
        *,
        config_file: str = paths.OVERLAY_CONFIG,
        routes_file: str = paths.POD_ROUTES_CONFIG,
    ) -> None:
        """``config_file`` tells whether the node has a WireGuard overlay at all."""
        self._access = access
        self._cluster = cluster
        self._config_file = config_file
        self._routes_file = routes_file
        self._revision = 0
        """etcd's revision at which the claims were read last."""

    def update(self) -> list[str]:
        """Write the file if claims have changed. Return the nodes whose routes were written or removed.

        A node that has lost its claim without a release, as after a loss of etcd's data, keeps its routes. Raises
        EvioError; the file is as before then.
        """
        if not os.path.exists(self._config_file):
            return []
        with Etcd(self._access) as etcd:
            snapshot = Registry(etcd, self._cluster).read_if_changed(self._revision)
        if snapshot is None or snapshot.pool_config is None:
            return []
        file = ManagedFile(self._routes_file, mode=_MODE)
        existing = parse_pod_routes(file.text, self._routes_file) if file.text is not None else PodRoutes()
        wanted = wanted_routes(snapshot, existing)
        check_pod_routes(wanted, "the claims")
        change = file.change_to(render_pod_routes(wanted))
        change.apply()
        self._revision = snapshot.revision
        return _differing(wanted.subnets, existing.subnets)


def wanted_routes(snapshot: Snapshot, existing: PodRoutes) -> PodRoutes:
    """Return the routes of all claims, and of nodes that have routes and lost their claim without a release."""
    config = snapshot.pool_config
    pools = (*config.pools, *config.former) if config is not None else ()
    claimed = PodRoutes(
        tuple(pool.pod_cidr for pool in pools), {claim.node: tuple(claim.cidrs) for claim in snapshot.claims.values()}
    )
    lost = [
        node
        for node, cidrs in existing.subnets.items()
        if node not in claimed.subnets
        and not any(cidr in snapshot.released or _overlaps(cidr, claimed.subnets) for cidr in cidrs)
    ]
    return keep_subnets(claimed, existing, lost)


def _overlaps(cidr: str, subnets: Mapping[str, tuple[str, ...]]) -> bool:
    network = ip_network(cidr)
    others = (ip_network(other) for cidrs in subnets.values() for other in cidrs)
    return any(other.version == network.version and other.overlaps(network) for other in others)


def _differing(one: Mapping[str, tuple[str, ...]], other: Mapping[str, tuple[str, ...]]) -> list[str]:
    return sorted(node for node in {*one, *other} if one.get(node) != other.get(node))
