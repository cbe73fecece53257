# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name, which needs no module: it reads the results of all hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_reachability_info
short_description: Check that all nodes of a run reach each other
version_added: 0.1.0
description:
  - Shows, from the results of M(evio.cni.overlay_ready_info) in the fact C(__evio_reachability) of each host, how each
    node reaches each other node. With more than 16 nodes, each node has one line, and so has each pair that fails.
  - Fails if a node does not reach another node of O(nodes), or if it reaches no node at all and its variable
    C(evio_overlay_alone) is not true, nor O(alone). In check mode it fails only if a node could not measure.
  - Run it once, with C(run_once); a failure then ends the run for all hosts.
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
    description: The hosts of the run that Ansible has not lost, C(ansible_play_batch).
    type: list
    elements: str
    required: true
  alone:
    description: Whether any node may reach no node at all.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Check that all nodes of this run reach each other
  evio.cni.overlay_reachability_info:
    nodes: "{{ ansible_play_batch }}"
  run_once: true
"""

RETURN = r"""
msg:
  description: The table, or why the run may not go on.
  returned: always
  type: raw
table:
  description: The table.
  returned: failure
  type: list
  elements: str
new_nodes:
  description: The nodes that reach no node outside of the run.
  returned: success
  type: list
  elements: str
"""
