# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name, which needs no module: it compares what other tasks have read."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_identities_info
short_description: Check that each host is the machine that the inventory takes it for
version_added: 0.1.0
description:
  - Fails for a machine that was set up as another node or for another cluster, for two hosts with one machine-id, and
    for a machine-id that identifies no machine. The message names each such host and what to do.
  - Changes nothing, and runs on the control machine. Run it once, before anything is changed on the hosts.
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
  cluster:
    description: The cluster's name.
    type: str
    required: true
  identities:
    description:
      - The result RV(evio.cni.host_info#module:identity) of each host, by its name. An empty one, as
        of a host that did not answer, is ignored.
    type: dict
    required: true
  nodes:
    description: The names of all nodes in the inventory. Required with O(rename).
    type: list
    elements: str
    default: []
  rename:
    description:
      - The new name of each node whose name is being changed, by its former name. Fails if the inventory still has the
        former name or has not the new one, and if the machine that answers under the new name is not that node.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Refuse hosts that are other machines
  evio.cni.inventory_identities_info:
    cluster: kubernetes
    identities:
      node1: {hostname: edge1, machine_id: 3f0d5c2f8f0c4a2f9d8d5cf1a3f3a6b1, node: node1, cluster: kubernetes}
  run_once: true
"""

RETURN = r"""
former_names:
  description: The former name of each node of O(rename), by its new name.
  returned: success
  type: dict
  sample: {edge1: node1}
"""
