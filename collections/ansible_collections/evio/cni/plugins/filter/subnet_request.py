# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a host's variables to the entry that the module node_subnet takes in its ``nodes`` option."""

from __future__ import annotations

DOCUMENTATION = r"""
name: subnet_request
short_description: What a host asks of the registry
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Turns one host's variables into an entry of the option C(subnet_requests) of M(evio.cni.node_subnet).
options:
  _input:
    description: The host's entry of C(hostvars), with C(__evio_node_claim) as M(evio.cni.node_claim_info) has left it.
    type: dict
    required: true
"""

EXAMPLES = r"""
nodes: "{{ ansible_play_hosts | map('extract', hostvars) | map('evio.cni.subnet_request') }}"
"""

RETURN = r"""
_value:
  description: The host's name, machine-id, pinned subnet, whether it was replaced, and what it is set up with.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any


def subnet_request(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Name, machine-id, pin and replacement of one host, and the claim that it is set up with, if it is."""
    found = variables.get("__evio_node_claim") or {}
    return {
        "name": str(variables["inventory_hostname"]),
        "machine_id": str(found.get("machine_id") or ""),
        "subnet": str(variables.get("evio_node_subnet_pin") or ""),
        "replaced": variables.get("evio_node_replaced") in (True, "true", "True", "yes"),
        "configured": found.get("configured") or None,
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"subnet_request": subnet_request}
