# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name, which needs no module: it looks at the inventory only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_names_info
short_description: Refuse misspelt variables and groups
version_added: 0.1.0
description:
  - Fails if a host of the playbooks' groups has a variable that begins with C(evio_) and that no role of this
    collection reads, and proposes the nearest name. Looks at group variables, host variables, variables of the play and
    extra variables.
  - Fails if a variable of C(--extra-vars) has the name of one that a role reads, without C(evio_). An inventory may
    have such variables for itself.
  - Fails if a group resembles a group that the playbooks read, for example C(evio_nodse), or if C(evio_nodes) or
    C(evio_control_plane) has no host.
  - Fails if the run has no host of the groups that the playbook is for. Ansible would do nothing, and report success.
  - The names that roles read are the options in the C(argument_specs) of this collection's roles.
  - Runs in Ansible itself and connects to no host, so it needs no rights on the control machine. Run it once, with
    C(run_once).
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
  extra_names:
    description:
      - Names of the site's own variables and groups that begin with C(evio_), and of its variables of C(--extra-vars)
        that have the name of one of this collection's without C(evio_).
    type: list
    elements: str
    default: []
  run_groups:
    description: Groups of which at least one host must be in this run, which C(--limit) may have narrowed.
    type: list
    elements: str
    default: [evio_nodes, evio_control_plane, evio_pod_nodes, evio_signalling]
"""

EXAMPLES = r"""
- name: Refuse misspelt variables and groups
  evio.cni.inventory_names_info:
    extra_names: [evio_backup_server]
  run_once: true
"""

RETURN = r"""
hosts:
  description: Number of hosts that were looked at.
  returned: success
  type: int
"""
