# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name, which needs no module: it reads variables only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_nodes_info
short_description: Collect what the nodes of the overlay must know of each other
version_added: 0.1.0
description:
  - Reads the variables and facts of all nodes once, so that no task has to do it for each node. For 800 nodes, a list
    that each node makes of the variables of all nodes has 640 000 entries.
  - Run it once, with C(run_once), and again when more is known. Its result is registered for all hosts of the play.
  - Lists of all nodes are returned as text that options of the types C(dict), C(json) and C(list) take, because Ansible
    hands a text on to each node in one piece.
  - Runs in Ansible itself and connects to no host.
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
  nodes:
    description: All nodes of the overlay. Each must have C(evio_host_overlay_address).
    type: list
    elements: str
    required: true
  run:
    description: The hosts of the run, C(ansible_play_hosts_all).
    type: list
    elements: str
    required: true
  other_subnets:
    description: The pod subnets of nodes that are not asked in this run, by the nodes' names.
    type: dict
    default: {}
  pod_cidrs:
    description: The pod overlay in CIDR notation, for RV(pod_routes_digest).
    type: list
    elements: str
    default: []
  service_cidrs:
    description: The networks of the Services' addresses, for RV(pod_routes_digest).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Collect what the nodes must know of each other
  evio.cni.overlay_nodes_info:
    nodes: "{{ groups['evio_nodes'] }}"
    run: "{{ ansible_play_hosts_all }}"
  run_once: true
  register: overlay_nodes
"""

RETURN = r"""
addresses:
  description: The nodes' addresses in the host overlay, by the nodes' names, as JSON.
  returned: success
  type: str
  sample: '{"node1": "10.10.0.1", "node2": "10.10.0.2"}'
relays:
  description: The public endpoints of those nodes that have one.
  returned: success
  type: list
  elements: str
outside:
  description: The nodes that are not in O(run).
  returned: success
  type: list
  elements: str
members:
  description: >-
    The nodes whose WireGuard key this run has read, for the option O(evio.cni.wireguard_overlay#module:members_json).
  returned: success
  type: str
unasked:
  description: The other nodes, with commas between them.
  returned: success
  type: str
mtu:
  description: The lowest MTU in bytes that the nodes of this run have measured. Null if none has.
  returned: success
  type: int
pod_subnets:
  description: >-
    O(other_subnets), and the pod subnets of the nodes whose claim this run knows, by the nodes' names, as JSON.
  returned: success
  type: str
pod_routes_digest:
  description: >-
    SHA-256 of the file C(pod-routes.json) that all nodes must have, in hexadecimal digits, as
    M(evio.cni.wireguard_overlay) returns it. Null while this run does not know the claims of all nodes.
  returned: success
  type: str
without_claim:
  description: The nodes whose claim this run does not know, with commas between them.
  returned: success
  type: str
has_new_claims:
  description: Whether a node of this run is not configured with its claim yet, which is the last step of its first run.
  returned: success
  type: bool
edgevpn_ids:
  description: The nodes' ids in EdgeVPN.io, by the nodes' names, as JSON. An empty id is made from the name.
  returned: success
  type: str
"""
