#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The accounts of a signalling server as an Ansible resource; the library's xmpp_accounts shapes the files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xmpp_accounts
short_description: Accounts and roster groups of EdgeVPN.io's nodes on a prosody server
version_added: 0.1.0
description:
  - Each node has one account for each overlay, and finds the others of that overlay in its roster.
  - Accounts of the domain that are not given are removed.
  - prosody reads an account at each sign-in, and groups when it is started. Sessions of an account that was changed or
    removed stand until then.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Names only; passwords are in no diff.
  idempotent:
    support: full
options:
  domain:
    description: The server's domain, which all accounts have.
    type: str
    required: true
  overlays:
    description: The overlays.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description: The overlay's id.
        type: str
        required: true
      accounts:
        description: Its nodes' accounts.
        type: list
        elements: dict
        required: true
        suboptions:
          username:
            description: The account's name, with the domain.
            type: str
            required: true
          password:
            description: Its password.
            type: str
            required: true
  data_dir:
    description: Where prosody keeps its data.
    type: path
    default: /var/lib/prosody
  groups_file:
    description: The file of prosody's C(mod_groups).
    type: path
    default: /etc/prosody/evio-groups.txt
  owner:
    description: The user that prosody runs as.
    type: str
    default: prosody
"""

EXAMPLES = r"""
- name: Have the nodes' accounts
  evio.cni.xmpp_accounts:
    domain: xmpp.example
    overlays:
      - id: PODOVL
        accounts:
          - username: node3-pods@xmpp.example
            password: "{{ vault_node3_pods }}"
"""

RETURN = r"""
accounts:
  description: Names of the accounts that were written or removed, or would be.
  returned: success
  type: list
  elements: str
groups_changed:
  description: Whether prosody must be started anew to know its groups.
  returned: success
  type: bool
"""

import os
import pwd
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.atomic_file import write_atomic
from ..module_utils.errors import EvioError
from ..module_utils.overlay.edgevpn.accounts import (
    XmppAccount,
    XmppAccountError,
    check_accounts,
    file_name,
    has_password,
    render_account,
    render_groups,
)


class XmppAccounts:
    """One run: compare all files, write what differs unless in check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        params: dict[str, Any] = module.params
        self.overlays = {
            one["id"]: [XmppAccount(account["username"], account["password"]) for account in one["accounts"]]
            for one in params["overlays"]
        }
        check_accounts(params["domain"], self.overlays)
        self.directory = Path(params["data_dir"]) / file_name(params["domain"]) / "accounts"
        self.groups_file = Path(params["groups_file"])
        self.accounts = {account.local: account for one in self.overlays.values() for account in one}

    def run(self) -> dict[str, Any]:
        files = {self.directory / f"{file_name(local)}.dat": account for local, account in self.accounts.items()}
        there = set(self.directory.glob("*.dat"))
        stale = [path for path, account in files.items() if not self._is_good(path, account)]
        surplus = sorted(there - set(files))
        groups, before = render_groups(self.overlays), _read(self.groups_file)
        if not self.module.check_mode:
            uid, gid = self._owner()
            for path in stale:
                self._write(path, render_account(files[path].password), uid, gid)
            for path in surplus:
                path.unlink()
            if groups != before:
                write_atomic(self.groups_file, groups, mode=0o640)
            if self.groups_file.stat().st_gid != gid:
                os.chown(self.groups_file, -1, gid)
        changed = sorted([files[path].username for path in stale] + [path.stem for path in surplus])
        return {
            "changed": bool(changed) or groups != before,
            "accounts": changed,
            "groups_changed": groups != before,
            "diff": {"before": before or "", "after": groups, "before_header": str(self.groups_file)},
        }

    def _is_good(self, path: Path, account: XmppAccount) -> bool:
        """The server's own too: a run that was killed may have left it to root."""
        content = _read(path)
        return (
            content is not None and path.stat().st_uid == self._owner()[0] and has_password(content, account.password)
        )

    def _write(self, path: Path, content: str, uid: int, gid: int) -> None:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_atomic(path, content, mode=0o600)
        for one in (path.parent.parent, path.parent, path):
            os.chown(one, uid, gid)

    def _owner(self) -> tuple[int, int]:
        name = self.module.params["owner"]
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise XmppAccountError(f"owner: {name!r} is no user of this host; the package prosody makes it") from None
        return entry.pw_uid, entry.pw_gid


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def main() -> None:
    account = {
        "username": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "domain": {"type": "str", "required": True},
            "overlays": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "id": {"type": "str", "required": True},
                    "accounts": {"type": "list", "elements": "dict", "required": True, "options": account},
                },
            },
            "data_dir": {"type": "path", "default": "/var/lib/prosody"},
            "groups_file": {"type": "path", "default": "/etc/prosody/evio-groups.txt"},
            "owner": {"type": "str", "default": "prosody"},
        },
        supports_check_mode=True,
    )
    try:
        result = XmppAccounts(module).run()
    except EvioError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot change the accounts: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
