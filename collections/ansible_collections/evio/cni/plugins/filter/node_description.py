# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a host's variables to the entry that the modules take in their ``nodes`` option."""

from __future__ import annotations

DOCUMENTATION = r"""
name: node_description
short_description: What the modules need to know of a host
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Turns one host's variables into an entry of the C(nodes) option of M(evio.cni.cluster). What the inventory does not
    give is empty, so that the module can say so.
options:
  _input:
    description: The host's entry of C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
nodes: "{{ groups['evio_nodes'] | map('extract', hostvars) | map('evio.cni.node_description') }}"
"""

RETURN = r"""
_value:
  description: The host's name, host overlay address and public endpoint.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any


def node_description(variables: Mapping[str, Any]) -> dict[str, str]:
    """Name, host overlay address and public endpoint; an empty string where the inventory gives none."""
    return {
        "name": str(variables["inventory_hostname"]),
        "host_overlay_address": str(variables.get("evio_host_overlay_address") or ""),
        "public_endpoint": str(variables.get("evio_public_endpoint") or ""),
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"node_description": node_description}
