# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that turns a host's variables into an entry of the option ``subnet_requests`` of node_subnet."""

from __future__ import annotations

DOCUMENTATION = r"""
name: subnet_request
short_description: Request a subnet for a host
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Turns one host's variables into an entry of the option C(subnet_requests) of M(evio.cni.node_subnet).
  - Fails if the host's CNI configuration does not tell its subnets.
options:
  _input:
    description: The host's entry of C(hostvars), with M(evio.cni.host_info)'s result in C(__evio_host).
    type: dict
    required: true
  former_names:
    description: The former names of nodes whose claims move to a new name, by the new name.
    type: dict
    default: {}
"""

EXAMPLES = r"""
subnet_requests: "{{ ansible_play_hosts | map('extract', hostvars) | map('evio.cni.subnet_request') }}"
"""

RETURN = r"""
_value:
  description: >-
    The host's name, machine-id and pinned subnet, whether it was replaced, the claim that it is configured with, and
    its former name.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean


def subnet_request(variables: Mapping[str, Any], former_names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return name, machine-id, pinned subnet and replacement of one host, and its configured claim or None.

    ``former_names`` has the former name by the new name of nodes whose claims move to the new name. Raises
    AnsibleFilterError for a host whose configured claim cannot be read.
    """
    found = variables.get("__evio_host") or {}
    if found.get("claim_fault"):
        raise AnsibleFilterError(f"{variables['inventory_hostname']}: {found['claim_fault']}")
    return {
        "name": str(variables["inventory_hostname"]),
        "machine_id": str((found.get("identity") or {}).get("machine_id") or ""),
        "subnet": str(variables.get("evio_node_subnet_pin") or ""),
        "replaced": boolean(variables.get("evio_node_replaced"), strict=False),
        "configured": found.get("configured") or None,
        "renamed_from": (former_names or {}).get(str(variables["inventory_hostname"]), ""),
    }


class FilterModule:
    """Register the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"subnet_request": subnet_request}
