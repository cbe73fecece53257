# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Clusters of any size as the nodes would tell them, for tests of the status page: nothing in them is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ansible_collections.evio.cni.plugins.module_utils.overview.answers import NodeAnswer
from ansible_collections.evio.cni.plugins.module_utils.overview.cluster import Cluster, cluster_of
from ansible_collections.evio.cni.plugins.module_utils.subnets import Pool

NOW = 1_790_000_000.0
_DAY = 86400.0


_ERRORS = [
    {
        "time": NOW - 40,
        "unit": "containerd.service",
        "message": "ADD of shop/web-2: nothing serves the OVSDB at unix:/run/ovs/db.sock: is ovs-vswitchd running?",
        "severity": "error",
        "count": 120,
    },
    {
        "time": NOW - 7200,
        "unit": "evio-overlay.service",
        "message": "cannot resolve the endpoint relay.example:51820 of cloud2; its last address stays in use",
        "severity": "warning",
        "count": 1,
    },
]
"""What the journal of a node with faults has."""


def example_cluster(nodes: int, *, node_bits: int = 8, seed: int = 1, faults: bool = False) -> Cluster:
    """Return a cluster with a relay or more; with ``faults`` some nodes are silent, cut off or out of order."""
    chance = random.Random(seed)
    relays = max(1, nodes // 100)
    pool = Pool("10.244.0.0/16" if node_bits <= 8 else "10.128.0.0/9", node_bits)
    names = [f"cloud{number}" if number <= relays else f"edge{number - relays}" for number in range(1, nodes + 1)]
    sites = _sites(names, relays, chance)
    pairs = {}
    for first in range(nodes):
        for second in range(first + 1, nodes):
            lot = chance.random() * nodes
            few = nodes <= 4
            is_direct = first < relays or lot < (0 if few else 1.5)
            pairs[first, second] = "direct" if is_direct else "relayed" if few or lot < 2 else "idle"
    answers = []
    for index, name in enumerate(names):
        is_silent = faults and index == nodes - 1
        claim = pool.subnet(index).cidr
        status = node_status(
            name,
            address=f"10.10.{index // 250}.{index % 250 + 1}",
            subnet=claim,
            is_relay=index < relays,
            pods=chance.randrange(2, 14) if nodes > 4 else 2,
            peers=[
                _peer(names[other], other, pairs[min(index, other), max(index, other)], names[0], sites, relays, chance)
                for other in range(nodes)
                if other != index
            ],
        )
        if faults and index == 1:
            status["errors"] = _ERRORS
            status["problems"].append(
                {
                    "severity": "error",
                    "what": "network evio is not ready for pods: nothing serves the OVSDB: is ovs-vswitchd running?",
                    "remedy": "systemctl restart openvswitch-switch",
                    "run_on": "node",
                }
            )
        if faults and index % 7 == 3:
            status["problems"].append(
                {
                    "severity": "warning",
                    "what": "/etc/kubernetes/pki/apiserver.crt expires in 12 days",
                    "remedy": "kubeadm certs renew all",
                    "run_on": "node",
                }
            )
        answers.append(
            NodeAnswer(
                name,
                None if is_silent else status,
                "Failed to connect to the host via ssh: Connection timed out" if is_silent else None,
                public_endpoint=f"198.51.100.{index + 1}" if index < relays else "",
            )
        )
    return cluster_of("kubernetes", answers, registry(pool, names), None, NOW)


def node_status(
    name: str,
    *,
    address: str = "10.10.0.1",
    subnet: str = "10.244.0.0/24",
    is_relay: bool = False,
    pods: int = 2,
    peers: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return what a node in order tells of itself."""
    base = subnet.partition("/")[0].rpartition(".")[0]
    return {
        "schema": 1,
        "time": NOW,
        "hostname": name,
        "node": name,
        "cluster": "kubernetes",
        "versions": {
            "evio": "evio-0123456789abcdef",
            "collection": "0.1.0",
            "python": "3.11.2",
            "kernel": "6.1.0-38-amd64",
            "openvswitch": "3.1.0",
            "cni": ["0.4.0", "1.0.0", "1.1.0"],
        },
        "services": [
            {"name": "evio-overlay.service", "state": "active", "is_enabled": True, "restarts": 0},
            {"name": "ovs-vswitchd.service", "state": "active", "is_enabled": True, "restarts": 0},
        ],
        "overlay": {
            "interface": "evio0",
            "device": "kernel",
            "address": address,
            "mtu": 1420,
            "is_relay": is_relay,
            "public_endpoint": "198.51.100.1:51820" if is_relay else None,
            "listen_port": 51820,
            "age_seconds": 1.5,
            "fault": None,
            "blocked": [],
            "summary": "",
            "peers": list(peers),
            "key_age_seconds": 40 * _DAY,
            "is_rekeying": False,
        },
        "overlay_fault": None,
        "claim": {"subnets": [subnet], "epoch": 7, "fence": None},
        "has_rules": True,
        "networks": [
            {
                "network": "evio",
                "bridge": "br-evio",
                "gateways": [f"{base}.1/24"],
                "epoch": 7,
                "verdict": None,
                "reserved": pods,
                "mtu": 1420,
                "overlay": "",
                "room": [{"subnet": subnet, "size": 253, "reserved": pods}],
                "pods": [
                    {
                        "container_id": f"{number:064x}",
                        "ifname": "eth0",
                        "addresses": [f"{base}.{number + 2}/24"],
                        "state": "plugged in",
                        "mtu": 1420,
                        "namespace": "shop",
                        "name": f"web-{number}-{name}",
                    }
                    for number in range(pods)
                ],
                "rules": "installed",
                "faults": [],
            }
        ],
        "networks_fault": None,
        "runtime_fault": None,
        "certificates": [
            {
                "path": "/etc/kubernetes/pki/apiserver-etcd-client.crt",
                "subject": "kube-apiserver-etcd-client",
                "valid_from": NOW - 65 * _DAY,
                "expires": NOW + 300 * _DAY,
                "error": None,
                "renewed_by": "kubeadm",
                "is_ca": False,
            }
        ]
        if is_relay
        else [],
        "errors": [],
        "faults": [],
        "problems": [],
    }


def registry(pool: Pool, names: Sequence[str]) -> dict[str, Any]:
    """Return what etcd has: a claim of each node, and subnets that are in quarantine, pinned or reserved."""
    claimed = len(names)
    quarantined = [pool.subnet(claimed + number).cidr for number in range(2)]
    reserved = [pool.subnet(pool.size - 1).cidr, pool.subnet(pool.size - 2).cidr]
    return {
        "pools": [
            {
                "pod_cidr": pool.pod_cidr,
                "node_bits": pool.node_bits,
                "size": pool.size,
                "claimed": claimed,
                "quarantined": 2,
                "reserved": 2,
                "free": pool.size - claimed - 4,
            }
        ],
        "reserved_cidrs": reserved,
        "pins": {"edge-new": [pool.subnet(claimed + 4).cidr]},
        "claims": [
            {"node": name, "machine_id": "0" * 32, "cidrs": [pool.subnet(index).cidr], "epoch": 7, "age": 40 * _DAY}
            for index, name in enumerate(names)
        ],
        "released": [
            {"cidr": cidr, "node": f"gone{number}", "age": 600.0, "state": "quarantined"}
            for number, cidr in enumerate(quarantined)
        ],
    }


def _sites(names: Sequence[str], relays: int, chance: random.Random) -> dict[str, str]:
    """Return the outside address of each node: a few large sites and many small ones."""
    sites, number = {}, 0
    rest = list(names[relays:])
    while rest:
        size = chance.choice([1, 1, 2, 3, 5, 12]) if len(names) > 4 else 1
        number += 1
        for name in rest[:size]:
            sites[name] = f"203.0.{113 + number // 250}.{number % 250}"
        rest = rest[size:]
    return sites | {name: f"198.51.100.{index + 1}" for index, name in enumerate(names[:relays])}


def _peer(
    name: str, index: int, kind: str, relay: str, sites: dict[str, str], relays: int, chance: random.Random
) -> dict[str, Any]:
    is_direct = kind == "direct"
    return {
        "name": name,
        "address": f"10.10.{index // 250}.{index % 250 + 1}",
        "kind": kind,
        "path": "direct" if is_direct else relay,
        "rtt_ms": round(chance.uniform(4, 90), 1) if is_direct else None,
        "endpoint": f"{sites[name]}:51820" if is_direct else None,
        "is_relay": index < relays,
        "handshake_age": chance.uniform(0, 130) if is_direct else None,
        "received_bytes": chance.randrange(10**9),
        "sent_bytes": chance.randrange(10**9),
        "underlay_mtu": 1500 if is_direct else None,
    }
