#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that keeps EdgeVPN.io's config.json; overlay/edgevpn/config builds and checks its content."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edgevpn_config
short_description: Configure EdgeVPN.io on a node
version_added: 0.1.0
description:
  - Writes the C(config.json) of EdgeVPN.io 24.x for both overlays, readable by root alone, or removes it.
  - Refuses settings that EdgeVPN.io does not know or would misread without an error, also if they come from
    O(overrides).
  - Removes the bridges of overlays that are not configured any more, because EdgeVPN.io does not. Those that have the
    settings of a former O(switch_protocol) are removed when C(evio.service) starts.
  - Refuses names that do not resolve on the node, since the controller would wait for them forever.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.ovsdb
  - evio.cni.ovsdb.timeout
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Passwords are left out.
  idempotent:
    support: full
requirements:
  - python3-openvswitch, once EdgeVPN.io has made its bridges
options:
  state:
    description:
      - Whether the file exists.
      - V(absent) also removes the bridges that EdgeVPN.io leaves behind when it is stopped. Stop EdgeVPN.io first.
    type: str
    choices: [present, absent]
    default: present
  cluster:
    description: The cluster's name, from which the ids of nodes are made. Required with O(state=present).
    type: str
  node:
    description: This node's name in O(node_ids). Required with O(state=present).
    type: str
  node_ids:
    description:
      - The ids of all nodes by the nodes' names, each 32 hexadecimal digits in lower case. Required with
        O(state=present).
      - An empty id is made from the names of cluster and node, and never changes.
    type: dict
  addresses:
    description: The nodes' addresses in the host overlay, by the nodes' names. The agent's state file shows them.
    type: dict
    default: {}
  host_overlay:
    description: The overlay between the nodes. Required with O(state=present).
    type: dict
    suboptions: &suboptions
      id:
        description: The overlay's id, at most 12 characters. Its bridges are named after it.
        type: str
        required: true
      username:
        description: Account on the signalling server. Each overlay needs an account of its own.
        type: str
        required: true
      password:
        description: Password of the account.
        type: str
        required: true
      address:
        description: >-
          Address and prefix length of the overlay's application bridge. If it is not given, the address that is in the
          file stays.
        type: str
  pod_overlay:
    description: The overlay between the pods. Without it, EdgeVPN.io carries the nodes' packets alone.
    type: dict
    suboptions: *suboptions
  xmpp_host:
    description: Name or address of the signalling server. Required with O(state=present).
    type: str
  xmpp_port:
    description: Port of the signalling server.
    type: int
    default: 5222
  mtu:
    description: MTU of all bridges in bytes.
    type: int
    default: 1410
  stun:
    description: STUN servers, each as C(host:port).
    type: list
    elements: str
    default: []
  turn:
    description: TURN servers, for pairs of nodes whose NATs allow no direct tunnel.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: The server as C(host:port).
        type: str
        required: true
      user:
        description: Name of the account on the server.
        type: str
        required: true
      password:
        description: Password of the account.
        type: str
        required: true
  switch_protocol:
    description:
      - How the overlays' bridges avoid loops.
      - V(learning) is a plain learning switch, which does not. It is refused with more than two nodes.
    type: str
    choices: [BF, STP, learning]
    default: BF
  ignored_interfaces:
    description: Interfaces whose addresses EdgeVPN.io does not offer for tunnels, besides those of container networks.
    type: list
    elements: str
    default: []
  tuning:
    description: Settings that have the same values in all overlays. What is not given keeps EdgeVPN.io's default.
    type: dict
    suboptions:
      topology_interval:
        description: Seconds between two looks at which tunnels are missing.
        type: int
        default: 5
      min_successors:
        description: Tunnels that each node opens to its successors in the ring of all nodes.
        type: int
      max_long_distance_edges:
        description: Tunnels that each node opens across the ring.
        type: int
      max_on_demand_edges:
        description: Tunnels that each node opens to nodes to which it sends much.
        type: int
      log_level:
        description: Level of the controller's logs.
        type: str
      keep_logs:
        description: Whether the logs of the last run outlive a start of the service.
        type: bool
        default: true
      bounded_flood:
        description: Settings of BoundedFlood, those of its section and those of each overlay in it.
        type: dict
        default: {}
  overrides:
    description:
      - Other settings of EdgeVPN.io. They are merged over the file, dictionaries key by key.
      - A key that EdgeVPN.io 24 does not read is refused with the nearest one that it reads.
      - Addresses, MTU and ids cannot be changed here, because other roles and nodes are told about them. Use their own
        options.
      - Values of keys named C(Password) are kept out of logs.
    type: dict
    default: {}
  override_lists:
    description: Whether a list in O(overrides) is added to the list that the file would have, or replaces it.
    type: str
    choices: [append, replace]
    default: append
  path:
    description: Path of the file.
    type: path
    default: /etc/opt/evio/config.json
  members_path:
    description: Path of the file that tells the agent beside EdgeVPN.io which other nodes there are.
    type: path
    default: /etc/evio/edgevpn.json
  started_path:
    description: Path of the copy of O(path) with which the service was started.
    type: path
    default: /run/evio-cni/edgevpn-started.json
  state_path:
    description: Path of the agent's state file, which O(state=absent) removes.
    type: path
    default: /run/evio-cni/overlay.json
