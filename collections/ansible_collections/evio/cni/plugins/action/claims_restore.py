# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module claims_restore: reads and checks the file on the control machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.atomic_file import read_text
from ..module_utils.claims.backup import LARGEST_FILE, decode_backup
from ..module_utils.errors import EvioError

_MODULE = "evio.cni.claims_restore"


class ActionModule(ActionBase):
    """Give the file's content to the module."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        path = arguments.pop("path", None)
        if path is not None:
            arguments["content"] = _read(Path(str(path)).expanduser())
        result: dict[str, Any] = self._execute_module(_MODULE, module_args=arguments, task_vars=task_vars)
        # The content is long, and the file has it.
        result.pop("invocation", None)
        return result


def _read(path: Path) -> str:
    try:
        if path.exists() and path.stat().st_size > LARGEST_FILE:
            raise AnsibleActionFail(f"{path} is larger than {LARGEST_FILE >> 20} MiB, which no backup of claims is")
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise AnsibleActionFail(f"cannot read the backup {path}: {error}") from None
    if text is None:
        raise AnsibleActionFail(f"there is no backup {path}")
    try:
        decode_backup(text)
    except EvioError as error:
        raise AnsibleActionFail(f"cannot restore {path}: {error}") from None
    return text
