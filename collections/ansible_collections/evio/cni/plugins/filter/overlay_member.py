# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a host's variables, its public key among them, to the entry that the overlay modules take in ``nodes``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: overlay_member
short_description: What other nodes need to know of a node of the overlay
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Turns one host's variables into an entry of the option C(members) of M(evio.cni.wireguard_overlay).
options:
  _input:
    description:
      - The host's entry of C(hostvars), with what M(evio.cni.wireguard_key) returned in C(__evio_wireguard_key).
    type: dict
    required: true
"""

EXAMPLES = r"""
nodes: "{{ ansible_play_hosts | map('extract', hostvars) | map('evio.cni.overlay_member') }}"
"""

RETURN = r"""
_value:
  description: The host's name, host overlay address, public key and, of a public node, endpoint.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any


def overlay_member(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Name, host overlay address, public key (None where it is not made yet) and endpoint (None behind a NAT)."""
    endpoint = variables.get("evio_public_endpoint")
    return {
        "name": str(variables["inventory_hostname"]),
        "address": str(variables["evio_host_overlay_address"]),
        "public_key": variables["__evio_wireguard_key"]["public_key"],
        "endpoint": str(endpoint) if endpoint else None,
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"overlay_member": overlay_member}
