# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name, which needs no module: it looks at the inventory only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_values_info
short_description: Refuse values that the roles do not allow
version_added: 0.1.0
description:
  - Fails if a variable of a host of the playbooks' groups has a value of another type than the C(argument_specs) of
    this collection's roles say, a value that is not one of their choices, or a number outside of its limits, such as a
    port above 65535.
  - Fails if C(evio_teardown_keep) names something else than what can stay and packages that the roles install.
  - Checks all roles before anything is changed, and a value that all hosts share once. A role that is used alone is
    checked by Ansible, for each host.
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
"""

EXAMPLES = r"""
- name: Refuse values that the roles do not allow
  evio.cni.inventory_values_info:
  run_once: true
"""

RETURN = r""" # """
