# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module claims_backup: writes the file on the control machine, in Ansible's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.atomic_file import make_directories, read_text, write_atomic
from ..module_utils.claims.backup import decode_backup, holds_the_same
from ..module_utils.errors import EvioError

_MODULE = "evio.cni.claims_backup"


class ActionModule(ActionBase):
    """Have the module read etcd, and write what it returns unless the file is there already."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        result: dict[str, Any] = self._execute_module(_MODULE, module_args=self._task.args, task_vars=task_vars)
        if result.get("failed") or "content" not in result:
            return result
        content = str(result.pop("content"))
        try:
            # The host is not trusted with the file's name.
            path = Path(str(self._task.args["directory"])).expanduser() / decode_backup(content).file_name
            is_there = _holds(path, content)
            if not is_there and not self._task.check_mode:
                make_directories(path.parent)
                write_atomic(path, content, mode=0o600, must_be_new=True)
        except EvioError as error:
            raise AnsibleActionFail(f"etcd's host has returned no backup: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise AnsibleActionFail(f"cannot write the backup: {error}; set evio_backup_directory") from None
        return {**result, "changed": not is_there, "path": str(path)}


def _holds(path: Path, content: str) -> bool:
    """Return whether the file holds this backup. Raises AnsibleActionFail if it holds something else."""
    found = read_text(path)
    if found is None:
        return False
    try:
        if holds_the_same(decode_backup(found), decode_backup(content)):
            return True
        problem = "it holds other claims"
    except EvioError as error:
        problem = str(error)
    raise AnsibleActionFail(f"{path} is there already, and is not replaced: {problem}; move it away")
