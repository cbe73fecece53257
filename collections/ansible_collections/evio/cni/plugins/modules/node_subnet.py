#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that claims and releases the subnets of nodes; claims/registry does the work in etcd."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_subnet
short_description: Claim the subnets of nodes in etcd
version_added: 0.1.0
description:
  - Gives each node a subnet of the pod network that no other node has, and stores the claims in etcd under
    C(/evio/<cluster>/). All claims are written in one transaction, or in a few if they are too many for one.
  - A node that has a subnet keeps it. Only O(state=absent) releases a subnet. A released subnet is in quarantine for
    O(quarantine) seconds before another node can get it.
  - Run it once, on a host that has etcd's client certificate. The certificate never has to leave that host.
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
requirements:
  - python3-etcd3
options:
  state:
    description: Whether the nodes have subnets.
    type: str
    choices: [present, absent]
    default: present
  cluster:
    description: The cluster's name. It is a part of the keys in etcd.
    type: str
    default: kubernetes
  subnet_requests:
    description: The nodes, as the filter P(evio.cni.subnet_request#filter) returns them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The node's name.
        type: str
        required: true
      machine_id:
        description: The content of the node's C(/etc/machine-id). Required with O(state=present).
        type: str
      subnet:
        description: The subnet that the node has to get. For dual stack, two subnets separated by a comma.
        type: str
      replaced:
        description: Says that another machine has taken over the node's name, and takes over the node's claim.
        type: bool
        default: false
      renamed_from:
        description: The node's former name. Its claim moves to O(subnet_requests[].name) if the machine-id is the same.
        type: str
        default: ""
      configured:
        description:
          - The claim that the node is configured with, as M(evio.cni.host_info) returns it.
          - The module fails if etcd does not have this claim, because the node's pods would lose their addresses. This
            happens after a release, and after etcd was wiped or restored from an older snapshot.
        type: dict
        suboptions:
          cidrs:
            description: The node's subnets.
            type: list
            elements: str
            required: true
          epoch:
            description: Revision of the claim, 0 if there is none.
            type: int
            required: true
  other_nodes:
    description: >-
      Nodes that no subnet is requested for. RV(other_subnets) has the subnets of those that have a claim, and
      RV(unclaimed) the names of all others.
    type: list
    elements: str
    default: []
  restore:
    description: Claims the subnets that the nodes are configured with. For an etcd that was wiped or restored.
    type: bool
    default: false
  pod_cidr:
    description: >-
      The pod network. For dual stack, an IPv4 and an IPv6 network separated by a comma. Required with O(state=present).
    type: str
  node_bits:
    description: >-
      How many bits of the pod network number the nodes. One number, or one for each network of O(pod_cidr). Required
      with O(state=present).
    type: str
  reserved_cidrs:
    description: Networks from which no node gets a subnet.
    type: list
    elements: str
    default: []
  quarantine:
    description: Seconds during which no node gets a released subnet.
    type: float
    default: 3600.0
  assume_empty:
    description:
      - In check mode, plans as if etcd were empty, for an etcd that an earlier task would have set up.
      - Has no effect outside check mode.
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

- name: Release the subnet of a node
  evio.cni.node_subnet:
    state: absent
    subnet_requests: [{name: node2}]
  run_once: true
"""

RETURN = r"""
subnets:
  description:
    - The subnets of each node of O(subnet_requests), by the node's name.
    - While a node moves to another pool (M(evio.cni.subnet_pool)), its claim has subnets of both pools,
      C(claimed_cidrs). C(cidrs) are then those that it is configured with, and C(present) has the same facts of its
      subnets in the pool that it moves to.
  returned: O(state=present)
  type: dict
  sample:
    node1:
      cidrs: [10.244.0.0/24]
      gateways: [10.244.0.1/24]
      segment_gateways: [10.244.0.1/16]
      epoch: 4
      claimed_cidrs: [10.244.0.0/24]
      present: {cidrs: [10.244.0.0/24], gateways: [10.244.0.1/24], segment_gateways: [10.244.0.1/16], epoch: 4}
former_pod_cidrs:
  description: The pod networks of former pools of which nodes still have subnets.
  returned: O(state=present)
  type: list
  elements: str
claimed:
  description: Names of the nodes whose claims were written or removed.
  returned: success
  type: list
  elements: str
other_subnets:
  description: The subnets in CIDR notation of those nodes of O(other_nodes) that have a claim, by the node's name.
  returned: O(state=present)
  type: dict
  sample:
    node2: [10.244.1.0/24]
unclaimed:
  description: The nodes of O(other_nodes) that have no claim, for example after a release.
  returned: O(state=present)
  type: list
  elements: str
lost:
  description: >-
    Why the claim that a node is configured with is lost, by the node's name. If there is an entry, the task has failed
    and nothing was claimed.
  returned: always
  type: dict
  sample:
    node3: etcd has no claim of it, it was released or etcd was wiped or restored
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.claims.model import Claim, ClaimError, LocalClaim, LostClaimError, Request, describe, subnets_of
from ..module_utils.claims.registry import Outcome, Registry, plan_on_empty
from ..module_utils.defaults import CLUSTER, QUARANTINE
from ..module_utils.differences import Differences
from ..module_utils.errors import EvioError
from ..module_utils.etcd.client import Etcd
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.module_runner import Module, ModuleError, run_module
from ..module_utils.subnets import Pool, parse_pools


class NodeSubnets:
    """One run over all nodes of the task."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode

    def run(self) -> dict[str, Any]:
        try:
            result = self._present() if self.params["state"] == "present" else self._absent()
        except EvioError as error:
            raise ModuleError(str(error), lost=error.lost if isinstance(error, LostClaimError) else {}) from error
        return {**result, "lost": {}}

    def _present(self) -> dict[str, Any]:
        pools = parse_pools(self.params["pod_cidr"], self.params["node_bits"])
        requests = [self._request(node) for node in self.params["subnet_requests"]]
        configured = {request.node: request.configured for request in requests}
        outcome, others = self._claim(requests, pools)
        former = {request["renamed_from"] for request in self.params["subnet_requests"]}
        after = {node: claim for node, claim in outcome.before.claims.items() if node not in former} | outcome.claims
        return {
            **_compare(outcome, after, pools).result(),
            "claimed": sorted(outcome.changed),
            "subnets": {node: _subnet_facts(claim, pools, configured[node]) for node, claim in outcome.claims.items()},
            "former_pod_cidrs": [pool.pod_cidr for pool in outcome.former],
            "other_subnets": {node: list(claim.cidrs) for node, claim in (others or {}).items()},
            "unclaimed": [] if others is None else [node for node in self.params["other_nodes"] if node not in others],
        }

    def _absent(self) -> dict[str, Any]:
        nodes = [request["name"] for request in self.params["subnet_requests"]]
        with Etcd(access_of(self.params)) as etcd:
            outcome = Registry(etcd, self.params["cluster"]).release(nodes, dry_run=self.check_mode)
        after = {node: claim for node, claim in outcome.before.claims.items() if node not in outcome.changed}
        return {**_compare(outcome, after, _pools(outcome)).result(), "claimed": sorted(outcome.changed)}

    def _claim(self, requests: Sequence[Request], pools: Sequence[Pool]) -> tuple[Outcome, dict[str, Claim] | None]:
        """Return the outcome of the claim, and the claims of the other nodes; None if there is no etcd to ask yet."""
        reserved = self.params["reserved_cidrs"]
        if self.check_mode and self.params["assume_empty"]:
            return plan_on_empty(requests, pools, reserved=reserved, now=time.time()), None
        with Etcd(access_of(self.params)) as etcd:
            registry = Registry(etcd, self.params["cluster"])
            quarantine = self.params["quarantine"]
            outcome = registry.claim(requests, pools, reserved=reserved, quarantine=quarantine, dry_run=self.check_mode)
            return outcome, registry.claims_of(self.params["other_nodes"])

    def _request(self, node: dict[str, Any]) -> Request:
        if not node["machine_id"]:
            raise ClaimError(f"node {node['name']} has no machine_id; give it the content of its /etc/machine-id")
        pin = tuple(cidr.strip() for cidr in (node["subnet"] or "").split(",") if cidr.strip())
        found = node["configured"]
        configured = LocalClaim(tuple(found["cidrs"]), found["epoch"]) if found else None
        return Request(
            node["name"],
            node["machine_id"].strip(),
            pin,
            node["replaced"],
            configured,
            self.params["restore"],
            node["renamed_from"],
        )


def _compare(outcome: Outcome, after: Mapping[str, Claim], pools: Sequence[Pool]) -> Differences:
    """Return the differences between the registry as it was and as it is now, or would be."""
    before = outcome.before.claims
    differences = Differences()
    differences.compare("pool", describe(pools), describe(_pools(outcome)))
    for node in sorted({*before, *after}):
        differences.compare(node, _shown(after.get(node)), _shown(before.get(node)))
        if node in before and node in after and before[node].machine_id != after[node].machine_id:
            differences.compare(f"machine_id of {node}", after[node].machine_id, before[node].machine_id)
    return differences


def _shown(claim: Claim | None) -> str | None:
    return ", ".join(claim.cidrs) if claim is not None else None


def _pools(outcome: Outcome) -> tuple[Pool, ...]:
    """Return the pools that the registry had before; none if nothing has been claimed yet."""
    return outcome.before.pool_config.pools if outcome.before.pool_config else ()


def _subnet_facts(claim: Claim, pools: Sequence[Pool], configured: LocalClaim | None) -> dict[str, Any]:
    """Return the facts of a claim, with those that the node will have once it has moved to the present pools."""
    facts = _facts(claim, pools, configured)
    return {**facts, "claimed_cidrs": list(claim.cidrs), "present": _facts(claim, pools, None)}


def _facts(claim: Claim, pools: Sequence[Pool], configured: LocalClaim | None) -> dict[str, Any]:
    subnets = subnets_of(claim, pools, configured)
    segments = {pool.family: pool.pod_cidr for pool in pools}
    return {
        "cidrs": [subnet.cidr for subnet in subnets],
        "gateways": [subnet.gateway for subnet in subnets],
        "segment_gateways": [subnet.gateway_in(segments[subnet.family]) for subnet in subnets],
        "epoch": claim.epoch,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ETCD_OPTIONS,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "cluster": {"type": "str", "default": CLUSTER},
            "subnet_requests": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "machine_id": {"type": "str"},
                    "subnet": {"type": "str"},
                    "replaced": {"type": "bool", "default": False},
                    "renamed_from": {"type": "str", "default": ""},
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
            "quarantine": {"type": "float", "default": QUARANTINE},
            "assume_empty": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["pod_cidr", "node_bits"])],
        required_together=[("user", "password")],
        supports_check_mode=True,
    )
    run_module(module, NodeSubnets)


if __name__ == "__main__":
    main()
