# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin overlay_reachability_info: whether all nodes of a run reach each other; inventory/reachability decides.

It runs in Ansible's own process, where the results of all hosts are.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ..module_utils.inventory import reachability

_ARGUMENT_SPEC: dict[str, Any] = {
    "nodes": {"type": "list", "elements": "str", "required": True},
    "alone": {"type": "bool", "default": False},
}

_MOST_NAMED = 10
"""Nodes of whose failure the message tells."""


class ActionModule(ActionBase):
    """Show the table, and fail for all nodes if one of them does not reach another."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(argument_spec=_ARGUMENT_SPEC)
        hostvars = (task_vars or {})["hostvars"]
        variables = {name: hostvars[name] for name in arguments["nodes"]}
        measured = {name: found.get("__evio_reachability") or {} for name, found in variables.items()}
        alone = {
            name: arguments["alone"] or boolean(found.get("evio_overlay_alone") or False, strict=False)
            for name, found in variables.items()
        }
        failures = reachability.failures(measured, alone)
        if self._task.check_mode:
            # Nodes that do not answer yet may do so after a real run; they are in the table.
            failures = {name: why for name, why in failures.items() if not reachability.was_measured(measured[name])}
        table = reachability.reachability_table(measured)
        if failures:
            reasons = "\n".join(list(failures.values())[:_MOST_NAMED])
            if len(failures) > _MOST_NAMED:
                reasons += f"\nand {len(failures) - _MOST_NAMED} more nodes"
            hint = "to go on without a node, leave it out: --limit 'all:!NODE'"
            return {**result, "failed": True, "changed": False, "table": table, "msg": f"{reasons}; {hint}"}
        new_nodes = reachability.nodes_without_outside(measured)
        # The key with which Ansible's own module debug is shown at any verbosity.
        return {**result, "changed": False, "msg": table, "new_nodes": new_nodes, "_ansible_verbose_always": True}
