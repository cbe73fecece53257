# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module preflight_info: adds the row about the host's clock."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..plugin_utils.timed_module import TimedModuleAction


class ActionModule(TimedModuleAction):
    """Run the module."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        result, clock = self.run_timed(task_vars)
        return result if clock is None else {**result, "rows": [*result["rows"], asdict(clock)]}
