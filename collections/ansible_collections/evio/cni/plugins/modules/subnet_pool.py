#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that changes the pool of node subnets; claims/reshape plans the change, claims/registry writes it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: subnet_pool
short_description: Change the pool that nodes' subnets are claimed from
version_added: 0.1.0
description:
  - Creates the pool, grows it, reserves networks, pins subnets, releases the claims of nodes that no longer exist, and
    adopts the subnets that upstream's generator has given to nodes. An option that is not given changes nothing.
  - Fails and changes nothing if the change would break a claim. The message names the node.
  - Run it once, on a host that has etcd's client certificate.
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
  cluster:
    description: The cluster's name. It is a part of the keys in etcd.
    type: str
    default: kubernetes
  pod_cidr:
    description: The pod network. For dual stack, an IPv4 and an IPv6 network separated by a comma.
    type: str
  node_bits:
    description: How many bits of the pod network number the nodes. One number, or one for each network of O(pod_cidr).
    type: str
  keep_former:
    description:
      - Lets nodes keep subnets outside of O(pod_cidr), and keeps the pools of these subnets as former pools. At its
        next claim (M(evio.cni.node_subnet)), such a node gets a subnet of O(pod_cidr) besides.
      - Nobody gets a subnet of a former pool. A former pool is forgotten with the last of its subnets.
    type: bool
    default: false
  moved_nodes:
    description: >-
      Nodes that are set up with subnets of the present pool. Their subnets of former pools are released.
    type: list
    elements: str
    default: []
  reserved_cidrs:
    description: All networks from which no node gets a subnet, for example the service CIDR.
    type: list
    elements: str
  pins:
    description: >-
      All pinned subnets, by the name of the node that alone may get them. A value is a list, or a string with commas.
    type: dict
  live_nodes:
    description: Names of all nodes that exist. The claims of all other nodes are released.
    type: list
    elements: str
  adopt:
    description:
      - Nodes that upstream's generator gave a subnet, with the subnet that is in their C(10-evio.conf).
      - Upstream's keys do not name an owner. A subnet of these keys that no node is given for is reserved and returned
        in RV(unowned). Upstream's keys stay in etcd.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The node's name.
        type: str
        required: true
      machine_id:
        description: The content of the node's C(/etc/machine-id).
        type: str
        required: true
      subnet:
        description: The subnet that the node has.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Grow the pool, and reserve the service CIDR
  evio.cni.subnet_pool:
    pod_cidr: 10.240.0.0/12
    node_bits: 12
    reserved_cidrs: [10.244.128.0/20]
  run_once: true

- name: Take another pool, to which nodes move one by one
  evio.cni.subnet_pool:
    pod_cidr: 10.60.0.0/16
    node_bits: 8
    keep_former: true
  run_once: true

- name: Release the subnets of nodes that are not in Kubernetes any more
  evio.cni.subnet_pool:
    live_nodes: "{{ kubernetes_nodes }}"
  run_once: true
"""

RETURN = r"""
released:
  description: Names of the nodes whose claims were released.
  returned: success
  type: list
  elements: str
moved:
  description: Names of the nodes whose subnets of former pools were released.
  returned: success
  type: list
  elements: str
former_subnets:
  description: >-
    The subnets of former pools that nodes have after the change, by the node's name. In check mode, those that they
    would have.
  returned: success
  type: dict
  sample:
    node3: [10.244.2.0/24]
adopted:
  description: Names of the nodes for which the subnet that upstream gave them was claimed.
  returned: success
  type: list
  elements: str
unowned:
  description: Subnets of upstream's keys that no node was given for.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.claims.model import Claim, PoolConfig, Request, describe, table
from ..module_utils.claims.registry import PoolOutcome, Registry
from ..module_utils.claims.reshape import Changes, PoolPlan
from ..module_utils.defaults import CLUSTER
from ..module_utils.differences import Differences
from ..module_utils.etcd.client import Etcd
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.subnets import parse_pools


class SubnetPool:
    """One run: plan the change of the pool, write it unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode

    def run(self) -> dict[str, Any]:
        with Etcd(access_of(self.params)) as etcd:
            outcome = Registry(etcd, self.params["cluster"]).reshape(self._changes(), dry_run=self.check_mode)
        return {
            **_compare(outcome).result(),
            "released": sorted(outcome.released),
            "moved": sorted(outcome.moved),
            "former_subnets": _former_subnets(outcome.plan),
            "adopted": sorted(outcome.adopted),
            "unowned": list(outcome.plan.unowned),
        }

    def _changes(self) -> Changes:
        params = self.params
        reserved, pins, live_nodes = params["reserved_cidrs"], params["pins"], params["live_nodes"]
        return Changes(
            pools=parse_pools(params["pod_cidr"], params["node_bits"]) if params["pod_cidr"] else None,
            keeps_former=params["keep_former"],
            moved_nodes=tuple(params["moved_nodes"]),
            reserved=None if reserved is None else tuple(reserved),
            pins=None if pins is None else {node: _cidrs(value) for node, value in pins.items()},
            live_nodes=None if live_nodes is None else tuple(live_nodes),
            adopt=tuple(
                Request(node["name"], node["machine_id"].strip(), _cidrs(node["subnet"])) for node in params["adopt"]
            ),
        )


def _cidrs(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    return tuple(str(part).strip() for part in parts)


def _former_subnets(plan: PoolPlan) -> dict[str, list[str]]:
    former = {
        node: [cidr for cidr in claim.cidrs if not plan.pool_config.has(cidr)] for node, claim in plan.claims.items()
    }
    return {node: cidrs for node, cidrs in sorted(former.items()) if cidrs}


def _compare(outcome: PoolOutcome) -> Differences:
    before = _properties(outcome.before.pool_config, outcome.before.claims)
    differences = Differences()
    for name, value in _properties(outcome.plan.pool_config, outcome.plan.claims).items():
        differences.compare(name, value, before.get(name))
    return differences


def _properties(config: PoolConfig | None, claims: Mapping[str, Claim]) -> dict[str, Any]:
    """Return the pool as a diff shows it; nothing if there is no pool."""
    if config is None:
        return {}
    return {
        "pool": describe(config.pools),
        "former": describe(config.former),
        "reserved": list(config.reserved),
        "pins": {node: ", ".join(cidrs) for node, cidrs in sorted(config.pins.items())},
        "claims": table(claims.values()),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ETCD_OPTIONS,
            "cluster": {"type": "str", "default": CLUSTER},
            "pod_cidr": {"type": "str"},
            "node_bits": {"type": "str"},
            "keep_former": {"type": "bool", "default": False},
            "moved_nodes": {"type": "list", "elements": "str", "default": []},
            "reserved_cidrs": {"type": "list", "elements": "str"},
            "pins": {"type": "dict"},
            "live_nodes": {"type": "list", "elements": "str"},
            "adopt": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "machine_id": {"type": "str", "required": True},
                    "subnet": {"type": "str", "required": True},
                },
            },
        },
        required_together=[("user", "password"), ("pod_cidr", "node_bits")],
        supports_check_mode=True,
    )
    run_module(module, SubnetPool)


if __name__ == "__main__":
    main()
