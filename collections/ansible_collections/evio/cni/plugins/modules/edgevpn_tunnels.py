#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that cuts EdgeVPN.io's tunnels to removed nodes; ovs/bridge unplugs the ports."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edgevpn_tunnels
short_description: Cut EdgeVPN.io's tunnels to nodes that were removed
version_added: 0.1.0
description:
  - A node without accounts cannot open new tunnels, but EdgeVPN.io keeps the tunnels that are open. This module unplugs
    their ports from the overlays' bridges. EdgeVPN.io plugs in a port only when it opens a tunnel.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.ovsdb
  - evio.cni.ovsdb.timeout
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - python3-openvswitch
options:
  cluster:
    description: The cluster's name, from which the ids of nodes are made.
    type: str
    required: true
  overlays:
    description: The overlays' ids.
    type: list
    elements: str
    required: true
  removed_nodes:
    description: Ids of the removed nodes by the nodes' names. An empty id is made from the names of cluster and node.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Cut the tunnels to a node that was stolen
  evio.cni.edgevpn_tunnels:
    cluster: kubernetes
    overlays: [HOSTOVL, PODOVL]
    removed_nodes: {node3: ""}
"""

RETURN = r"""
tunnels:
  description: The ports that were unplugged or, in check mode, would be unplugged.
  returned: success
  type: list
  elements: str
  sample: [PODOV78882aaeb0]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.defaults import OVS_TIMEOUT
from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.edgevpn.config import node_id, tunnel_name
from ..module_utils.ovs.bridge import unplug_ports


class EdgeVpnTunnels:
    """One run: unplug the ports of the removed nodes' tunnels, or only look for them in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode

    def run(self) -> dict[str, Any]:
        params = self.params
        found = unplug_ports(self._names(), ovsdb=params["ovsdb"], timeout=params["timeout"], dry_run=self.check_mode)
        differences = Differences()
        differences.compare("tunnels", [], found)
        return {**differences.result(), "tunnels": found}

    def _names(self) -> list[str]:
        """Return the names that the tunnels' ports have, whether they are there or not."""
        cluster = self.params["cluster"]
        return [
            tunnel_name(overlay, str(identity or node_id(cluster, name)))
            for name, identity in self.params["removed_nodes"].items()
            for overlay in self.params["overlays"]
        ]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "overlays": {"type": "list", "elements": "str", "required": True},
            "removed_nodes": {"type": "dict", "required": True},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": OVS_TIMEOUT},
        },
        supports_check_mode=True,
    )
    run_module(module, EdgeVpnTunnels)


if __name__ == "__main__":
    main()
