# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin status_page: puts the nodes' answers together, and writes the page and its JSON on the control machine.

It runs in Ansible's own process. A module on the control machine would be run with the settings that the inventory has
for the nodes: `become` would ask for sudo there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.atomic_file import make_directories, write_atomic
from ..module_utils.node.problems import ERROR
from ..module_utils.overview.answers import NodeAnswer
from ..module_utils.overview.cluster import cluster_of
from ..plugin_utils.status_page import render_page

_ARGUMENT_SPEC: dict[str, Any] = {
    "cluster": {"type": "str", "required": True},
    "nodes": {"type": "list", "elements": "str", "required": True},
    "registry": {"type": "dict"},
    "directory": {"type": "path", "required": True},
}

_ANSWER = "__evio_status_answer"
"""The variable in which each host has the result of node_status_info."""

_LONGEST_FAILURE = 300
"""Characters."""


class ActionModule(ActionBase):
    """Write status.html and status.json."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(argument_spec=_ARGUMENT_SPEC)
        hostvars = (task_vars or {})["hostvars"]
        cluster = cluster_of(
            arguments["cluster"],
            [_answer(name, hostvars[name]) for name in arguments["nodes"]],
            *_registry(arguments["registry"]),
            time.time(),
        )
        told = cluster.to_json()
        directory = Path(arguments["directory"])
        texts = {
            "status.html": render_page(cluster, Path(self._find_needle("templates", "status.html.j2")).parent),
            "status.json": json.dumps(told, indent=1) + "\n",
        }
        try:
            make_directories(directory)
            for name, text in texts.items():
                # Addresses of nodes and names of pods are nobody else's business.
                write_atomic(directory / name, text, mode=0o600)
        except OSError as error:
            raise AnsibleActionFail(f"cannot write {directory}: {error}; set evio_status_directory") from None
        return {
            **result,
            "changed": False,
            "page": str(directory / "status.html"),
            "json": str(directory / "status.json"),
            "summary": told["summary"],
            "problems": told["problems"],
            "is_well": all(problem.severity != ERROR for problem in cluster.problems),
        }


def _answer(name: str, variables: Mapping[str, Any]) -> NodeAnswer:
    answer = variables.get(_ANSWER) or {}
    status = answer.get("status")
    failure = None if status is not None else _failure(answer)
    return NodeAnswer(
        name,
        # Plain text and numbers: Ansible's strings know where they come from, and are slow to write.
        json.loads(json.dumps(status)) if status is not None else None,
        failure,
        str(variables.get("evio_site") or ""),
        str(variables.get("evio_public_endpoint") or ""),
    )


def _registry(answer: Mapping[str, Any] | None) -> tuple[dict[str, Any] | None, str | None]:
    """Return what etcd has, or why it did not tell it; neither if it was not asked."""
    if not answer or answer.get("skipped"):
        return None, None
    if "pools" not in answer:
        return None, _failure(answer)
    keys = ("pools", "reserved_cidrs", "pins", "claims", "released")
    return json.loads(json.dumps({key: answer[key] for key in keys})), None


def _failure(answer: Mapping[str, Any]) -> str:
    words = str(answer.get("msg") or "it was not asked; is it outside of --limit?").split()
    return " ".join(words)[:_LONGEST_FAILURE].removesuffix(".")
