#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tunnels of EdgeVPN.io to nodes that were removed, as an Ansible resource: the library cuts them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edgevpn_tunnels
short_description: Cut EdgeVPN.io's tunnels to nodes that were removed
version_added: 0.1.0
description:
  - A node whose accounts were taken away gets no new tunnels, but EdgeVPN.io keeps those that it has. This unplugs them
    from the overlays' bridges, where EdgeVPN.io plugs in what is made anew only.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
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
    description: The cluster's name, from which ids of nodes are made.
    type: str
    required: true
  overlays:
    description: The overlays' ids.
    type: list
    elements: str
    required: true
  removed_nodes:
    description: The ids of the nodes that were removed, by their names; an empty one is made from the names.
    type: dict
    required: true
  ovsdb:
    description: Socket of the OVSDB server.
    type: str
    default: unix:/var/run/openvswitch/db.sock
  timeout:
    description: Seconds for all of it.
    type: float
    default: 10.0
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
  description: The ports that were unplugged, or would be.
  returned: success
  type: list
  elements: str
  sample: [PODOV78882aaeb0]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.errors import EvioError
from ..module_utils.overlay.edgevpn.config import node_id, tunnel_name
from ..module_utils.ovs.bridge import unplug


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "overlays": {"type": "list", "elements": "str", "required": True},
            "removed_nodes": {"type": "dict", "required": True},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": 10.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    names = [
        tunnel_name(overlay, str(identity or node_id(params["cluster"], name)))
        for name, identity in params["removed_nodes"].items()
        for overlay in params["overlays"]
    ]
    try:
        cut = unplug(names, ovsdb=params["ovsdb"], timeout=params["timeout"], dry_run=module.check_mode)
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(cut), tunnels=cut, diff={"before": {"tunnels": cut}, "after": {"tunnels": []}})


if __name__ == "__main__":
    main()
