# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that turns a host's variables into an entry of the option ``node_descriptions`` of cluster_info."""

from __future__ import annotations

DOCUMENTATION = r"""
name: node_description
short_description: Describe a host for the check of the cluster
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Turns one host's variables into an entry of the option C(node_descriptions) of M(evio.cni.cluster_info).
  - A value that the inventory does not give is empty, so that the module can say what is missing.
options:
  _input:
    description: The host's entry of C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
node_descriptions: "{{ groups['evio_nodes'] | map('extract', hostvars) | map('evio.cni.node_description') }}"
"""

RETURN = r"""
_value:
  description: >-
    The host's name, host overlay address and public endpoint, its name in Kubernetes, and for EdgeVPN.io the usernames
    of its accounts, its id, and the settings of its configuration file.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

_TUNING = {
    "topology_interval": "evio_topology_interval",
    "min_successors": "evio_min_successors",
    "max_long_distance_edges": "evio_max_long_distance_edges",
    "max_on_demand_edges": "evio_max_on_demand_edges",
    "log_level": "evio_controller_log_level",
    "bounded_flood": "evio_bounded_flood",
}
"""Variables of the role overlay that become settings of EdgeVPN.io, by the name of the option."""


def node_description(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return names, addresses, usernames, id and settings of a host.

    A value that the inventory does not give is empty, and a setting that it does not give is missing.
    """
    return {
        "name": str(variables["inventory_hostname"]),
        "host_overlay_address": str(variables.get("evio_host_overlay_address") or ""),
        "public_endpoint": str(variables.get("evio_public_endpoint") or ""),
        "host_account": _username(variables.get("evio_xmpp_host_account")),
        "pod_account": _username(variables.get("evio_xmpp_pod_account")),
        "evio_node_id": str(variables.get("evio_node_id") or ""),
        "kubernetes_name": str(variables.get("evio_kubernetes_node_name") or ""),
        "edgevpn_tuning": {option: variables[name] for option, name in _TUNING.items() if name in variables},
        "edgevpn_overrides": variables.get("evio_controller_overrides") or {},
        "edgevpn_override_lists": variables.get("evio_controller_override_lists") or "append",
    }


def _username(account: Any) -> str:
    return str(account.get("username") or "") if isinstance(account, Mapping) else ""


class FilterModule:
    """Register the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"node_description": node_description}
