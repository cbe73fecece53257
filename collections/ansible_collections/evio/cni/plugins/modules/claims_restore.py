#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that writes a backup of the claims back into etcd; its action plugin reads the file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: claims_restore
short_description: Write a backup of the claims back into etcd
version_added: 0.1.0
description:
  - Writes what a file of M(evio.cni.claims_backup) holds and the registry does not. What the registry holds besides
    stays.
  - Writes nothing at all if the registry has another claim, another pool or a later release than the file, or if one of
    the nodes in O(subnet_requests) is another machine, or is set up with another subnet.
  - Up to 63 claims are written in one transaction. If a restore of more is cut off, the next one writes the rest.
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
    description: The cluster's name. It must be the same as in the file.
    type: str
    default: kubernetes
  path:
    description: The file on the control machine.
    type: path
  content:
    description: The file's content, if the file is not on the control machine.
    type: str
  subnet_requests:
    description:
      - The live nodes, as the filter P(evio.cni.subnet_request#filter) returns them. A node without machine_id has not
        answered, and contradicts nothing.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Restore the claims
  evio.cni.claims_restore:
    path: build/evio-backups/claims-kubernetes-cdf818194e3a8c32-91.json
    subnet_requests: "{{ groups['evio_nodes'] | map('extract', hostvars) | map('evio.cni.subnet_request') }}"
  run_once: true
"""

RETURN = r"""
taken:
  description: When the backup was taken.
  returned: success
  type: str
  sample: "2026-01-31T12:00:00+00:00"
restored:
  description: The nodes whose claims were written.
  returned: success
  type: list
  elements: str
silent:
  description: The nodes that have not answered. What they are set up with is not known.
  returned: success
  type: list
  elements: str
unknown:
  description: The nodes that are set up with subnets, and of which neither the file nor the registry has a claim.
  returned: success
  type: list
  elements: str
outdated:
  description: >-
    Why nodes do not take their claim for valid until they are set up again, by the node's name. An etcd that was set up
    anew counts its revisions from 1, below the epochs of the nodes.
  returned: success
  type: dict
"""

from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.claims.allocator import lost_claims
from ..module_utils.claims.backup import LiveNode, decode_backup
from ..module_utils.claims.model import LocalClaim, Snapshot, describe
from ..module_utils.claims.registry import Registry, RestoreOutcome
from ..module_utils.defaults import CLUSTER
from ..module_utils.differences import Differences
from ..module_utils.etcd.client import Etcd
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.module_runner import Module, run_module


class ClaimsRestore:
    """One run over one backup."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.backup = decode_backup(module.params["content"])

    def run(self) -> dict[str, Any]:
        requests = self.params["subnet_requests"]
        nodes = [_live_node(request) for request in requests if request.get("machine_id")]
        with Etcd(access_of(self.params)) as etcd:
            outcome = Registry(etcd, self.params["cluster"]).restore(self.backup, nodes, dry_run=self.check_mode)
        configured = {live.node: live.configured for live in nodes if live.configured is not None}
        known = outcome.after.claims
        return {
            **_compare(outcome).result(),
            "taken": datetime.fromtimestamp(self.backup.taken, timezone.utc).isoformat(timespec="seconds"),
            "restored": [claim.node for claim in outcome.plan.claims],
            "silent": [request["name"] for request in requests if not request.get("machine_id")],
            "unknown": [node for node in configured if node not in known],
            "outdated": lost_claims(
                {node: claim for node, claim in configured.items() if node in known}, outcome.after
            ),
        }


def _live_node(request: dict[str, Any]) -> LiveNode:
    found = request.get("configured")
    configured = LocalClaim(tuple(found["cidrs"]), found["epoch"]) if found else None
    return LiveNode(request["name"], request["machine_id"].strip(), configured)


def _compare(outcome: RestoreOutcome) -> Differences:
    """Return the differences between the registry as it was and as it is now, or would be."""
    before = outcome.before
    differences = Differences()
    differences.compare("pool", describe(outcome.plan.pool_config.pools), _pool(before))
    restored = {claim.node: claim for claim in outcome.plan.claims}
    for node, claim in sorted({**before.claims, **restored}.items()):
        held = before.claims.get(node)
        differences.compare(node, ", ".join(claim.cidrs), ", ".join(held.cidrs) if held is not None else None)
    for cidr, entry in outcome.plan.released.items():
        differences.compare(f"release of {cidr}", f"by {entry.node}", None)
    return differences


def _pool(snapshot: Snapshot) -> str | None:
    return describe(snapshot.pool_config.pools) if snapshot.pool_config is not None else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ETCD_OPTIONS,
            "cluster": {"type": "str", "default": CLUSTER},
            "path": {"type": "path"},
            "content": {"type": "str"},
            "subnet_requests": {"type": "list", "elements": "dict", "required": True},
        },
        required_together=[("user", "password")],
        required_one_of=[("path", "content")],
        mutually_exclusive=[("path", "content")],
        supports_check_mode=True,
    )
    run_module(module, ClaimsRestore)


if __name__ == "__main__":
    main()
