# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin overlay_nodes_info: what the nodes of a run must know of each other; inventory/overlay describes it.

It runs in Ansible's own process, where the variables of all hosts are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.inventory.overlay import OverlayNode, describe_nodes

_ARGUMENT_SPEC: dict[str, Any] = {
    "nodes": {"type": "list", "elements": "str", "required": True},
    "run": {"type": "list", "elements": "str", "required": True},
    "other_subnets": {"type": "dict", "default": {}},
    "pod_cidrs": {"type": "list", "elements": "str", "default": []},
    "service_cidrs": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """Read the variables of each node once."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(argument_spec=_ARGUMENT_SPEC)
        hostvars = (task_vars or {})["hostvars"]
        nodes = [_node(name, hostvars[name]) for name in arguments["nodes"]]
        found = describe_nodes(
            nodes,
            arguments["run"],
            arguments["other_subnets"],
            pod_cidrs=arguments["pod_cidrs"],
            service_cidrs=arguments["service_cidrs"],
        )
        return {**result, "changed": False, **found}


def _node(name: str, variables: Mapping[str, Any]) -> OverlayNode:
    address = variables.get("evio_host_overlay_address")
    if not address:
        raise AnsibleActionFail(f"evio_host_overlay_address of {name}: not given; set it in the inventory")
    told = variables.get("__evio_wireguard_member") or {}
    claim = variables.get("__evio_node_subnet") or {}
    configured = (variables.get("__evio_host") or {}).get("configured") or {}
    return OverlayNode(
        name=name,
        address=str(address),
        endpoint=str(variables.get("evio_public_endpoint") or "") or None,
        edgevpn_id=str(variables.get("evio_node_id") or ""),
        # A node that was unreachable has a result without a key.
        has_told_key="public_key" in told,
        public_key=told.get("public_key"),
        next_public_key=told.get("next_public_key"),
        measured_mtu=told.get("mtu"),
        cidrs=tuple(claim["claimed_cidrs"]) if "claimed_cidrs" in claim else None,
        configured_cidrs=tuple(configured.get("cidrs") or ()),
    )