"""

EXAMPLES = r"""
- name: Configure EdgeVPN.io
  evio.cni.edgevpn_config:
    cluster: kubernetes
    node: node3
    node_ids: {node1: "", node2: "", node3: ""}
    host_overlay:
      id: HOSTOVL
      username: node3-host@xmpp.example
      password: "{{ vault_node3_host }}"
      address: 10.10.0.3/16
    pod_overlay:
      id: PODOVL
      username: node3-pods@xmpp.example
      password: "{{ vault_node3_pods }}"
    xmpp_host: xmpp.example
"""

RETURN = r"""
path:
  description: Path of the file.
  returned: success
  type: str
  sample: /etc/opt/evio/config.json
restart_needed:
  description: Whether EdgeVPN.io has to be restarted to take up its configuration.
  returned: when O(state=present)
  type: bool
pod_bridge:
  description: The bridge that pods are plugged into. Empty without O(pod_overlay).
  returned: when O(state=present)
  type: str
  sample: appPODOVL
host_bridge:
  description: The bridge that has the node's host overlay address.
  returned: when O(state=present)
  type: str
  sample: appHOSTOVL
node_id:
  description: The node's id.
  returned: when O(state=present)
  type: str
bridges:
  description: The bridges that were removed or, in check mode, would be removed.
  returned: when O(state=absent)
  type: list
  elements: str
"""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.atomic_file import read_text
from ..module_utils.defaults import OVS_TIMEOUT
from ..module_utils.differences import Differences
from ..module_utils.firewall.overlay_rules import remove_overlay_rules
from ..module_utils.kernel.nft import NftError
from ..module_utils.managed_file import FileChange, ManagedFile, result_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.edgevpn.accounts import XmppAccount
from ..module_utils.overlay.edgevpn.config import (
    CONFIG_PATH,
    EdgeVpnNode,
    EdgeVpnOverlay,
    EdgeVpnTuning,
    TurnServer,
    app_bridge_address,
    build_edgevpn_config,
    names_to_resolve,
    without_app_bridge_address,
)
from ..module_utils.overlay.edgevpn.members import MEMBERS_MODE, EdgeVpnMembers, Member, render_members
from ..module_utils.overlay.edgevpn.naming import (
    check_node_ids,
    configured_bridges,
    node_id,
    tap_characters,
)
from ..module_utils.overlay.edgevpn.schema import EdgeVpnConfigError
from ..module_utils.ovs.bridge import remove_bridge

MODE = 0o600
SECRET_KEY = "Password"
"""EdgeVPN.io's name for every secret in the file."""


