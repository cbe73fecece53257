#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes' subnets as an Ansible resource: arguments in, the registry's work, the claims of the nodes out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_subnet
short_description: Subnets of nodes, claimed in etcd
version_added: 0.1.0
description:
  - Gives each node a subnet of the pod network that no other node has, and keeps who has it in etcd below
    C(/evio/<cluster>/). All nodes are claimed in one transaction, in as few as etcd takes where they are many.
  - A node that has a subnet keeps it. Nothing frees a subnet but O(state=absent), and then it rests for
    O(quarantine) seconds before another node gets it.
  - Run it once, on a host that has etcd's client certificate; the certificate need never leave that host.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.etcd
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description: Whether the nodes have subnets.
    type: str
    choices: [present, absent]
    default: present
  cluster:
    description: The cluster's name, a part of the keys in etcd.
    type: str
    default: kubernetes
  subnet_requests:
    description: The nodes.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The node's name.
        type: str
        required: true
      machine_id:
        description: The content of its C(/etc/machine-id). Required for O(state=present).
        type: str
      subnet:
        description: The subnet it shall have and no other; two with a comma between them for dual stack.
        type: str
      replaced:
        description: Says that this machine has taken the place of the one that has the node's claim.
        type: bool
        default: false
      configured:
        description:
          - The claim that the node is set up with, as M(evio.cni.node_claim_info) returns it.
          - A node that is set up with what etcd does not have is an error, for its pods would lose their addresses.
            That is so after a release, and after etcd was wiped or restored from an older snapshot.
        type: dict
        suboptions:
          cidrs:
            description: Its subnets.
            type: list
            elements: str
            required: true
          epoch:
            description: The revision of its claim, 0 for none.
            type: int
            required: true
  other_nodes:
    description: Nodes that are not asked for now; RV(unclaimed) tells which of them have no claim.
    type: list
    elements: str
    default: []
  restore:
    description: Claims again what the nodes are set up with, for an etcd that was wiped or restored.
    type: bool
    default: false
  pod_cidr:
    description: The pod network, or one a family with a comma between them. Required for O(state=present).
    type: str
  node_bits:
    description: How many bits of it tell nodes apart, or one number a family. Required for O(state=present).
    type: str
  reserved_cidrs:
    description: Networks that no node is given.
    type: list
    elements: str
    default: []
  quarantine:
    description: Seconds for which a released subnet is given to nobody.
    type: float
    default: 3600.0
  assume_empty:
    description:
      - In check mode, plan as if etcd held nothing, for an etcd that a task before this one would have set up.
      - Without check mode it has no effect.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Claim a subnet for every node, in one transaction
  evio.cni.node_subnet:
    pod_cidr: 10.244.0.0/16
    node_bits: 8
    subnet_requests:
      - {name: node1, machine_id: 3f0d5c2f8f0c4a2f9d8d5cf1a3f3a6b1}
      - {name: node2, machine_id: 7a4c1d3b2f5e4c6a8b9d0e1f2a3b4c5d}
  run_once: true

- name: Give a node's subnet back
  evio.cni.node_subnet:
    state: absent
    subnet_requests: [{name: node2}]
  run_once: true
"""

RETURN = r"""
subnets:
  description: What each of the nodes has, by its name.
  returned: O(state=present)
  type: dict
  sample:
    node1:
      cidrs: [10.244.0.0/24]
      gateways: [10.244.0.1/24]
      segment_gateways: [10.244.0.1/16]
      epoch: 4
claimed:
  description: Names of the nodes whose claim was written or removed.
  returned: success
  type: list
  elements: str
unclaimed:
  description: Those of O(other_nodes) that have no claim, as after their release.
  returned: O(state=present)
  type: list
  elements: str
lost:
  description: Why the claim that a node is set up with does not hold any more, by the node's name. The task has failed
    then, and nothing was claimed.
  returned: always
  type: dict
  sample:
    node3: etcd has no claim of it, it was released or etcd was wiped or restored
