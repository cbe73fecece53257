# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod routes that a node without Ansible writes from the claims: which node keeps, gets and loses its routes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Claim, PoolConfig, Released, Snapshot
from ansible_collections.evio.cni.plugins.module_utils.node.pod_routes import wanted_routes
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import PodRoutes
from ansible_collections.evio.cni.plugins.module_utils.subnets import Pool

POD_CIDR = "10.244.0.0/16"


def snapshot(claims: Mapping[str, str], released: Mapping[str, str]) -> Snapshot:
    return Snapshot(
        PoolConfig((Pool(POD_CIDR, 8),)),
        {node: Claim(node, f"id-{node}", (cidr,), 0.0, 1) for node, cidr in claims.items()},
        {cidr: Released(node, 0.0) for cidr, node in released.items()},
    )


@pytest.mark.parametrize(
    ("claims", "released", "existing", "wanted"),
    [
        pytest.param({"node1": "10.244.0.0/24"}, {}, {}, {"node1": "10.244.0.0/24"}, id="a new claim"),
        pytest.param({}, {"10.244.0.0/24": "node1"}, {"node1": "10.244.0.0/24"}, {}, id="a released claim"),
        pytest.param(
            {},
            {},
            {"node1": "10.244.0.0/24"},
            {"node1": "10.244.0.0/24"},
            id="a claim that etcd has lost with its data",
        ),
        pytest.param(
            {"node2": "10.244.0.0/24"},
            {},
            {"node1": "10.244.0.0/24"},
            {"node2": "10.244.0.0/24"},
            id="a lost claim whose subnet is another node's now",
        ),
        pytest.param(
            {"node2": "10.244.0.0/23"},
            {},
            {"node1": "10.244.1.0/24"},
            {"node2": "10.244.0.0/23"},
            id="a lost claim whose subnet overlaps another node's",
        ),
        pytest.param(
            {"node1": "10.244.5.0/24"},
            {"10.244.0.0/24": "node1"},
            {"node1": "10.244.0.0/24"},
            {"node1": "10.244.5.0/24"},
            id="a node with another subnet",
        ),
    ],
)
def test_routes_follow(
    claims: dict[str, str], released: dict[str, str], existing: dict[str, str], wanted: dict[str, str]
) -> None:
    before = PodRoutes((POD_CIDR,), {node: (cidr,) for node, cidr in existing.items()})
    after = wanted_routes(snapshot(claims, released), before)
    assert after == PodRoutes((POD_CIDR,), {node: (cidr,) for node, cidr in wanted.items()})
