#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that keeps the files of the WireGuard overlay; overlay/wireguard/config builds and checks them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_overlay
short_description: Configure the WireGuard overlay on a node
version_added: 0.1.0
description:
  - Writes the two files from which the node's agent (C(evio overlay run)) keeps the overlay up. The agent notices a new
    file within a second and changes only what differs, so running connections stay.
  - C(overlay.json) describes the host overlay, its members and their endpoints. It is written if O(members) or
    O(members_json) is given.
  - C(pod-routes.json) says which node has which pod subnet. It is written if O(pod_subnets) is given.
  - O(files) and O(units) are those of the agent. Units are started after the two files were written.
  - A node that is neither in O(members) nor in O(keep_nodes) is no longer a peer, so its key is worthless.
  - A member whose key and address stand under another name in C(overlay.json) has been renamed. C(pod-routes.json) gets
    its new name in the same step, so that its pods keep their route.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.units
attributes:
  check_mode:
    support: full
    details: A node whose key does not exist yet is shown without its key.
  diff_mode:
    support: full
    details: The files contain no secrets.
  idempotent:
    support: full
requirements:
  - python3-pyroute2, for O(state=absent)
options:
  state:
    description: Whether the node is in the overlay. V(absent) removes the files and the overlay's interface.
    type: str
    choices: [present, absent]
    default: present
  node:
    description: This node's name in O(members). Required with O(members).
    type: str
  host_cidr:
    description: The host overlay in CIDR notation. Required with O(members).
    type: str
  members:
    description: All nodes of the host overlay that this run knows about, this node among them.
    type: list
    elements: dict
    suboptions: &member
      name:
        description: The node's name.
        type: str
        required: true
      address:
        description: The node's address in the host overlay.
        type: str
        required: true
      public_key:
        description: The node's WireGuard public key. It may be missing in check mode only.
        type: str
      next_public_key:
        description: >-
          The public key to which the node changes while keys are rotated. The other nodes accept both meanwhile.
        type: str
      endpoint:
        description: >-
          Address or DNS name, with or without a port, at which every node can reach this node. A node with an endpoint
          relays for the other nodes.
        type: str
  members_json:
    description: >-
      The list O(members) as JSON text, as M(evio.cni.overlay_nodes_info) returns it. Ansible hands a text on to each
      node in one piece.
    type: json
  added_members:
    description: >-
      Nodes that a run without this node has set up, as O(members). They are added to the members in the files, where
      all others stay. Nothing is written on a node that has no host overlay yet.
    type: list
    elements: dict
    suboptions: *member
  keep_nodes:
    description: Members that were not reachable in this run. Their entries in the files stay as they are.
    type: list
    elements: str
    default: []
  removed_nodes:
    description: Nodes whose entries are removed from both files, also if they are in O(keep_nodes).
    type: list
    elements: str
    default: []
  interface:
    description: The overlay's interface.
    type: str
    default: evio0
  listen_port:
    description: WireGuard's UDP port on every node.
    type: int
    default: 51820
  mtu:
    description: MTU of the overlay in bytes.
    type: int
    default: 1420
  pod_cidrs:
    description: The pod overlay in CIDR notation, at most one IPv4 and one IPv6. Required with O(pod_subnets).
    type: list
    elements: str
  pod_subnets:
    description: The pod subnets of each node in CIDR notation, by the node's name. A node without a claim is left out.
    type: dict
  service_cidrs:
    description: >-
      The networks of the Services' addresses, at most one IPv4 and one IPv6. The node itself reaches them with its host
      overlay address as source. Written with O(pod_subnets).
    type: list
    elements: str
    default: []
  config:
    description: File of the host overlay.
    type: path
    default: /etc/evio/overlay.json
  pod_routes:
    description: File of the pod routes.
    type: path
    default: /etc/evio/pod-routes.json
  state_file:
    description: The agent's state file. It is removed with O(state=absent).
    type: path
    default: /run/evio-cni/overlay.json
"""

EXAMPLES = r"""
- name: Configure the host overlay
  evio.cni.wireguard_overlay:
    node: node3
    host_cidr: 10.10.0.0/16
    members:
      - name: node1
        address: 10.10.0.1
        public_key: n5dWnGdJBn9SfLdhtgKL5rSGMVXxM9byDVkkKQQF72I=
        endpoint: 198.51.100.11
      - name: node3
        address: 10.10.0.3
        public_key: vUQ54PWKDzcnpCPfhL2Odx8U0ir/raoaKzWVxXWsUWQ=

- name: Configure the routes to the pods of other nodes
  evio.cni.wireguard_overlay:
    pod_cidrs: [10.244.0.0/16]
    pod_subnets:
      node1: [10.244.0.0/24]
      node3: [10.244.2.0/24]
"""

RETURN = r"""
peers:
  description: Names of the other nodes in the host overlay.
  returned: when O(members) or O(members_json) is given
  type: list
  elements: str
pod_routes_digest:
  description: >-
    SHA-256 of C(pod-routes.json) as it is now or, in check mode, would be, in hexadecimal digits. Empty if there is
    none.
  returned: O(state=present)
  type: str
