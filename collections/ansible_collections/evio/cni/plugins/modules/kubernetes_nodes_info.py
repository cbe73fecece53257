#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that waits until nodes of Kubernetes are Ready; kubernetes/nodes asks the API server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_nodes_info
short_description: Wait until nodes of Kubernetes are Ready
version_added: 0.1.0
description:
  - Waits until each node is in the cluster and Ready, and fails with a sentence for each node that is not. Meanwhile,
    these sentences are shown every 15 seconds.
  - Says which nodes are registered at another address than their host overlay address. Other sites do not reach a node
    there.
  - Runs on a host that has kubectl and an administrator's kubeconfig. Changes nothing.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  addresses:
    description: The host overlay address of each node, by the node's name in Kubernetes.
    type: dict
    required: true
  check_addresses:
    description: Whether the module fails if a node is registered at another address. Otherwise it warns.
    type: bool
    default: true
  timeout:
    description: Seconds for which the module waits.
    type: float
    default: 180.0
  kubectl:
    description: The command, for example C([k3s, kubectl]).
    type: list
    elements: str
    default: [kubectl]
  kubeconfig:
    description: File with the access of an administrator.
    type: path
    default: /etc/kubernetes/admin.conf
"""

EXAMPLES = r"""
- name: Wait until the nodes are Ready
  evio.cni.kubernetes_nodes_info:
    addresses:
      node1: 10.10.0.1
      node2: 10.10.0.2
"""

RETURN = r"""
is_waiting:
  description: Whether nodes are not as they are waited for.
  returned: failure for this reason
  type: bool
nodes:
  description: The nodes.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: node1, ready: true, message: kubelet is posting ready status, address: 10.10.0.1}
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.kubernetes.nodes import Kubectl, KubernetesError, await_nodes
from ..module_utils.module_runner import Module, ModuleError, run_module


class KubernetesNodesInfo:
    """One run: ask the API server again and again until all nodes are Ready or the time is over."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params

    def run(self) -> dict[str, Any]:
        try:
            nodes, misplaced = await_nodes(
                Kubectl(tuple(self.params["kubectl"]), self.params["kubeconfig"]),
                {name: str(address) for name, address in self.params["addresses"].items()},
                timeout=self.params["timeout"],
                check_addresses=self.params["check_addresses"],
            )
        except KubernetesError as error:
            raise ModuleError(str(error), is_waiting=True) from error
        for sentence in misplaced:
            self.module.warn(sentence)
        return {"changed": False, "nodes": [asdict(node) for node in nodes]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "addresses": {"type": "dict", "required": True},
            "check_addresses": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 180.0},
            "kubectl": {"type": "list", "elements": "str", "default": ["kubectl"]},
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
        },
        supports_check_mode=True,
    )
    run_module(module, KubernetesNodesInfo)


if __name__ == "__main__":
    main()
