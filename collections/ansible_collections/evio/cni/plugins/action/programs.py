# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module programs: sends the archive from the control machine to a node that needs it.

It first runs the module with the archive's digest alone, so a run that changes nothing transfers no file.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

_MODULE = "evio.cni.programs"


class ActionModule(ActionBase):
    """Run the module with the digest; if the node wants the archive, send it and run the module again."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        archive = self._find_archive()
        with open(archive, "rb") as stream:
            digest = hashlib.sha256(stream.read()).hexdigest()
        arguments = {**self._task.args, "digest": digest}
        result: dict[str, Any] = self._execute_module(_MODULE, module_args=arguments, task_vars=task_vars)
        if not result.pop("wants_archive", False):
            return result
        self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "evio-programs.zip")
        self._transfer_file(archive, remote)
        answer: dict[str, Any] = self._execute_module(
            _MODULE, module_args={**arguments, "src": remote, "sent": True}, task_vars=task_vars
        )
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return answer

    def _find_archive(self) -> str:
        source = self._task.args.get("src")
        if not source:
            raise AnsibleError("programs: src is not given; set it to the archive that `make plugin` makes")
        try:
            found: str = self._find_needle("files", source)
        except AnsibleError as error:
            raise AnsibleError(
                f"programs: {source} is not there; make it on this machine with `make plugin`"
            ) from error
        return os.path.abspath(found)
