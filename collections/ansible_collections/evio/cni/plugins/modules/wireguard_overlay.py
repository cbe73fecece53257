#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node is told about its overlay, as an Ansible resource: overlay_config shapes the files, this puts them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_overlay
short_description: The overlay of a node, WireGuard backend
version_added: 0.1.0
description:
  - Writes the two files from which the node's agent (C(evio overlay run)) keeps the overlay up, and nothing else.
    The agent notices a new file within a second and changes only what differs; running connections stay.
  - The host overlay, who is in it and how it is reached, is in C(overlay.json). It is written if O(members) is given.
  - Which node holds which pod subnet is in C(pod-routes.json). It is written if O(pod_subnets) is given.
  - A node that is neither in O(members) nor in O(keep_nodes) is no longer a peer, and its key is worthless.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: Nodes whose key does not exist yet are shown without one.
  diff_mode:
    support: full
    details: There is no secret in the files.
  idempotent:
    support: full
requirements:
  - python3-pyroute2, for O(state=absent)
options:
  state:
    description: Whether the node is in the overlay. V(absent) removes the files and the interface that they name.
    type: str
    choices: [present, absent]
    default: present
  node:
    description: This node's name in O(members). Required with O(members).
    type: str
  host_cidr:
    description: The host overlay. Required with O(members).
    type: str
  members:
    description: All nodes of the host overlay that this run knows about, this one among them.
    type: list
    elements: dict
    suboptions:
      name:
        description: The node's name.
        type: str
        required: true
      address:
        description: Its address in the host overlay.
        type: str
        required: true
      public_key:
        description: Its WireGuard public key; may be missing in check mode only.
        type: str
      endpoint:
        description: Address, or address and port, under which anybody reaches it. Such a node relays for the others.
        type: str
  keep_nodes:
    description: Nodes that are members still but could not be asked in this run. What is known of them stays as it is.
    type: list
    elements: str
    default: []
  removed_nodes:
    description: Members no more. What is known of them goes, from both files, whatever O(keep_nodes) says.
    type: list
    elements: str
    default: []
  interface:
    description: The overlay's interface.
    type: str
    default: evio0
  listen_port:
    description: WireGuard's UDP port, on every node.
    type: int
    default: 51820
  mtu:
    description: Bytes of an IP packet inside the overlay.
    type: int
    default: 1420
  pod_cidrs:
    description: The pod overlay, one CIDR a family. Required with O(pod_subnets).
    type: list
    elements: str
  pod_subnets:
    description: The pod subnets of each node, in CIDR notation. A node without a claim has none.
    type: dict
  config:
    description: The host overlay's file.
    type: path
    default: /etc/evio/overlay.json
  pod_routes:
    description: The pod routes' file.
    type: path
    default: /etc/evio/pod-routes.json
  state_file:
    description: Where the agent says which way it goes; removed with O(state=absent).
    type: path
    default: /run/evio-cni/overlay.json
"""

EXAMPLES = r"""
- name: Tell the node about the host overlay
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

- name: Tell the node where the pods are
  evio.cni.wireguard_overlay:
    pod_cidrs: [10.244.0.0/16]
    pod_subnets:
      node1: [10.244.0.0/24]
      node3: [10.244.2.0/24]
"""

RETURN = r"""
peers:
  description: Names of the other nodes in the host overlay.
  returned: when O(members) is given
  type: list
  elements: str
files:
  description: The files that were changed, or would be.
  returned: always
  type: list
  elements: str
