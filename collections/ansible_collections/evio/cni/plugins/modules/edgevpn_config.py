#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EdgeVPN.io's config.json as an Ansible resource: the library renders and checks it, this puts it in place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edgevpn_config
short_description: The configuration of EdgeVPN.io on a node
version_added: 0.1.0
description:
  - Writes the C(config.json) of EdgeVPN.io 24.x for both overlays, readable by root alone, or removes it.
  - Refuses what its controller would silently misread, also where it comes from O(overrides), and names that do not
    resolve on the node, for which the controller would wait without end.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
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
      - Whether the file is there. V(absent) also removes the bridges that EdgeVPN.io has made of it and leaves behind
        when it is stopped, which it must have been.
    type: str
    choices: [present, absent]
    default: present
  cluster:
    description: The cluster's name, from which ids of nodes are made. Required with O(state=present).
    type: str
  node:
    description: This node's name in O(node_ids). Required with O(state=present).
    type: str
  node_ids:
    description:
      - All nodes' ids by their names, 32 hexadecimal digits in lower case. Required with O(state=present).
      - An empty one is made from the names of cluster and node, and stays.
    type: dict
  host_overlay:
    description: The overlay between the nodes. Required with O(state=present).
    type: dict
    suboptions: &suboptions
      id:
        description: Its id, at most 12 characters; bridges are named after it.
        type: str
        required: true
      username:
        description: Account on the signalling server, another one for each overlay.
        type: str
        required: true
      password:
        description: The account's password.
        type: str
        required: true
      address:
        description: >-
          Address and prefix length on the overlay's application bridge. Without one, what is in the file already stays.
        type: str
  pod_overlay:
    description: The overlay between the pods. Required with O(state=present).
    type: dict
    suboptions: *suboptions
  xmpp_host:
    description: Name or address of the signalling server. Required with O(state=present).
    type: str
  xmpp_port:
    description: Its port.
    type: int
    default: 5222
  mtu:
    description: Bytes of an IP packet on all bridges.
    type: int
    default: 1410
  stun:
    description: STUN servers, C(host:port).
    type: list
    elements: str
    default: []
  turn:
    description: TURN servers, for pairs that cannot be punched.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: C(host:port).
        type: str
        required: true
      user:
        description: The account's name.
        type: str
        required: true
      password:
        description: The account's password.
        type: str
        required: true
  switch_protocol:
    description: How the overlays' bridges avoid loops; V(learning) stands for not at all.
    type: str
    choices: [BF, STP, learning]
    default: BF
  ignored_interfaces:
    description: Interfaces whose addresses are no candidates for tunnels, besides the usual ones.
    type: list
    elements: str
    default: []
  overrides:
    description:
      - Merged over the file, dictionaries key by key; whatever else EdgeVPN.io knows. What other roles or nodes are
        told of, as addresses, MTU and ids, has options of its own and cannot be changed here.
      - What is called C(Password) in it is kept out of logs.
    type: dict
    default: {}
  path:
    description: The file.
    type: path
    default: /etc/opt/evio/config.json
  ovsdb:
    description: Socket of the OVSDB server.
    type: str
    default: unix:/var/run/openvswitch/db.sock
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
  description: The file.
  returned: always
  type: str
  sample: /etc/opt/evio/config.json
pod_bridge:
  description: The bridge that pods plug into.
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
  description: The bridges that were removed, or would be.
  returned: when O(state=absent)
  type: list
  elements: str
"""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.atomic_file import write_atomic
from ..module_utils.errors import EvioError
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
"""What EdgeVPN.io calls its secrets, wherever they stand."""


class EvioConfig:
    """One run: read the file once, render, compare, write unless in check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        # Not known to the argument_spec, as those of its own options are.
        module.no_log_values.update(_secrets(self.params["overrides"]))
        self.path = Path(self.params["path"])
        self.before = self._read()

    def present(self) -> dict[str, Any]:
        node = self._node()
        wanted = build_edgevpn_config(node)
        _check_names(wanted)
        text = _text(wanted)
        changed = self.before != text or self.path.stat().st_mode & 0o777 != MODE
        if changed and not self.module.check_mode:
            self._write(text)
        return {
            **self._result(changed, _text(_without_secrets(wanted))),
            "pod_bridge": node.pod_overlay.bridge,
            "host_bridge": node.host_overlay.bridge,
            "node_id": node.node_id,
        }

    def absent(self) -> dict[str, Any]:
        """The file goes last: it tells which bridges there are."""
        removed = [
            name
            for name in configured_bridges(self._existing())
            if remove_bridge(name, ovsdb=self.params["ovsdb"], dry_run=self.module.check_mode, only_ours=False)
        ]
        if not self.module.check_mode:
            self.path.unlink(missing_ok=True)
        return {**self._result(self.before is not None, ""), "bridges": removed}

    def _result(self, changed: bool, after: str) -> dict[str, Any]:
        return {
            "changed": changed,
            "path": str(self.path),
            "diff": {
                "before_header": str(self.path),
                "after_header": str(self.path),
                "before": _text(_without_secrets(self._existing())) if self.before else "",
                "after": after,
            },
        }

    def _node(self) -> EdgeVpnNode:
        params = self.params
        identities = {
            name: str(identity or node_id(params["cluster"], name)) for name, identity in params["node_ids"].items()
        }
        check_node_ids(identities)
        if params["node"] not in identities:
            raise EdgeVpnConfigError(f"node_ids: {params['node']!r}, this node, is not among them")
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
        address = overlay["address"] or app_bridge_address(self._existing(), overlay["id"])
        return EdgeVpnOverlay(overlay["id"], XmppAccount(overlay["username"], overlay["password"]), address)

    def _existing(self) -> dict[str, Any]:
        """What Evio was told before; a file that is no JSON is written anew."""
        with contextlib.suppress(ValueError):
            data = json.loads(self.before or "{}")
            return data if isinstance(data, dict) else {}
        return {}

    def _read(self) -> str | None:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise EdgeVpnConfigError(f"cannot read {self.path}: {error}") from error

    def _write(self, text: str) -> None:
        try:
            write_atomic(self.path, text, mode=MODE)
        except OSError as error:
            raise EdgeVpnConfigError(f"cannot write {self.path}: {error.strerror}") from error


def _text(config: dict[str, Any]) -> str:
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


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "(secret)" if key == SECRET_KEY else _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
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
            "xmpp_port": {"type": "int", "default": 5222},
            "mtu": {"type": "int", "default": 1410},
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
        },
        required_if=[
            ("state", "present", ["cluster", "node", "node_ids", "host_overlay", "pod_overlay", "xmpp_host"]),
        ],
        supports_check_mode=True,
    )
    try:
        config = EvioConfig(module)
        result = config.present() if module.params["state"] == "present" else config.absent()
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
