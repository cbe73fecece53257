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
  - Refuses settings that EdgeVPN.io's controller would misread without an error, also if they come from O(overrides).
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
  - python3-openvswitch, for O(state=absent)
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
    description: The overlay between the pods. Required with O(state=present).
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
    description: How the overlays' bridges avoid loops. V(learning) is a plain learning switch, which does not.
    type: str
    choices: [BF, STP, learning]
    default: BF
  ignored_interfaces:
    description: Interfaces whose addresses EdgeVPN.io does not offer for tunnels, besides those of container networks.
    type: list
    elements: str
    default: []
  overrides:
    description:
      - Other settings of EdgeVPN.io. They are merged over the file, dictionaries key by key.
      - Addresses, MTU and ids cannot be changed here, because other roles and nodes are told about them. Use their own
        options.
      - Values of keys named C(Password) are kept out of logs.
    type: dict
    default: {}
  path:
    description: Path of the file.
    type: path
    default: /etc/opt/evio/config.json
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
pod_bridge:
  description: The bridge that pods are plugged into.
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

import json
import socket
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.defaults import OVS_TIMEOUT
from ..module_utils.differences import Differences
from ..module_utils.managed_file import ManagedFile, result_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.edgevpn.accounts import XmppAccount
from ..module_utils.overlay.edgevpn.config import (
    CONFIG_PATH,
    EdgeVpnConfigError,
    EdgeVpnNode,
    EdgeVpnOverlay,
    TurnServer,
    app_bridge_address,
    build_edgevpn_config,
    check_node_ids,
    configured_bridges,
    names_to_resolve,
    node_id,
)
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

    def run(self) -> dict[str, Any]:
        return self._present() if self.params["state"] == "present" else self._absent()

    def _present(self) -> dict[str, Any]:
        node = self._node()
        config = build_edgevpn_config(node)
        _check_names(config)
        change = self.file.change_to(_rendered(config))
        if not self.check_mode:
            change.apply()
        return {
            **result_of(change),
            "path": str(self.file.path),
            "pod_bridge": node.pod_overlay.bridge,
            "host_bridge": node.host_overlay.bridge,
            "node_id": node.node_id,
        }

    def _absent(self) -> dict[str, Any]:
        removed = [name for name in configured_bridges(self.existing) if self._remove_bridge(name)]
        bridges = Differences()
        bridges.compare("bridges", [], removed)
        change = self.file.change_to(None)
        if not self.check_mode:
            # Last, because the file names the bridges that a run that was killed has to remove when it is repeated.
            change.apply()
        return {
            **result_of(change, bridges),
            "path": str(self.file.path),
            "bridges": removed,
        }

    def _remove_bridge(self, name: str) -> bool:
        # EdgeVPN.io's bridges do not have our mark.
        access = {key: self.params[key] for key in ("ovsdb", "timeout")}
        return remove_bridge(name, **access, dry_run=self.check_mode, only_ours=False)

    def _node(self) -> EdgeVpnNode:
        params = self.params
        identities = {
            name: str(identity or node_id(params["cluster"], name)) for name, identity in params["node_ids"].items()
        }
        check_node_ids(identities)
        if params["node"] not in identities:
            raise EdgeVpnConfigError(f"node_ids has no entry for this node, {params['node']!r}; add it")
        protocol = params["switch_protocol"]
        return EdgeVpnNode(
            node_id=identities[params["node"]],
            host_overlay=self._overlay(params["host_overlay"]),
            pod_overlay=self._overlay(params["pod_overlay"]),
            xmpp_host=params["xmpp_host"],
            xmpp_port=params["xmpp_port"],
            mtu=params["mtu"],
            stun=tuple(params["stun"]),
            turn=tuple(TurnServer(turn["address"], turn["user"], turn["password"]) for turn in params["turn"]),
            switch_protocol=None if protocol == "learning" else protocol,
            ignored_interfaces=tuple(params["ignored_interfaces"]),
            overrides=params["overrides"],
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
                f"{name!r} does not resolve on this node: {error}; Evio makes no bridge until it does"
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
            "overrides": {"type": "dict", "default": {}},
            "path": {"type": "path", "default": CONFIG_PATH},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "timeout": {"type": "float", "default": OVS_TIMEOUT},
        },
        required_if=[
            ("state", "present", ["cluster", "node", "node_ids", "host_overlay", "pod_overlay", "xmpp_host"]),
        ],
        supports_check_mode=True,
    )
    run_module(module, EdgeVpnConfig)


if __name__ == "__main__":
    main()