"""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.atomic_file import write_atomic
from ..module_utils.defaults import OVERLAY_MTU
from ..module_utils.errors import EvioError
from ..module_utils.firewall.forwarding import withdraw_forwarding
from ..module_utils.overlay.endpoint import LISTEN_PORT, OverlayError, parse_endpoint
from ..module_utils.overlay.wireguard.config import (
    INTERFACE,
    OverlayConfig,
    OverlayPeer,
    PodRoutes,
    check_overlay,
    check_pod_routes,
    keep_peers,
    keep_subnets,
    parse_overlay,
    parse_pod_routes,
    render_overlay,
    render_pod_routes,
)
from ..module_utils.overlay.wireguard.interface import link_exists, remove_link

PENDING_KEY = "(made by this run)"


class Overlay:
    """One run: read the files once, compare their text, write what differs unless in check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.config_path = Path(self.params["config"])
        self.routes_path = Path(self.params["pod_routes"])
        self.files: list[str] = []
        self.diff: list[dict[str, str]] = []

    def present(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if self.params["members"] is not None:
            config = self._host_overlay()
            result["peers"] = [peer.name for peer in config.peers]
            self._put(self.config_path, render_overlay(config))
        elif self.params["removed_nodes"]:
            self._remove_peers()
        if self.params["pod_subnets"] is not None:
            self._put(self.routes_path, render_pod_routes(self._pod_routes()))
        return {**result, **self._result()}

    def absent(self) -> dict[str, Any]:
        known = self._existing_overlay()
        interface = known.interface if known else self.params["interface"]
        had_link = link_exists(interface)
        if not self.module.check_mode:
            if had_link:
                remove_link(interface)
            withdraw_forwarding(interface)
        # Its agent has ended; what it said last would be taken for an overlay that is down.
        for path in (Path(self.params["state_file"]), self.routes_path, self.config_path):
            self._put(path, None)
        return {**self._result(), "changed": bool(self.files) or had_link}

    def _result(self) -> dict[str, Any]:
        return {"changed": bool(self.files), "files": self.files, "diff": self.diff}

    def _host_overlay(self) -> OverlayConfig:
        params = self.params
        members = {node["name"]: self._member(node) for node in params["members"]}
        try:
            own = members.pop(params["node"])
        except KeyError as error:
            raise OverlayError(f"nodes: {params['node']!r}, this node, is not among them") from error
        known = self._existing_overlay()
        config = OverlayConfig(
            node=own.name,
            address=own.address,
            host_cidr=params["host_cidr"],
            public_key=own.public_key,
            endpoint=own.endpoint,
            interface=params["interface"],
            listen_port=params["listen_port"],
            mtu=params["mtu"],
            peers=keep_peers(members.values(), known.peers if known else (), self._keep()),
        )
        if self.module.check_mode:
            # Keys that the run would make are not there to be checked: the rest is.
            pending = [peer for peer in config.peers if peer.public_key == PENDING_KEY]
            if pending or own.public_key == PENDING_KEY:
                return config
        check_overlay(config, "the inventory")
        return config

    def _remove_peers(self) -> None:
        known = self._existing_overlay()
        if known is not None and any(peer.name in self.params["removed_nodes"] for peer in known.peers):
            peers = tuple(peer for peer in known.peers if peer.name not in self.params["removed_nodes"])
            self._put(self.config_path, render_overlay(replace(known, peers=peers)))

    def _keep(self) -> list[str]:
        return [name for name in self.params["keep_nodes"] if name not in self.params["removed_nodes"]]

    def _member(self, node: dict[str, Any]) -> OverlayPeer:
        key = node["public_key"]
        if key is None:
            if not self.module.check_mode:
                raise OverlayError(f"nodes: {node['name']} has no public key; run evio.cni.overlay_key on it first")
            key = PENDING_KEY
        endpoint = parse_endpoint(node["endpoint"], self.params["listen_port"]) if node["endpoint"] else None
        return OverlayPeer(node["name"], key, node["address"], endpoint)

    def _pod_routes(self) -> PodRoutes:
        subnets = self.params["pod_subnets"]
        if not all(isinstance(cidrs, list) for cidrs in subnets.values()):
            raise OverlayError(f"pod_subnets: {subnets!r} does not give every node a list of CIDRs")
        wanted = PodRoutes(
            tuple(self.params["pod_cidrs"]), {node: tuple(map(str, cidrs)) for node, cidrs in subnets.items()}
        )
        existing = _read(self.routes_path)
        with contextlib.suppress(OverlayError):
            if existing is not None:
                wanted = keep_subnets(wanted, parse_pod_routes(existing), self._keep())
        check_pod_routes(wanted, "the claims")
        return wanted

    def _existing_overlay(self) -> OverlayConfig | None:
        """What the node was told before; a file that says nothing sensible is written anew."""
        text = _read(self.config_path)
        with contextlib.suppress(OverlayError):
            return parse_overlay(text) if text is not None else None
        return None

    def _put(self, path: Path, text: str | None) -> None:
        before = _read(path)
        wrong_mode = before is not None and path.stat().st_mode & 0o777 != 0o600
        if before == text and not (wrong_mode and text is not None):
            return
        self.files.append(str(path))
        self.diff.append(
            {"before": before or "", "after": text or "", "before_header": str(path), "after_header": str(path)}
        )
        if self.module.check_mode:
            return
        try:
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomic(path, text, mode=0o600)
        except OSError as error:
            raise OverlayError(f"cannot write {path}: {error.strerror}") from error


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise OverlayError(f"cannot read {path}: {error}") from error


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "node": {"type": "str"},
            "host_cidr": {"type": "str"},
            "members": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "public_key": {"type": "str", "no_log": False},
                    "endpoint": {"type": "str"},
                },
            },
            "keep_nodes": {"type": "list", "elements": "str", "default": []},
            "removed_nodes": {"type": "list", "elements": "str", "default": []},
            "interface": {"type": "str", "default": INTERFACE},
            "listen_port": {"type": "int", "default": LISTEN_PORT},
            "mtu": {"type": "int", "default": OVERLAY_MTU},
            "pod_cidrs": {"type": "list", "elements": "str"},
            "pod_subnets": {"type": "dict"},
            "config": {"type": "path", "default": paths.OVERLAY_CONFIG},
            "state_file": {"type": "path", "default": paths.OVERLAY_STATE},
            "pod_routes": {"type": "path", "default": paths.POD_ROUTES_CONFIG},
        },
        required_by={"members": ["node", "host_cidr"], "pod_subnets": ["pod_cidrs"]},
        required_if=[("state", "present", ["members", "pod_subnets"], True)],
        supports_check_mode=True,
    )
    try:
        overlay = Overlay(module)
        result = overlay.present() if module.params["state"] == "present" else overlay.absent()
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
