# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An action plugin of a module that tells its host's clock: it compares the clock with the control machine's.

A module cannot do that: it may be sent long after its arguments were made, and Ansible does not say when.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

from ..module_utils.node.quick_checks import Row, clock_row


class TimedModuleAction(ActionBase):
    """Run the module, which returns C(time)."""

    def run_timed(self, task_vars: dict[str, Any] | None) -> tuple[dict[str, Any], Row | None]:
        """Return the module's result, and the row about the clock; None if the module has failed."""
        before = time.time()
        result: dict[str, Any] = self._execute_module(task_vars=task_vars)
        if "time" not in result:
            return result, None
        return result, clock_row(float(result["time"]), before, time.time())