files:
  description: The files that were changed or, in check mode, would be changed.
  returned: success
  type: list
  elements: str
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ..module_utils import paths
from ..module_utils.defaults import OVERLAY_MTU
from ..module_utils.differences import Differences
from ..module_utils.firewall import forwarding
from ..module_utils.firewall.overlay_rules import remove_overlay_rules
from ..module_utils.firewall.traffic_rules import remove_traffic_rules
from ..module_utils.kernel.nft import NftError
from ..module_utils.managed_file import FileChange, ManagedFile, result_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.endpoint import LISTEN_PORT, OverlayError, parse_public_endpoint
from ..module_utils.overlay.wireguard.config import (
    INTERFACE,
    OverlayConfig,
    OverlayPeer,
    PodRoutes,
    check_overlay,
    check_pod_routes,
    digest_of_pod_routes,
    keep_peers,
    keep_subnets,
    new_names,
    parse_overlay,
    parse_pod_routes,
    rename_subnets,
    render_overlay,
    render_pod_routes,
)
from ..module_utils.overlay.wireguard.interface import link_exists, remove_link
from ..module_utils.overlay.wireguard.member import PENDING_KEY
from ..module_utils.systemd_units import OPTIONS, from_options


class WireguardOverlay:
    """One run: read the files once, build the wanted content, write what differs unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.config, self.pod_routes, self.state = (
            ManagedFile(self.params[name], mode=0o600, directory_mode=0o700)
            for name in ("config", "pod_routes", "state_file")
        )
        self.existing = self._existing_overlay()
        self.units = from_options(self.params["files"], self.params["units"], dry_run=self.check_mode)
        text = self.params["members_json"]
        self.members = _parse_members(text) if text is not None else self.params["members"]

    def run(self) -> dict[str, Any]:
        return self._present() if self.params["state"] == "present" else self._absent()

    def _present(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        changes: list[FileChange] = []
        config: OverlayConfig | None = None
        if self.members is not None:
            config = self._host_overlay()
            result["peers"] = [peer.name for peer in config.peers]
        elif self.existing is None and self.params["added_members"] is not None:
            return {**self._apply([]), **self._digest(self.pod_routes.text)}
        elif self.existing is not None and (self.params["removed_nodes"] or self.params["added_members"]):
            config = self._with_changed_members(self.existing)
        if config is not None:
            is_same = self.members is None and config == self.existing
            changes.append(self.config.change_to(self.config.text if is_same else render_overlay(config)))
        routes = self.pod_routes.text
        if self.params["pod_subnets"] is not None:
            routes = render_pod_routes(self._wanted_pod_routes())
        elif config is not None:
            routes = self._pod_routes_with_new_names(config)
        changes.append(self.pod_routes.change_to(routes))
        return {**result, **self._apply(changes), **self._digest(routes)}

    def _digest(self, routes: str | None) -> dict[str, str]:
        return {"pod_routes_digest": "" if routes is None else digest_of_pod_routes(routes)}

    def _absent(self) -> dict[str, Any]:
        name = self.existing.interface if self.existing else self.params["interface"]
        interface = Differences()
        interface.compare("interface", None, name if link_exists(name) else None)
        if not self.check_mode:
            if interface.changed:
                remove_link(name)
            forwarding.withdraw(name, self.existing.listen_port if self.existing else None)
            # Without nft there are no rules.
            with contextlib.suppress(NftError):
                remove_traffic_rules()
                remove_overlay_rules()
        # The state file goes too: the agent has ended, and a file without an agent means that the overlay is down.
        return self._apply([file.change_to(None) for file in (self.state, self.pod_routes, self.config)], interface)

    def _apply(self, changes: Sequence[FileChange], *others: Differences) -> dict[str, Any]:
        changed = [change for change in changes if change.changed]
        if not self.check_mode:
            for change in changed:
                change.apply()
        self.units.write_files()
        self.units.start()
        paths_changed = [str(change.file.path) for change in changed] + sorted(self.units.changed_files)
        return {**result_of(*others, *changed, *self.units.parts()), "files": paths_changed}

    def _host_overlay(self) -> OverlayConfig:
        params = self.params
        members = {node["name"]: self._member(node) for node in self.members}
        own = members.pop(params["node"], None)
        if own is None:
            raise OverlayError(f"members has no entry for this node, {params['node']!r}; add it")
        existing_peers = self.existing.peers if self.existing else ()
        config = OverlayConfig(
            node=own.name,
            address=own.address,
            host_cidr=params["host_cidr"],
            public_key=own.public_key,
            next_public_key=own.next_public_key,
            endpoint=own.endpoint,
            interface=params["interface"],
            listen_port=params["listen_port"],
            mtu=params["mtu"],
            peers=keep_peers(members.values(), existing_peers, self._kept_nodes()),
        )
        # A key that does not exist yet, in check mode, would not pass the check.
        if PENDING_KEY not in (*own.public_keys, *_keys_of(config.peers)):
            check_overlay(config, "the inventory")
        return config

    def _with_changed_members(self, existing: OverlayConfig) -> OverlayConfig:
        """Return the host overlay with the added and without the removed nodes."""
        added = [self._member(node) for node in self.params["added_members"] or () if node["name"] != existing.node]
        kept = [peer.name for peer in existing.peers if peer.name not in self.params["removed_nodes"]]
        config = replace(existing, peers=keep_peers(added, existing.peers, kept))
        if PENDING_KEY not in _keys_of(config.peers):
            check_overlay(config, "the inventory")
        return config

    def _pod_routes_with_new_names(self, config: OverlayConfig) -> str | None:
        """Return the text of the pod routes' file, in which nodes that ``config`` has under a new name have it too."""
        text = self.pod_routes.text
        names = new_names(config.members, self.existing.members) if self.existing is not None else {}
        # A file that cannot be parsed is replaced when the claims are known.
        with contextlib.suppress(OverlayError):
            if text is not None and names:
                return render_pod_routes(rename_subnets(parse_pod_routes(text), names))
        return text

    def _kept_nodes(self) -> list[str]:
        return [name for name in self.params["keep_nodes"] if name not in self.params["removed_nodes"]]

    def _member(self, node: dict[str, Any]) -> OverlayPeer:
        key = node["public_key"]
        if key is None:
            if not self.check_mode:
                raise OverlayError(
                    f"members: {node['name']} has no public key; run evio.cni.wireguard_key on that node first"
                )
            key = PENDING_KEY
        endpoint = parse_public_endpoint(node["endpoint"], self.params["listen_port"]) if node["endpoint"] else None
        return OverlayPeer(node["name"], key, node["address"], endpoint, node["next_public_key"])

    def _wanted_pod_routes(self) -> PodRoutes:
        subnets = self.params["pod_subnets"]
        if not all(isinstance(cidrs, list) for cidrs in subnets.values()):
            raise OverlayError(f"pod_subnets: {subnets!r} does not give every node a list of CIDRs")
        wanted = PodRoutes(
            tuple(self.params["pod_cidrs"]),
            {node: tuple(map(str, cidrs)) for node, cidrs in subnets.items()},
            tuple(self.params["service_cidrs"]),
        )
        # A file that cannot be parsed is replaced.
        with contextlib.suppress(OverlayError):
            if self.pod_routes.text is not None:
                wanted = keep_subnets(wanted, parse_pod_routes(self.pod_routes.text), self._kept_nodes())
        check_pod_routes(wanted, "the claims")
        return wanted

    def _existing_overlay(self) -> OverlayConfig | None:
        """Return the host overlay as its file has it; None if there is no file, or if it cannot be parsed."""
        with contextlib.suppress(OverlayError):
            return parse_overlay(self.config.text) if self.config.text is not None else None
        return None


