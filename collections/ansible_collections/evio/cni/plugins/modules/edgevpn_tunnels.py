#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that cuts EdgeVPN.io's tunnels to removed nodes; overlay/edgevpn/tunnels takes them down."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edgevpn_tunnels
short_description: Cut EdgeVPN.io's tunnels to nodes that were removed
version_added: 0.1.0
description:
  - A node without accounts cannot open new tunnels, but EdgeVPN.io keeps the tunnels that are open. This module unplugs
    their ports from the overlays' bridges, deletes their TAP devices, and ends the processes that feed them. A TAP
    device that is only unplugged stays up, and this node routes what the removed node sends.
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
  config:
    description: EdgeVPN.io's configuration file, from which the names of the tunnels are known.
    type: path
    default: /etc/opt/evio/config.json
  members:
    description: The file with the other nodes, out of which the removed nodes are taken.
    type: path
    default: /etc/evio/edgevpn.json
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
  description: The tunnels that were taken down or, in check mode, would be taken down.
  returned: success
  type: list
  elements: str
  sample: [PODOV78882aaeb0]
"""

import json
from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.atomic_file import read_text
from ..module_utils.defaults import OVS_TIMEOUT
from ..module_utils.differences import Differences
from ..module_utils.managed_file import ManagedFile, result_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.edgevpn.config import CONFIG_PATH
from ..module_utils.overlay.edgevpn.members import MEMBERS_MODE, parse_members, render_members
from ..module_utils.overlay.edgevpn.naming import node_id, tunnel_name, tunnel_prefix
from ..module_utils.overlay.edgevpn.tunnels import remove_tunnels


class EdgeVpnTunnels:
    """One run: take down the tunnels to the removed nodes, or only look for them in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.members = ManagedFile(self.params["members"], mode=MEMBERS_MODE)

    def run(self) -> dict[str, Any]:
        params = self.params
        found = remove_tunnels(self._names(), ovsdb=params["ovsdb"], timeout=params["timeout"], dry_run=self.check_mode)
        differences = Differences()
        differences.compare("tunnels", [], found)
        members = self.members.change_to(self._remaining_members())
        if not self.check_mode:
            members.apply()
        return {**result_of(differences, members), "tunnels": found}

    def _remaining_members(self) -> str | None:
        """Return the text of the file with the other nodes, without the removed ones; None if there is no file."""
        if self.members.text is None:
            return None
        members = parse_members(self.members.text, str(self.members.path))
        peers = {name: peer for name, peer in members.peers.items() if name not in self.params["removed_nodes"]}
        return render_members(replace(members, peers=peers))

    def _names(self) -> list[str]:
        """Return the names that the tunnels have, whether they are there or not."""
        cluster = self.params["cluster"]
        config = self._config()
        return [
            tunnel_name(tunnel_prefix(config, overlay), str(identity or node_id(cluster, name)))
            for name, identity in self.params["removed_nodes"].items()
            for overlay in self.params["overlays"]
        ]

    def _config(self) -> dict[str, Any]:
        """Return EdgeVPN.io's configuration; empty if it is missing or damaged."""
        try:
            config = json.loads(read_text(self.params["config"]) or "{}")
        except (OSError, ValueError):
            return {}
        return config if isinstance(config, dict) else {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "overlays": {"type": "list", "elements": "str", "required": True},
            "removed_nodes": {"type": "dict", "required": True},
            "config": {"type": "path", "default": CONFIG_PATH},
            "members": {"type": "path", "default": paths.EDGEVPN_MEMBERS},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": OVS_TIMEOUT},
        },
        supports_check_mode=True,
    )
    run_module(module, EdgeVpnTunnels)


if __name__ == "__main__":
    main()
