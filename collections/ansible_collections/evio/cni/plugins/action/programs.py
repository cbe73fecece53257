# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module programs: packs them on the control machine, and sends them to the nodes that need them.

It first runs the module with the archive's digest alone, so a run that changes nothing transfers no file.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ..module_utils.atomic_file import write_atomic
from ..module_utils.programs import archive
from ..module_utils.programs.installation import InstallationError

_MODULE = "evio.cni.programs"


class ActionModule(ActionBase):
    """Run the module with the digest; if the node wants the archive, send it and run the module again."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        if self._task.args.get("state") == "absent":
            removed: dict[str, Any] = self._execute_module(_MODULE, task_vars=task_vars)
            return removed
        source = self._task.args.get("src")
        path = self._find_archive(source) if source else _own_archive()
        with open(path, "rb") as stream:
            digest = hashlib.sha256(stream.read()).hexdigest()
        arguments = {**self._task.args, "digest": digest}
        result: dict[str, Any] = self._execute_module(_MODULE, module_args=arguments, task_vars=task_vars)
        if not result.pop("wants_archive", False):
            return result
        self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, archive.NAME)
        self._transfer_file(path, remote)
        answer: dict[str, Any] = self._execute_module(
            _MODULE, module_args={**arguments, "src": remote, "sent": True}, task_vars=task_vars
        )
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return answer

    def _find_archive(self, source: str) -> str:
        try:
            found: str = self._find_needle("files", source)
        except AnsibleError as error:
            raise AnsibleError(
                f"programs: {source} is not there; leave src out to install the programs of the collection"
            ) from error
        return os.path.abspath(found)


def _own_archive() -> str:
    """Return the path of the archive of the collection's own programs, which is packed once for all hosts of a run.

    Ansible makes its local temporary directory for each run, and removes it afterwards.
    """
    path = os.path.join(constants.DEFAULT_LOCAL_TMP, archive.NAME)
    if not os.path.exists(path):
        try:
            write_atomic(path, archive.build(), mode=0o600)
        except (InstallationError, OSError) as error:
            raise AnsibleError(f"programs: {error}") from error
    return path