def _keys_of(peers: Iterable[OverlayPeer]) -> list[str]:
    return [key for peer in peers for key in peer.public_keys]


def _parse_members(text: str) -> list[dict[str, Any]]:
    """Return the entries of the option members from JSON text. Raises OverlayError if they are not such entries."""
    try:
        members = json.loads(text)
    except ValueError as error:
        raise OverlayError(f"members_json is not JSON: {error}") from error
    result = ArgumentSpecValidator({"members": _MEMBERS}).validate({"members": members})
    if result.error_messages:
        raise OverlayError(f"members_json: {'; '.join(result.error_messages)}")
    parsed: list[dict[str, Any]] = result.validated_parameters["members"]
    return parsed


_MEMBERS: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "name": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "public_key": {"type": "str", "no_log": False},
        "next_public_key": {"type": "str", "no_log": False},
        "endpoint": {"type": "str"},
    },
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "node": {"type": "str"},
            "host_cidr": {"type": "str"},
            "members": _MEMBERS,
            "members_json": {"type": "json"},
            "added_members": _MEMBERS,
            "keep_nodes": {"type": "list", "elements": "str", "default": []},
            "removed_nodes": {"type": "list", "elements": "str", "default": []},
            "interface": {"type": "str", "default": INTERFACE},
            "listen_port": {"type": "int", "default": LISTEN_PORT},
            "mtu": {"type": "int", "default": OVERLAY_MTU},
            "pod_cidrs": {"type": "list", "elements": "str"},
            "pod_subnets": {"type": "dict"},
            "service_cidrs": {"type": "list", "elements": "str", "default": []},
            "config": {"type": "path", "default": paths.OVERLAY_CONFIG},
            "state_file": {"type": "path", "default": paths.OVERLAY_STATE},
            "pod_routes": {"type": "path", "default": paths.POD_ROUTES_CONFIG},
            **OPTIONS,
        },
        required_by={
            "members": ["node", "host_cidr"],
            "members_json": ["node", "host_cidr"],
            "pod_subnets": ["pod_cidrs"],
        },
        required_if=[("state", "present", ["members", "members_json", "added_members", "pod_subnets"], True)],
        mutually_exclusive=[("members", "members_json", "added_members")],
        supports_check_mode=True,
    )
    run_module(module, WireguardOverlay)


if __name__ == "__main__":
    main()
