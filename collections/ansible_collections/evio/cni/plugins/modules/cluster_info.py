#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that checks the inventory's description of a cluster; the checks are in inventory/cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_info
short_description: Check the description of a cluster
version_added: 0.1.0
description:
  - Fails with a message that names the variable and its value, for example if networks overlap, if there are more
    nodes than subnets, or if a node has no address.
  - Changes nothing. Run it once, on the control machine.
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
    description: The variable C(evio_pod_cidr). One network, or an IPv4 and an IPv6 network separated by a comma.
    type: str
    required: true
  node_bits:
    description: The variable C(evio_node_bits). One number, or one for each network of O(pod_cidr).
    type: str
    required: true
  overlay:
    description: The variable C(evio_overlay).
    type: str
    required: true
  mtu:
    description: The variable C(evio_mtu) in bytes, if it is given.
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
    description: Names of nodes that will be removed. Fails if the cluster cannot work without them.
    type: list
    elements: str
  node_descriptions:
    description: The hosts of the group C(evio_nodes), as the filter P(evio.cni.node_description#filter) returns them.
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
        description: The host's C(evio_public_endpoint), if it has one.
        type: str
      host_account:
        description: Username of the host's C(evio_xmpp_host_account). Only with EdgeVPN.io.
        type: str
      pod_account:
        description: Username of the host's C(evio_xmpp_pod_account). Only with EdgeVPN.io.
        type: str
      evio_node_id:
        description: The host's C(evio_node_id), if it has one. Only with EdgeVPN.io.
        type: str
  xmpp_host:
    description: Name or address of EdgeVPN.io's signalling server.
    type: str
  overlay_ids:
    description: EdgeVPN.io's ids of the host overlay and of the pod overlay, in this order.
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
  description: Names of the nodes that have a public endpoint.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.inventory.cluster import Cluster, EdgeVpnMember, EdgeVpnSite, Node, check_cluster, check_leaving
from ..module_utils.module_runner import Module, run_module


class ClusterInfo:
    """One run: check the cluster, and which of its nodes may leave."""

    def __init__(self, module: Module) -> None:
        self.params = module.params

    def run(self) -> dict[str, Any]:
        cluster = self._cluster()
        check_cluster(cluster)
        if self.params["leaving"] is not None:
            check_leaving(cluster, self.params["leaving"])
        return {"changed": False, "relays": [node.name for node in cluster.nodes if node.public_endpoint]}

    def _cluster(self) -> Cluster:
        params = self.params
        return Cluster(
            name=params["name"],
            host_overlay_cidr=params["host_overlay_cidr"],
            pod_cidr=params["pod_cidr"],
            node_bits=params["node_bits"],
            nodes=tuple(_node(description) for description in params["node_descriptions"]),
            overlay=params["overlay"],
            mtu=params["mtu"],
            reserved_cidrs=tuple(params["reserved_cidrs"]),
            control_plane=tuple(params["control_plane"]),
            evio=EdgeVpnSite(params["xmpp_host"] or "", tuple(params["overlay_ids"]), tuple(params["signalling"])),
        )


def _node(description: dict[str, Any]) -> Node:
    return Node(
        description["name"],
        description["host_overlay_address"] or None,
        description["public_endpoint"] or None,
        EdgeVpnMember(
            description["host_account"] or "", description["pod_account"] or "", description["evio_node_id"] or ""
        ),
    )


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
    run_module(module, ClusterInfo)


if __name__ == "__main__":
    main()
