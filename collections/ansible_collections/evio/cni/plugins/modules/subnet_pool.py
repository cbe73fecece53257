#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pool of node subnets as an Ansible resource: pool_changes plans what becomes of it, the registry makes it so."""

from __future__ import annotations

DOCUMENTATION = r"""
module: subnet_pool
short_description: The pool that nodes' subnets are claimed from
version_added: 0.1.0
description:
  - Makes the pool, grows it, reserves networks and pins subnets, releases the claims of nodes that are gone, and takes
    over the subnets that upstream's generator has given. An option that is not given leaves a thing as it is.
  - Refuses what would break a live claim, by the node's name, and changes nothing then.
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
options:
  cluster:
    description: The cluster's name, a part of the keys in etcd.
    type: str
    default: kubernetes
  pod_cidr:
    description: The pod network, or one a family with a comma between them.
    type: str
  node_bits:
    description: How many bits of it tell nodes apart, or one number a family.
    type: str
  reserved_cidrs:
    description: Networks that no node is given, such as the service CIDR; these and no others.
    type: list
    elements: str
  pins:
    description: Subnets that are kept for a node, by its name, as a list or with commas; these and no others.
    type: dict
  live_nodes:
    description: Names of all nodes there are. The claim of every other node is released, and its subnet rests.
    type: list
    elements: str
  adopt:
    description:
      - Nodes that upstream's generator gave a subnet, as they have it in their C(10-evio.conf).
      - Upstream's keys name no owner. Subnets of those that no node is named for are reserved, and returned. The keys
        themselves stay as they are.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The node's name.
        type: str
        required: true
      machine_id:
        description: The content of its C(/etc/machine-id).
        type: str
        required: true
      subnet:
        description: The subnet it has.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Grow the pool, and keep the service CIDR out of it
  evio.cni.subnet_pool:
    pod_cidr: 10.240.0.0/12
    node_bits: 12
    reserved_cidrs: [10.244.128.0/20]
  run_once: true

- name: Release the subnets of nodes that Kubernetes no longer knows
  evio.cni.subnet_pool:
    live_nodes: "{{ kubernetes_nodes }}"
  run_once: true
"""

RETURN = r"""
released:
  description: Names of the nodes whose claim was released.
  returned: success
  type: list
  elements: str
adopted:
  description: Names of the nodes that have a claim now for the subnet that upstream gave them.
  returned: success
  type: list
  elements: str
unowned:
  description: Subnets of upstream's keys that no node was named for.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.claims.model import Claim, PoolConfig, Request, describe, table
from ..module_utils.claims.registry import Registry
from ..module_utils.claims.reshape import Changes
from ..module_utils.errors import EvioError
from ..module_utils.etcd.client import Etcd
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.subnets import parse_pools


def changes_of(params: Mapping[str, Any]) -> Changes:
    return Changes(
        pools=parse_pools(params["pod_cidr"], params["node_bits"]) if params["pod_cidr"] else None,
        reserved=None if params["reserved_cidrs"] is None else tuple(params["reserved_cidrs"]),
        pins=None if params["pins"] is None else {node: cidrs_of(value) for node, value in params["pins"].items()},
        live_nodes=None if params["live_nodes"] is None else tuple(params["live_nodes"]),
        adopt=tuple(
            Request(node["name"], node["machine_id"].strip(), cidrs_of(node["subnet"])) for node in params["adopt"]
        ),
    )


def cidrs_of(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    return tuple(str(part).strip() for part in parts)


def show(config: PoolConfig | None, claims: Mapping[str, Claim]) -> dict[str, Any]:
    if config is None:
        return {}
    pins = {node: ", ".join(cidrs) for node, cidrs in sorted(config.pins.items())}
    return {
        "pool": describe(config.pools),
        "reserved": list(config.reserved),
        "pins": pins,
        "claims": table(claims.values()),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ETCD_OPTIONS,
            "cluster": {"type": "str", "default": "kubernetes"},
            "pod_cidr": {"type": "str"},
            "node_bits": {"type": "str"},
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
    try:
        with Etcd(access_of(module.params)) as etcd:
            registry = Registry(etcd, module.params["cluster"])
            outcome = registry.reshape(changes_of(module.params), dry_run=module.check_mode)
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=outcome.changed,
        released=sorted(outcome.released),
        adopted=sorted(outcome.adopted),
        unowned=list(outcome.plan.unowned),
        diff={
            "before": show(outcome.before.pool_config, outcome.before.claims),
            "after": show(outcome.plan.pool_config, outcome.plan.claims),
        },
    )


if __name__ == "__main__":
    main()
