# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module kubernetes_nodes_info: waits in steps, and says in between which nodes are not Ready.

A module cannot print while it runs.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

_STEP_SECONDS = 15.0
_LONGEST_LINE = 300
"""Characters."""


class ActionModule(ActionBase):
    """Run the module until the nodes are Ready or the time is over."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            timeout = float(arguments.get("timeout", 180.0))
        except (TypeError, ValueError):
            raise AnsibleActionFail(f"timeout: {arguments['timeout']!r} is no number of seconds") from None
        started = time.monotonic()
        while True:
            left = timeout - (time.monotonic() - started)
            step = max(0.0, min(left, _STEP_SECONDS))
            result: dict[str, Any] = self._execute_module(
                module_args={**arguments, "timeout": step}, task_vars=task_vars
            )
            if not result.get("is_waiting"):
                return result
            passed = time.monotonic() - started
            if passed >= timeout:
                return {**result, "msg": f"{result['msg']} ({timeout:g} s)"}
            Display().display(f"    {passed:.0f} s of {timeout:g} s: {result['msg'][:_LONGEST_LINE]}")
