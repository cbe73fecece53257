# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connection fake_node: stands for a node on which bootstrap.yml finds nothing to do, for playbook_bench.py.

It starts no process. A module that Ansible sends is not run: it is answered with what it returns on such a node. So a
run with this connection costs what it costs on the controller, without ssh.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: fake_node
short_description: Answer modules without running them
description: Stands for a node on which nothing has to be changed.
extends_documentation_fragment: [connection_pipelining]
options:
  remote_addr:
    description: The node's name.
    default: inventory_hostname
    vars:
      - name: inventory_hostname
"""

import ast
import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import (
    PodRoutes,
    digest_of_pod_routes,
    render_pod_routes,
)

_MODULE = re.compile(rb"ansible_module='([\w.]+)'")
_PARAMETERS = re.compile(rb"^params=(.*),$", re.MULTILINE)


class Connection(ConnectionBase):
    """A node that answers at once."""

    transport = "fake_node"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Answer a module by its name; any other command ends without output."""
        module = _MODULE.search(in_data or b"")
        if not module:
            return 0, b"", b""
        parameters = json.loads(ast.literal_eval(_PARAMETERS.search(in_data or b"")[1].decode()))["ANSIBLE_MODULE_ARGS"]
        answer = _answer(module[1].decode(), self.get_option("remote_addr"), parameters)
        return 0, json.dumps(answer).encode(), b""

    def put_file(self, in_path: str, out_path: str) -> None:
        raise AnsibleConnectionFailure(f"a run that changes nothing sends no file, but {in_path} was sent")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        raise AnsibleConnectionFailure(f"{in_path}: a fake node has no files")

    def close(self) -> None:
        self._connected = False


def _answer(module: str, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what this module returns on a node on which it finds nothing to do."""
    answer = _ANSWERS.get(module.removeprefix("evio.cni."))
    return {"changed": False, **(answer(name, parameters) if answer else {})}


def _host(name: str, _parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "identity": {"hostname": name, "machine_id": _machine_id(name), "node": name, "cluster": "kubernetes"},
        "certificates": [],
        "configured": None,
        "claim_fault": None,
        "overlay_conflict": None,
        "cni_fault": None,
        "other_cni_files": [],
        "present_files": [],
    }


def _claims(_name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "subnets": {request["name"]: _claim(number) for number, request in enumerate(parameters["subnet_requests"])},
        "other_subnets": {},
        "unclaimed": [],
        "lost": {},
    }


def _members(_name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Tell that the pod routes are as the claims of ``_claims`` want them; members are named node1, node2, ..."""
    if parameters["members_json"] is None:
        return {}
    names = [member["name"] for member in json.loads(parameters["members_json"])]
    subnets = {name: tuple(_claim(int(name.removeprefix("node")) - 1)["claimed_cidrs"]) for name in names}
    routes = PodRoutes(("10.244.0.0/16",), subnets, ("10.96.0.0/12",))
    return {"pod_routes_digest": digest_of_pod_routes(render_pod_routes(routes))}


def _claim(number: int) -> dict[str, Any]:
    network = f"10.244.{number // 4}.{number % 4 * 64}"
    gateway = f"10.244.{number // 4}.{number % 4 * 64 + 1}"
    return {
        "cidrs": [f"{network}/26"],
        "claimed_cidrs": [f"{network}/26"],
        "gateways": [f"{gateway}/26"],
        "segment_gateways": [f"{gateway}/16"],
        "epoch": 1,
    }


def _reachability(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    addresses = json.loads(parameters["addresses"])
    peers = [
        {"name": peer, "address": address, "reachable": True, "small_only": False, "path": "direct", "rtt_ms": 12.34}
        for peer, address in addresses.items()
        if peer != name
    ]
    limited = [] if len(peers) > parameters["peer_limit"] else peers
    return {"ready": True, "answered": {"direct": len(peers)}, "reached_others": 0, "peers": limited}


def _machine_id(name: str) -> str:
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def _public_key(name: str) -> str:
    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


_ANSWERS: dict[str, Callable[[str, Mapping[str, Any]], dict[str, Any]]] = {
    "host_info": _host,
    "wireguard_member": lambda name, _: {"public_key": _public_key(name), "mtu": 1420, "underlay": {}},
    "wireguard_overlay": _members,
    "overlay_ready_info": _reachability,
    "ovs_userspace_tso": lambda _name, _: {"datapath_type": "system", "restart_needed": False},
    "ovs_bridge": lambda _name, _: {"blocked": [], "mtu": 1420},
    "node_subnet": _claims,
    "ansible.legacy.stat": lambda _name, _: {"stat": {"exists": False}},
    "ansible.builtin.stat": lambda _name, _: {"stat": {"exists": False}},
}
