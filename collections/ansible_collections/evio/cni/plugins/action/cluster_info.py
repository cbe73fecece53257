# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin cluster_info: checks the inventory's description of a cluster; inventory/cluster has the checks.

It runs in Ansible's own process. A module on the control machine would be run with the settings that the inventory has
for the nodes: `become` would ask for sudo there.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.errors import EvioError
from ..module_utils.inventory.cluster import (
    Cluster,
    EdgeVpnMember,
    EdgeVpnSite,
    KubernetesSite,
    Node,
    check_cluster,
    check_leaving,
)
from ..module_utils.inventory.identities import check_renames
from ..module_utils.overlay.edgevpn.config import EdgeVpnTuning

_ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "host_overlay_cidr": {"type": "str", "required": True},
    "pod_cidr": {"type": "str", "required": True},
    "node_bits": {"type": "str", "required": True},
    "overlay": {"type": "str", "required": True},
    "mtu": {"type": "int"},
    "reserved_cidrs": {"type": "list", "elements": "str", "default": []},
    "service_cidrs": {"type": "list", "elements": "str", "default": []},
    "control_plane": {"type": "list", "elements": "str", "required": True},
    "pod_nodes": {"type": "list", "elements": "str", "default": []},
    "etcd_managed": {"type": "bool", "default": False},
    "kubernetes": {"type": "str", "default": "none"},
    "kubernetes_endpoint": {"type": "str"},
    "leaving": {"type": "list", "elements": "str"},
    "rename": {"type": "dict", "default": {}},
    "node_descriptions": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "host_overlay_address": {"type": "str"},
            "public_endpoint": {"type": "str"},
            "host_account": {"type": "str"},
            "pod_account": {"type": "str"},
            "evio_node_id": {"type": "str"},
            "kubernetes_name": {"type": "str"},
            "edgevpn_tuning": {
                "type": "dict",
                "options": {
                    "topology_interval": {"type": "int"},
                    "min_successors": {"type": "int"},
                    "max_long_distance_edges": {"type": "int"},
                    "max_on_demand_edges": {"type": "int"},
                    "log_level": {"type": "str"},
                    "bounded_flood": {"type": "dict"},
                },
            },
            "edgevpn_overrides": {"type": "dict"},
            "edgevpn_override_lists": {"type": "str", "choices": ["append", "replace"], "default": "append"},
        },
    },
    "xmpp_host": {"type": "str"},
    "overlay_ids": {"type": "list", "elements": "str", "default": []},
    "signalling": {"type": "list", "elements": "str", "default": []},
    "switch_protocol": {"type": "str", "default": "BF"},
    "pod_mode": {"type": "str", "choices": ["flat", "routed", "none"], "default": "flat"},
}


class ActionModule(ActionBase):
    """Check the cluster, which of its nodes may leave, and which names nodes can get."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(argument_spec=_ARGUMENT_SPEC)
        cluster = _cluster(arguments)
        try:
            check_cluster(cluster)
            if arguments["leaving"] is not None:
                check_leaving(cluster, arguments["leaving"])
            renames = {str(former): str(name) for former, name in arguments["rename"].items()}
            check_renames(renames, [node.name for node in cluster.nodes])
        except EvioError as error:
            raise AnsibleActionFail(str(error)) from None
        relays = [node.name for node in cluster.nodes if node.public_endpoint]
        return {**result, "changed": False, "relays": relays, "kubernetes": cluster.kubernetes.source}


def _cluster(arguments: dict[str, Any]) -> Cluster:
    return Cluster(
        name=arguments["name"],
        host_overlay_cidr=arguments["host_overlay_cidr"],
        pod_cidr=arguments["pod_cidr"],
        node_bits=arguments["node_bits"],
        nodes=tuple(_node(description) for description in arguments["node_descriptions"]),
        overlay=arguments["overlay"],
        mtu=arguments["mtu"],
        reserved_cidrs=tuple(arguments["reserved_cidrs"]),
        service_cidrs=tuple(arguments["service_cidrs"]),
        control_plane=tuple(arguments["control_plane"]),
        pod_nodes=tuple(arguments["pod_nodes"]),
        etcd_managed=arguments["etcd_managed"],
        kubernetes=_kubernetes(arguments),
        evio=EdgeVpnSite(
            arguments["xmpp_host"] or "",
            tuple(arguments["overlay_ids"]),
            tuple(arguments["signalling"]),
            arguments["switch_protocol"],
            has_pod_overlay=arguments["pod_mode"] != "none",
        ),
    )


def _kubernetes(arguments: dict[str, Any]) -> KubernetesSite:
    return KubernetesSite(
        source=arguments["kubernetes"],
        endpoint=arguments["kubernetes_endpoint"] or "",
        node_names=tuple(
            description["kubernetes_name"] or description["name"].lower()
            for description in arguments["node_descriptions"]
            if description["name"] in arguments["pod_nodes"]
        ),
    )


def _node(description: dict[str, Any]) -> Node:
    return Node(
        description["name"],
        description["host_overlay_address"] or None,
        description["public_endpoint"] or None,
        EdgeVpnMember(
            description["host_account"] or "",
            description["pod_account"] or "",
            description["evio_node_id"] or "",
            EdgeVpnTuning(**_given(description["edgevpn_tuning"])),
            description["edgevpn_overrides"] or {},
            description["edgevpn_override_lists"] == "replace",
        ),
    )


def _given(settings: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings that the inventory gives."""
    return {name: value for name, value in (settings or {}).items() if value is not None}