"""

import time
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.claims.model import (
    Claim,
    ClaimError,
    LocalClaim,
    LostClaimError,
    Request,
    Snapshot,
    describe,
    subnets_of,
    table,
)
from ..module_utils.claims.registry import Outcome, Registry, plan_on_empty
from ..module_utils.errors import EvioError
from ..module_utils.etcd.client import Etcd
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.subnets import Pool, parse_pools


class NodeSubnets:
    """One run over all nodes of the task."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params

    def present(self) -> dict[str, Any]:
        pools = parse_pools(self.params["pod_cidr"], self.params["node_bits"])
        requests = [self._request(node) for node in self.params["subnet_requests"]]
        unclaimed: list[str] = []
        reserved = self.params["reserved_cidrs"]
        if self.module.check_mode and self.params["assume_empty"]:
            outcome = plan_on_empty(requests, pools, reserved=reserved, now=time.time())
        else:
            with Etcd(access_of(self.params)) as etcd:
                registry = Registry(etcd, self.params["cluster"])
                outcome = registry.claim(
                    requests,
                    pools,
                    reserved=reserved,
                    quarantine=self.params["quarantine"],
                    dry_run=self.module.check_mode,
                )
                unclaimed = registry.unclaimed(self.params["other_nodes"])
        after = {**outcome.before.claims, **outcome.claims}
        return {
            **self._result(outcome, after, describe(pools)),
            "subnets": {node: self._facts(claim, pools) for node, claim in outcome.claims.items()},
            "unclaimed": unclaimed,
        }

    def absent(self) -> dict[str, Any]:
        with Etcd(access_of(self.params)) as etcd:
            outcome = Registry(etcd, self.params["cluster"]).release(
                [node["name"] for node in self.params["subnet_requests"]], dry_run=self.module.check_mode
            )
        after = {node: claim for node, claim in outcome.before.claims.items() if node not in outcome.changed}
        return self._result(outcome, after, describe(pools_of(outcome.before)))

    def _result(self, outcome: Outcome, after: dict[str, Claim], pools: str) -> dict[str, Any]:
        return {
            "changed": bool(outcome.changed) or outcome.pool_changed,
            "claimed": sorted(outcome.changed),
            "diff": {
                "before": {"pool": describe(pools_of(outcome.before)), **table(outcome.before.claims.values())},
                "after": {"pool": pools, **table(after.values())},
            },
        }

    def _request(self, node: dict[str, Any]) -> Request:
        if not node["machine_id"]:
            raise ClaimError(f"node {node['name']} has no machine_id; give it the content of its /etc/machine-id")
        pin = tuple(cidr.strip() for cidr in (node["subnet"] or "").split(",") if cidr.strip())
        known = node["configured"]
        configured = LocalClaim(tuple(known["cidrs"]), known["epoch"]) if known else None
        return Request(
            node["name"], node["machine_id"].strip(), pin, node["replaced"], configured, self.params["restore"]
        )

    @staticmethod
    def _facts(claim: Claim, pools: Sequence[Pool]) -> dict[str, Any]:
        subnets = subnets_of(claim)
        segments = {pool.family: pool.pod_cidr for pool in pools}
        return {
            "cidrs": [subnet.cidr for subnet in subnets],
            "gateways": [subnet.gateway for subnet in subnets],
            "segment_gateways": [subnet.gateway_in(segments[subnet.family]) for subnet in subnets],
            "epoch": claim.epoch,
        }


def pools_of(snapshot: Snapshot) -> tuple[Pool, ...]:
    return snapshot.pool_config.pools if snapshot.pool_config else ()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ETCD_OPTIONS,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "cluster": {"type": "str", "default": "kubernetes"},
            "subnet_requests": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "machine_id": {"type": "str"},
                    "subnet": {"type": "str"},
                    "replaced": {"type": "bool", "default": False},
                    "configured": {
                        "type": "dict",
                        "options": {
                            "cidrs": {"type": "list", "elements": "str", "required": True},
                            "epoch": {"type": "int", "required": True},
                        },
                    },
                },
            },
            "other_nodes": {"type": "list", "elements": "str", "default": []},
            "restore": {"type": "bool", "default": False},
            "pod_cidr": {"type": "str"},
            "node_bits": {"type": "str"},
            "reserved_cidrs": {"type": "list", "elements": "str", "default": []},
            "quarantine": {"type": "float", "default": 3600.0},
            "assume_empty": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["pod_cidr", "node_bits"])],
        required_together=[("user", "password")],
        supports_check_mode=True,
    )
    subnets = NodeSubnets(module)
    try:
        result = subnets.present() if module.params["state"] == "present" else subnets.absent()
    except LostClaimError as error:
        module.fail_json(msg=str(error), lost=error.lost)
    except EvioError as error:
        module.fail_json(msg=str(error), lost={})
    module.exit_json(**result, lost={})


if __name__ == "__main__":
    main()
