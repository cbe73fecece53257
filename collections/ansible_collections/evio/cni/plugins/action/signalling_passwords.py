# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin signalling_passwords: keeps the rotated passwords on the control machine, in Ansible's own process.

What the file holds, and how a rotation goes on, is overlay/edgevpn/credentials' subject.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ..module_utils.atomic_file import make_directories, read_file, write_atomic
from ..module_utils.errors import EvioError
from ..module_utils.overlay.edgevpn.credentials import (
    Credentials,
    begin_turn,
    begin_xmpp,
    finish_turn,
    parse_credentials,
    render_credentials,
    take_next_passwords,
)

_ARGUMENT_SPEC: dict[str, Any] = {
    "file": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["begun", "taken", "finished"], "required": True},
    "usernames": {"type": "list", "elements": "str", "default": []},
    "turn_servers": {"type": "list", "elements": "dict", "default": [], "no_log": True},
}


class ActionModule(ActionBase):
    """Read the file, change what it holds, and write it before anybody uses a password of it."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(argument_spec=_ARGUMENT_SPEC)
        path = Path(arguments["file"])
        if not path.is_absolute():
            raise AnsibleActionFail(f"evio_credentials_file: {str(path)!r} is no absolute path on the control machine")
        try:
            found = self._read(path)
            wanted = _changed(found, arguments)
            if wanted != found and not self._task.check_mode:
                make_directories(path.parent)
                write_atomic(path, self._encrypted(render_credentials(wanted)), mode=0o600)
        except (EvioError, OSError, UnicodeDecodeError, AnsibleError) as error:
            raise AnsibleActionFail(f"evio_credentials_file: {path}: {error}") from None
        return {**result, "changed": wanted != found, "path": str(path)}

    def _read(self, path: Path) -> Credentials:
        if read_file(path) is None:
            return Credentials()
        # Ansible decrypts it, or says that it has no password for it.
        content: bytes = self._loader._get_file_contents(str(path))[0]
        return parse_credentials(content.decode())

    def _encrypted(self, text: str) -> str:
        """Return the text as Ansible's vault keeps it, if this run has a vault password."""
        vault = self._loader._vault
        encrypted: bytes = vault.encrypt(text) if vault.secrets else text.encode()
        return encrypted.decode()


def _changed(found: Credentials, arguments: dict[str, Any]) -> Credentials:
    if arguments["state"] == "begun":
        begun = begin_xmpp(found, arguments["usernames"]) if arguments["usernames"] else found
        return begin_turn(begun, arguments["turn_servers"])
    if arguments["state"] == "taken":
        return take_next_passwords(found, arguments["usernames"])
    return finish_turn(found)
