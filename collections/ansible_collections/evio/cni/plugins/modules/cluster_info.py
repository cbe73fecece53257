# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name, which needs no module: it looks at the inventory only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_info
short_description: Check the description of a cluster
version_added: 0.1.0
description:
  - Fails with a message that names the variable and its value, for example if networks overlap, if there are more
    nodes than subnets, or if a node has no address.
  - Changes nothing. Runs in Ansible itself and connects to no host, so it needs no rights on the control machine. Run
    it once, with C(run_once).
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
  service_cidrs:
    description: The variable C(evio_service_network), as a list.
    type: list
    elements: str
    default: []
  control_plane:
    description: Names of the hosts of the group C(evio_control_plane).
    type: list
    elements: str
    required: true
  pod_nodes:
    description: Names of the hosts of the group C(evio_pod_nodes).
    type: list
    elements: str
    default: []
  etcd_managed:
    description: The variable C(evio_etcd_managed).
    type: bool
    default: false
  kubernetes:
    description: The variable C(evio_kubernetes).
    type: str
    default: none
  kubernetes_endpoint:
    description: The variable C(evio_kubernetes_endpoint), if it is given.
    type: str
  leaving:
    description: Names of nodes that will be removed. Fails if the cluster cannot work without them.
    type: list
    elements: str
  rename:
    description:
      - The new names of nodes by their former names. Fails if the inventory contradicts them. What the machines say is
        left to M(evio.cni.inventory_identities_info).
    type: dict
    default: {}
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
      kubernetes_name:
        description: The host's C(evio_kubernetes_node_name), if it is given.
        type: str
      edgevpn_tuning:
        description: What the option C(tuning) of M(evio.cni.edgevpn_config) will be on the host. Only with EdgeVPN.io.
        type: dict
      edgevpn_overrides:
        description: The host's C(evio_controller_overrides). Only with EdgeVPN.io.
        type: dict
      edgevpn_override_lists:
        description: The host's C(evio_controller_override_lists). Only with EdgeVPN.io.
        type: str
        choices: [append, replace]
        default: append
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
  switch_protocol:
    description: C(evio_switch_protocol).
    type: str
    default: BF
  pod_mode:
    description: C(evio_pod_mode).
    type: str
    choices: [flat, routed, none]
    default: flat
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
  run_once: true
"""

RETURN = r"""
relays:
  description: Names of the nodes that have a public endpoint.
  returned: success
  type: list
  elements: str
kubernetes:
  description: O(kubernetes).
  returned: success
  type: str
"""
