#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory's description of a cluster, checked as a whole: arguments in, the library's verdict out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_info
short_description: Check the description of a cluster before anything is changed
version_added: 0.1.0
description:
  - Fails with one sentence that names the variable and the value where networks overlap or are none, where there are
    more nodes than subnets, or where a node has no address. Changes nothing. Run it once, on the control machine.
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
  name:
    description: The variable C(evio_cluster), the cluster's name in etcd.
    type: str
    required: true
  host_overlay_cidr:
    description: The variable C(evio_host_overlay_cidr).
    type: str
    required: true
  pod_cidr:
    description: The variable C(evio_pod_cidr), one network, or one a family with a comma between them.
    type: str
    required: true
  node_bits:
    description: The variable C(evio_node_bits), one number, or one for each network of O(pod_cidr).
    type: str
    required: true
  overlay:
    description: The variable C(evio_overlay).
    type: str
    required: true
  mtu:
    description: The variable C(evio_mtu), in bytes, where it is given.
    type: int
  reserved_cidrs:
    description: The variable C(evio_reserved_cidrs).
    type: list
    elements: str
    default: []
  control_plane:
    description: Names of the hosts of the group C(evio_control_plane).
    type: list
    elements: str
    required: true
  leaving:
    description: Names of nodes that are to be removed; fails where the cluster cannot do without them.
    type: list
    elements: str
  node_descriptions:
    description: The hosts of the group C(evio_nodes).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The host's name in the inventory.
        type: str
        required: true
      host_overlay_address:
        description: The host's C(evio_host_overlay_address).
        type: str
      public_endpoint:
        description: The host's C(evio_public_endpoint), where it has one.
        type: str
      host_account:
        description: The name of the host's C(evio_xmpp_host_account), with EdgeVPN.io.
        type: str
      pod_account:
        description: The name of the host's C(evio_xmpp_pod_account), with EdgeVPN.io.
        type: str
      evio_node_id:
        description: The host's C(evio_node_id), with EdgeVPN.io, where it has one.
        type: str
  xmpp_host:
    description: EdgeVPN.io's signalling server.
    type: str
  overlay_ids:
    description: EdgeVPN.io's ids of the host overlay and of the pod overlay.
    type: list
    elements: str
    default: []
  signalling:
    description: The hosts of the group C(evio_signalling).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Check the description of the cluster
  evio.cni.cluster_info:
    name: kubernetes
    host_overlay_cidr: 10.10.0.0/16
    pod_cidr: 10.244.0.0/16
    node_bits: 8
    overlay: wireguard
    control_plane: [node1]
    node_descriptions:
      - name: node1
        host_overlay_address: 10.10.0.1
        public_endpoint: 198.51.100.11
      - name: node2
        host_overlay_address: 10.10.0.2
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
relays:
  description: Names of the nodes that others reach without a NAT in between.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import EvioError
from ..module_utils.inventory.cluster import Cluster, EdgeVpnMember, EdgeVpnSite, Node, check_cluster, check_leaving


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "host_overlay_cidr": {"type": "str", "required": True},
            "pod_cidr": {"type": "str", "required": True},
            "node_bits": {"type": "str", "required": True},
            "overlay": {"type": "str", "required": True},
            "mtu": {"type": "int"},
            "reserved_cidrs": {"type": "list", "elements": "str", "default": []},
            "control_plane": {"type": "list", "elements": "str", "required": True},
            "leaving": {"type": "list", "elements": "str"},
            "node_descriptions": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "host_overlay_address": {"type": "str"},
                    "public_endpoint": {"type": "str"},
                    "host_account": {"type": "str"},
                    "pod_account": {"type": "str"},
                    "evio_node_id": {"type": "str"},
                },
            },
            "xmpp_host": {"type": "str"},
            "overlay_ids": {"type": "list", "elements": "str", "default": []},
            "signalling": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    nodes = tuple(
        Node(
            node["name"],
            node["host_overlay_address"] or None,
            node["public_endpoint"] or None,
            EdgeVpnMember(node["host_account"] or "", node["pod_account"] or "", node["evio_node_id"] or ""),
        )
        for node in params["node_descriptions"]
    )
    cluster = Cluster(
        name=params["name"],
        host_overlay_cidr=params["host_overlay_cidr"],
        pod_cidr=params["pod_cidr"],
        node_bits=params["node_bits"],
        nodes=nodes,
        overlay=params["overlay"],
        mtu=params["mtu"],
        reserved_cidrs=tuple(params["reserved_cidrs"]),
        control_plane=tuple(params["control_plane"]),
        evio=EdgeVpnSite(params["xmpp_host"] or "", tuple(params["overlay_ids"]), tuple(params["signalling"])),
    )
    try:
        check_cluster(cluster)
        if params["leaving"] is not None:
            check_leaving(cluster, params["leaving"])
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, relays=[node.name for node in nodes if node.public_endpoint])


if __name__ == "__main__":
    main()
