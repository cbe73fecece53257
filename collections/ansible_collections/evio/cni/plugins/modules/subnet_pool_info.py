#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the registry holds: the pool, every claim, and what is free; the library's registry reads it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: subnet_pool_info
short_description: Who has which subnet, and what is free
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
options:
  cluster:
    description: The cluster's name, a part of the keys in etcd.
    type: str
    default: kubernetes
  quarantine:
    description: Seconds for which a released subnet rests.
    type: float
    default: 3600.0
"""

EXAMPLES = r"""
- name: See who has which subnet
  evio.cni.subnet_pool_info:
  register: pool
"""

RETURN = r"""
pools:
  description: The pool of each family; none where nothing has been claimed yet.
  returned: success
  type: list
  elements: dict
  sample:
    - {pod_cidr: 10.244.0.0/16, node_bits: 8, size: 256, claimed: 2, quarantined: 1, reserved: 16, free: 237}
reserved_cidrs:
  description: Networks that no node is given.
  returned: success
  type: list
  elements: str
pins:
  description: Subnets that are kept for a node, by its name.
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
  description: Subnets that were released and not claimed again, and who had them. The age is in seconds.
  returned: success
  type: list
  elements: dict
  sample:
    - {cidr: 10.244.1.0/24, node: node2, age: 30.2, state: quarantined}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.claims.model import Claim, Released, Snapshot
from ..module_utils.claims.registry import Registry
from ..module_utils.errors import EvioError
from ..module_utils.etcd.client import Etcd
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.subnets import Pool, reserved_places


class PoolInfo:
    """One snapshot, seen at one time."""

    def __init__(self, snapshot: Snapshot, now: float, quarantine: float) -> None:
        self.snapshot, self.now, self.quarantine = snapshot, now, quarantine

    def facts(self) -> dict[str, Any]:
        config = self.snapshot.pool_config
        return {
            "pools": [self._pool(pool, config.reserved) for pool in config.pools] if config else [],
            "reserved_cidrs": list(config.reserved) if config else [],
            "pins": {node: list(cidrs) for node, cidrs in config.pins.items()} if config else {},
            "claims": [self._claim(claim) for _node, claim in sorted(self.snapshot.claims.items())],
            "released": [self._released(cidr, one) for cidr, one in sorted(self.snapshot.released.items())],
        }

    def _pool(self, pool: Pool, reserved: tuple[str, ...]) -> dict[str, Any]:
        claimed = set(self.snapshot.search(pool).occupied)
        kept_out = {place for places in reserved_places(pool, reserved) for place in places}
        resting = {
            pool.index(cidr)
            for cidr, released in self.snapshot.released.items()
            if cidr in pool and self._is_resting(released)
        }
        return {
            "pod_cidr": pool.pod_cidr,
            "node_bits": pool.node_bits,
            "size": pool.size,
            "claimed": len(claimed),
            "quarantined": len(resting),
            "reserved": len(kept_out),
            "free": pool.size - len(claimed | kept_out | resting),
        }

    def _claim(self, claim: Claim) -> dict[str, Any]:
        return {
            "node": claim.node,
            "machine_id": claim.machine_id,
            "cidrs": list(claim.cidrs),
            "epoch": claim.epoch,
            "age": self.now - claim.claimed,
        }

    def _released(self, cidr: str, released: Released) -> dict[str, Any]:
        state = "quarantined" if self._is_resting(released) else "free"
        return {"cidr": cidr, "node": released.node, "age": self.now - released.released, "state": state}

    def _is_resting(self, released: Released) -> bool:
        return released.quarantine_left(self.now, self.quarantine) > 0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ETCD_OPTIONS,
            "cluster": {"type": "str", "default": "kubernetes"},
            "quarantine": {"type": "float", "default": 3600.0},
        },
        required_together=[("user", "password")],
        supports_check_mode=True,
    )
    try:
        with Etcd(access_of(module.params)) as etcd:
            snapshot = Registry(etcd, module.params["cluster"]).read()
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **PoolInfo(snapshot, time.time(), module.params["quarantine"]).facts())


if __name__ == "__main__":
    main()