class EdgeVpnConfig:
    """One run: read the file once, build the wanted content, compare, write unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        # The argument_spec marks the module's own secrets, but does not know those in overrides.
        module.no_log_values.update(_secrets(self.params["overrides"]))
        self.file = ManagedFile(self.params["path"], mode=MODE, show=_without_secrets)
        self.existing = _parsed(self.file.text)
        started = read_text(self.params["started_path"])
        self.started = _parsed(started) if started is not None else None
        self.members = ManagedFile(self.params["members_path"], mode=MEMBERS_MODE)

    def run(self) -> dict[str, Any]:
        return self._present() if self.params["state"] == "present" else self._absent()

    def _present(self) -> dict[str, Any]:
        identities = self._identities()
        node = self._node(identities)
        config = build_edgevpn_config(node)
        check_node_ids(identities, tap_characters(config))
        _check_names(config)
        change = self.file.change_to(_rendered(config))
        members = self.members.change_to(render_members(self._members(identities, node)))
        if not self.check_mode:
            members.apply()
            change.apply()
        bridges = Differences()
        bridges.compare("bridges", [], self._remove_former_bridges(config))
        return {
            **result_of(change, bridges, members),
            "restart_needed": self._is_restart_needed(config, change),
            "path": str(self.file.path),
            "pod_bridge": node.pod_overlay.bridge if node.pod_overlay is not None else "",
            "host_bridge": node.host_overlay.bridge,
            "node_id": node.node_id,
        }

    def _is_restart_needed(self, config: dict[str, Any], change: FileChange) -> bool:
        """Return whether the running service has another configuration, also one that a killed run has replaced.

        The gateway of the pods is no difference: the role pod_bridge puts it on the bridge until the next start.
        """
        if self.started is None:
            return change.changed
        pods = (self.params["pod_overlay"] or {}).get("id", "")
        return without_app_bridge_address(self.started, pods) != without_app_bridge_address(config, pods)

    def _absent(self) -> dict[str, Any]:
        removed = [name for name in configured_bridges(self.existing) if self._remove_bridge(name)]
        bridges = Differences()
        bridges.compare("bridges", [], removed)
        change = self.file.change_to(None)
        members = self.members.change_to(None)
        # A state file without an agent means that the overlay is down.
        state = ManagedFile(self.params["state_path"], mode=MEMBERS_MODE).change_to(None)
        if not self.check_mode:
            # Without nft there are no rules.
            with contextlib.suppress(NftError):
                remove_overlay_rules()
            state.apply()
            members.apply()
            # Last, because the file names the bridges that a run that was killed has to remove when it is repeated.
            change.apply()
        return {
            **result_of(change, bridges, members, state),
            "path": str(self.file.path),
            "bridges": removed,
        }

    def _remove_former_bridges(self, config: dict[str, Any]) -> list[str]:
        """Remove the bridges of overlays that are not configured any more: EdgeVPN.io forgets them. Return them."""
        former = [name for name in configured_bridges(self.existing) if name not in configured_bridges(config)]
        return [name for name in former if self._remove_bridge(name)]

    def _remove_bridge(self, name: str) -> bool:
        # EdgeVPN.io's bridges do not have our mark.
        access = {key: self.params[key] for key in ("ovsdb", "timeout")}
        return remove_bridge(name, **access, dry_run=self.check_mode, only_ours=False)

    def _identities(self) -> dict[str, str]:
        """Return the NodeIds of all nodes, by name."""
        params = self.params
        identities = {
            name: str(identity or node_id(params["cluster"], name)) for name, identity in params["node_ids"].items()
        }
        if params["node"] not in identities:
            raise EdgeVpnConfigError(f"node_ids has no entry for this node, {params['node']!r}; add it")
        return identities

    def _members(self, identities: dict[str, str], node: EdgeVpnNode) -> EdgeVpnMembers:
        addresses = self.params["addresses"]
        peers = {
            name: Member(identity, str(addresses.get(name) or ""))
            for name, identity in identities.items()
            if name != self.params["node"]
        }
        return EdgeVpnMembers(self.params["node"], node.host_overlay.bridge, peers)

    def _node(self, identities: dict[str, str]) -> EdgeVpnNode:
        params = self.params
        protocol, pods = params["switch_protocol"], params["pod_overlay"]
        return EdgeVpnNode(
            node_id=identities[params["node"]],
            host_overlay=self._overlay(params["host_overlay"]),
            pod_overlay=self._overlay(pods) if pods else None,
            xmpp_host=params["xmpp_host"],
            xmpp_port=params["xmpp_port"],
            mtu=params["mtu"],
            stun=tuple(params["stun"]),
            turn=tuple(TurnServer(turn["address"], turn["user"], turn["password"]) for turn in params["turn"]),
            switch_protocol=None if protocol == "learning" else protocol,
            node_count=len(identities),
            ignored_interfaces=tuple(params["ignored_interfaces"]),
            tuning=EdgeVpnTuning(**params["tuning"] or {}),
            overrides=params["overrides"],
            replaces_lists=params["override_lists"] == "replace",
        )

    def _overlay(self, overlay: dict[str, Any]) -> EdgeVpnOverlay:
        address = overlay["address"] or app_bridge_address(self.existing, overlay["id"])
        return EdgeVpnOverlay(overlay["id"], XmppAccount(overlay["username"], overlay["password"]), address)


def _parsed(text: str | None) -> dict[str, Any]:
    """Return the content of the file; empty if there is no file or its content is not a JSON object."""
    try:
        config = json.loads(text or "{}")
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _rendered(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2) + "\n"


def _check_names(config: dict[str, Any]) -> None:
    for name in names_to_resolve(config):
        try:
            socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise EdgeVpnConfigError(
                f"{name!r} does not resolve on this node: {error}; EdgeVPN.io waits for it"
            ) from error


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == SECRET_KEY and isinstance(item, str):
                yield item
            else:
                yield from _secrets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item)


def _without_secrets(text: str) -> str:
    """Return the text of the file as a diff may show it."""
    return _rendered(_redacted(_parsed(text)))


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "(secret)" if key == SECRET_KEY else _redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    return value


def main() -> None:
    overlay = {
        "type": "dict",
        "options": {
            "id": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "address": {"type": "str"},
        },
    }
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "cluster": {"type": "str"},
            "node": {"type": "str"},
            "node_ids": {"type": "dict"},
            "addresses": {"type": "dict", "default": {}},
            "host_overlay": overlay,
            "pod_overlay": overlay,
            "xmpp_host": {"type": "str"},
            "xmpp_port": {"type": "int", "default": EdgeVpnNode.xmpp_port},
            "mtu": {"type": "int", "default": EdgeVpnNode.mtu},
            "stun": {"type": "list", "elements": "str", "default": []},
            "turn": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "address": {"type": "str", "required": True},
                    "user": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                },
            },
            "switch_protocol": {"type": "str", "choices": ["BF", "STP", "learning"], "default": "BF"},
            "ignored_interfaces": {"type": "list", "elements": "str", "default": []},
            "tuning": {
                "type": "dict",
                "options": {
                    "topology_interval": {"type": "int", "default": EdgeVpnTuning.topology_interval},
                    "min_successors": {"type": "int"},
                    "max_long_distance_edges": {"type": "int"},
                    "max_on_demand_edges": {"type": "int"},
                    "log_level": {"type": "str"},
                    "keep_logs": {"type": "bool", "default": EdgeVpnTuning.keep_logs},
                    "bounded_flood": {"type": "dict", "default": {}},
                },
            },
            "overrides": {"type": "dict", "default": {}},
            "override_lists": {"type": "str", "choices": ["append", "replace"], "default": "append"},
            "path": {"type": "path", "default": CONFIG_PATH},
            "members_path": {"type": "path", "default": paths.EDGEVPN_MEMBERS},
            "started_path": {"type": "path", "default": paths.EDGEVPN_STARTED},
            "state_path": {"type": "path", "default": paths.OVERLAY_STATE},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": OVS_TIMEOUT},
        },
        required_if=[
            ("state", "present", ["cluster", "node", "node_ids", "host_overlay", "xmpp_host"]),
        ],
        supports_check_mode=True,
    )
    run_module(module, EdgeVpnConfig)


if __name__ == "__main__":
    main()
