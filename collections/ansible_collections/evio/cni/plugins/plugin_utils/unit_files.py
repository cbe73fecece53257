# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action plugin of modules that keep files and units: it makes the files' content of the role's templates.

Ansible's lookup ``template`` would do the same, but copies all variables for each template: the more hosts there are,
the longer that takes for each of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible import template as ansible_template
from ansible.plugins.action import ActionBase

# Since ansible-core 2.19, only text that is marked so is a template.
_trust = getattr(ansible_template, "trust_as_template", str)


class UnitFilesAction(ActionBase):
    """Give the module each file's content in place of the name of a template."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if isinstance(arguments.get("files"), list):
            variables = {"ansible_managed": "Ansible managed", **(task_vars or {})}
            # One for all files: making it takes longer than what it does.
            templar = self._templar.copy_with_new_env(available_variables=variables)
            arguments["files"] = [self._with_content(file, templar) for file in arguments["files"]]
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result

    def _with_content(self, file: Any, templar: Any) -> Any:
        if not isinstance(file, dict) or "template" not in file:
            return file
        if file.get("state") == "absent":
            return {key: value for key, value in file.items() if key != "template"}
        text = Path(self._find_needle("templates", file["template"])).read_text(encoding="utf-8")
        content = templar.template(_trust(text), escape_backslashes=False)
        return {**{key: value for key, value in file.items() if key != "template"}, "content": content}
