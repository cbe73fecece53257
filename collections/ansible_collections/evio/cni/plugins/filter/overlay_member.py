# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that turns a host's variables into an entry of the option ``members`` of wireguard_overlay."""

from __future__ import annotations

DOCUMENTATION = r"""
name: overlay_member
short_description: Describe a member of the WireGuard overlay for the other nodes
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Turns one host's variables into an entry of the option C(members) of M(evio.cni.wireguard_overlay).
options:
  _input:
    description:
      - The host's entry of C(hostvars), with the result of M(evio.cni.wireguard_key) in C(__evio_wireguard_key).
    type: dict
    required: true
"""

EXAMPLES = r"""
members: "{{ ansible_play_hosts | map('extract', hostvars) | map('evio.cni.overlay_member') }}"
"""

RETURN = r"""
_value:
  description: The host's name, host overlay address and public key, and the endpoint if the node is public.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any


def overlay_member(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return name, host overlay address, public key (None if there is no key yet) and endpoint (None behind a NAT)."""
    endpoint = variables.get("evio_public_endpoint")
    return {
        "name": str(variables["inventory_hostname"]),
        "address": str(variables["evio_host_overlay_address"]),
        "public_key": variables["__evio_wireguard_key"]["public_key"],
        "endpoint": str(endpoint) if endpoint else None,
    }


class FilterModule:
    """Register the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"overlay_member": overlay_member}
