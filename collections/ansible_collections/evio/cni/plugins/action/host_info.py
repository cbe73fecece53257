# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module host_info: fails for a clock that is wrong, and warns of what else was found."""

from __future__ import annotations

from typing import Any

from ..module_utils.node.quick_checks import ERROR, OK, Row
from ..plugin_utils.timed_module import TimedModuleAction


class ActionModule(TimedModuleAction):
    """Run the module, and say what its checks have found."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        result, clock = self.run_timed(task_vars)
        if clock is None or "rows" not in result:
            return result
        host = (task_vars or {}).get("inventory_hostname", "")
        found = [row for row in (Row(**row) for row in result["rows"]) if row.state != OK]
        if clock.state == ERROR:
            return {**result, "failed": True, "msg": _sentence(clock)}
        found += [clock] if clock.state != OK else []
        warnings = [*result.get("warnings", ()), *(f"{host}: {_sentence(row)}" for row in found)]
        return {**result, **({"warnings": warnings} if warnings else {})}


def _sentence(row: Row) -> str:
    return f"{row.check}: {row.what}; remedy: {row.remedy}"
