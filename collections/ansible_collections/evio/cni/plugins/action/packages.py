# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module packages: has Ansible's module apt install what the module finds missing.

Most runs find nothing missing. Then apt, which reads all its lists, is not started.
"""

from __future__ import annotations

import re
from typing import Any

from ansible.plugins.action import ActionBase

_MODULE = "evio.cni.packages"
_APT = "ansible.builtin.apt"

# In check mode apt does not update its lists, and a new host may have none, or lack python3-apt, which a real run
# installs by itself.
_UNPREDICTABLE = re.compile(r"No package matching|must be installed to use check mode")


class ActionModule(ActionBase):
    """Ask dpkg; if something is missing, install with apt, the second time after an update of its lists."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        asked: dict[str, Any] = self._execute_module(_MODULE, module_args=self._task.args, task_vars=task_vars)
        if asked.get("failed") or not asked.get("missing"):
            return asked
        arguments = {"name": self._task.args["name"], "state": "present", "install_recommends": False}
        result = self._install(arguments, task_vars)
        if result.get("failed"):
            result = self._install({**arguments, "update_cache": True}, task_vars)
        if result.get("failed") and self._task.check_mode and _UNPREDICTABLE.search(str(result.get("msg"))):
            return {**asked, "changed": True}
        if not self._task.check_mode:
            # The module notes what is new, also if apt has stopped half way.
            noted = self._execute_module(
                _MODULE, module_args={**self._task.args, "installed": True}, task_vars=task_vars
            )
            if noted.get("failed") and not result.get("failed"):
                result = noted
        return {**result, "missing": asked["missing"]}

    def _install(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(_APT, module_args=arguments, task_vars=task_vars)
        return result
