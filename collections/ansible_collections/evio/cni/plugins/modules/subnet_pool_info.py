#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that returns the pool, every claim and the number of free subnets; claims/registry reads etcd."""

from __future__ import annotations

DOCUMENTATION = r"""
module: subnet_pool_info
short_description: Return which node has which subnet, and how many are free
version_added: 0.1.0
description:
  - Reads the whole registry of a cluster in one call.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.etcd
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - python3-etcd3
options:
  cluster:
    description: The cluster's name. It is a part of the keys in etcd.
    type: str
    default: kubernetes
  quarantine:
    description: Seconds during which no node gets a released subnet.
    type: float
    default: 3600.0
"""

EXAMPLES = r"""
- name: Read which node has which subnet
  evio.cni.subnet_pool_info:
  register: pool
"""

RETURN = r"""
pools:
  description: The pool of each family, with numbers of subnets. Empty if nothing has been claimed yet.
  returned: success
  type: list
  elements: dict
  sample:
    - {pod_cidr: 10.244.0.0/16, node_bits: 8, size: 256, claimed: 2, quarantined: 1, reserved: 16, free: 237}
former_pod_cidrs:
  description: The pod networks of former pools of which nodes still have subnets.
  returned: success
  type: list
  elements: str
reserved_cidrs:
  description: Networks from which no node gets a subnet.
  returned: success
  type: list
  elements: str
pins:
  description: Pinned subnets, by the name of the node that alone may get them.
  returned: success
  type: dict
claims:
  description: Every claim, by node. The age is in seconds.
  returned: success
  type: list
  elements: dict
  sample:
    - {node: node1, machine_id: 3f0d5c2f8f0c4a2f9d8d5cf1a3f3a6b1, cidrs: [10.244.0.0/24], epoch: 4, age: 60.5}
released:
  description: Subnets that were released and not claimed again, with the nodes that had them. The age is in seconds.
  returned: success
  type: list
  elements: dict
  sample:
    - {cidr: 10.244.1.0/24, node: node2, age: 30.2, state: quarantined}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.claims.model import Claim, Released
from ..module_utils.claims.registry import Registry
from ..module_utils.defaults import CLUSTER, QUARANTINE
from ..module_utils.etcd.client import Etcd
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.subnets import Pool, reserved_places


class SubnetPoolInfo:
    """One run: read the registry once, and describe it as of that moment."""

    def __init__(self, module: Module) -> None:
        params = module.params
        with Etcd(access_of(params)) as etcd:
            self.snapshot = Registry(etcd, params["cluster"]).read()
        self.now = time.time()
        self.quarantine: float = params["quarantine"]

    def run(self) -> dict[str, Any]:
        config, claims, released = self.snapshot.pool_config, self.snapshot.claims, self.snapshot.released
        return {
            "changed": False,
            "pools": [self._pool(pool, config.reserved) for pool in config.pools] if config else [],
            "former_pod_cidrs": [pool.pod_cidr for pool in config.former] if config else [],
            "reserved_cidrs": list(config.reserved) if config else [],
            "pins": {node: list(cidrs) for node, cidrs in config.pins.items()} if config else {},
            "claims": [self._claim(claim) for _node, claim in sorted(claims.items())],
            "released": [self._released(cidr, entry) for cidr, entry in sorted(released.items())],
        }

    def _pool(self, pool: Pool, reserved: tuple[str, ...]) -> dict[str, Any]:
        claimed = set(self.snapshot.search(pool).occupied)
        kept_out = {place for places in reserved_places(pool, reserved) for place in places}
        quarantined = {
            pool.index(cidr)
            for cidr, entry in self.snapshot.released.items()
            if cidr in pool and self._is_quarantined(entry)
        }
        return {
            "pod_cidr": pool.pod_cidr,
            "node_bits": pool.node_bits,
            "size": pool.size,
            "claimed": len(claimed),
            "quarantined": len(quarantined),
            "reserved": len(kept_out),
            "free": pool.size - len(claimed | kept_out | quarantined),
        }

    def _claim(self, claim: Claim) -> dict[str, Any]:
        return {
            "node": claim.node,
            "machine_id": claim.machine_id,
            "cidrs": list(claim.cidrs),
            "epoch": claim.epoch,
            "age": self.now - claim.claimed,
        }

    def _released(self, cidr: str, entry: Released) -> dict[str, Any]:
        state = "quarantined" if self._is_quarantined(entry) else "free"
        return {"cidr": cidr, "node": entry.node, "age": self.now - entry.released, "state": state}

    def _is_quarantined(self, entry: Released) -> bool:
        return entry.quarantine_left(self.now, self.quarantine) > 0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ETCD_OPTIONS,
            "cluster": {"type": "str", "default": CLUSTER},
            "quarantine": {"type": "float", "default": QUARANTINE},
        },
        required_together=[("user", "password")],
        supports_check_mode=True,
    )
    run_module(module, SubnetPoolInfo)


if __name__ == "__main__":
    main()
