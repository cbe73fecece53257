#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that keeps the accounts of a signalling server; overlay/edgevpn/accounts builds the files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xmpp_accounts
short_description: Keep the accounts and roster groups of EdgeVPN.io's nodes on a prosody server
version_added: 0.1.0
description:
  - Each node has one account for each overlay, and sees the other nodes of that overlay in its roster.
  - Accounts of the domain that are not given are removed.
  - prosody reads an account at each sign-in. Groups, and sessions of accounts that were removed, follow when prosody is
    reloaded, with the module C(mod_evio_rosters) of the role P(evio.cni.xmpp#role). A client that has signed in stays
    connected if the password of its account is changed.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Passwords are left out.
  idempotent:
    support: full
options:
  domain:
    description: The server's domain. All accounts belong to it.
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
        description: The accounts of the overlay's nodes.
        type: list
        elements: dict
        required: true
        suboptions:
          username:
            description: The account's name with the domain.
            type: str
            required: true
          password:
            description: The account's password.
            type: str
            required: true
  data_dir:
    description: prosody's data directory.
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
- name: Create the accounts of the nodes
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
  description: Names of the accounts that were written or removed or, in check mode, would be.
  returned: success
  type: list
  elements: str
groups_changed:
  description: Whether prosody must be reloaded to read its groups.
  returned: success
  type: bool
"""

import pwd
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.atomic_file import give_directory, make_directories
from ..module_utils.managed_file import CONTENT, FileChange, ManagedFile, result_of
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.edgevpn.accounts import (
    XmppAccount,
    XmppAccountError,
    check_accounts,
    file_name,
    has_password,
    render_account,
    render_groups,
)

SHOWN_ACCOUNT = "(hash of a password)\n"
"""Stands for the content of an account's file in a diff."""


class XmppAccounts:
    """One run: compare the files of all accounts and of the groups, write what differs unless in check mode."""

    def __init__(self, module: Module) -> None:
        params = module.params
        self.check_mode = module.check_mode
        self.overlays = {
            overlay["id"]: [XmppAccount(account["username"], account["password"]) for account in overlay["accounts"]]
            for overlay in params["overlays"]
        }
        check_accounts(params["domain"], self.overlays)
        self.directory = Path(params["data_dir"]) / file_name(params["domain"]) / "accounts"
        self.groups_file: str = params["groups_file"]
        self.uid, self.gid = self._owner(params["owner"])

    def run(self) -> dict[str, Any]:
        accounts = {account.local: account for overlay in self.overlays.values() for account in overlay}
        files = {self.directory / f"{file_name(local)}.dat": account for local, account in accounts.items()}
        written = {account.username: self._account_change(path, account) for path, account in files.items()}
        surplus = sorted(set(self.directory.glob("*.dat")) - set(files))
        removed = {path.stem: self._account_file(path).change_to(None) for path in surplus}
        groups = ManagedFile(self.groups_file, mode=0o640, gid=self.gid).change_to(render_groups(self.overlays))
        if not self.check_mode:
            if any(change.changed for change in written.values()):
                self._make_directory()
            for change in (*written.values(), *removed.values(), groups):
                change.apply()
        changed = sorted(name for name, change in {**written, **removed}.items() if change.changed)
        return {
            **result_of(*written.values(), *removed.values(), groups),
            "accounts": changed,
            "groups_changed": CONTENT in groups.differences,
        }

    def _account_file(self, path: Path) -> ManagedFile:
        return ManagedFile(path, mode=0o600, uid=self.uid, gid=self.gid, show=lambda _content: SHOWN_ACCOUNT)

    def _account_change(self, path: Path, account: XmppAccount) -> FileChange:
        """Return the change of an account's file. A new hash has a new salt, so a hash that fits stays."""
        file = self._account_file(path)
        is_current = file.text is not None and has_password(file.text, account.password)
        return file.change_to(file.text if is_current else render_account(account.password))

    def _make_directory(self) -> None:
        try:
            make_directories(self.directory, 0o750, uid=self.uid, gid=self.gid)
            # A run that was killed may have left them to root.
            for directory in (self.directory.parent, self.directory):
                give_directory(directory, uid=self.uid, gid=self.gid)
        except OSError as error:
            raise XmppAccountError(f"cannot make {self.directory}: {error.strerror}") from error

    def _owner(self, name: str) -> tuple[int | None, int | None]:
        """Return user id and group id of prosody's user; None in check mode if the package is not installed yet."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            if self.check_mode:
                return None, None
            raise XmppAccountError(
                f"owner: {name!r} is no user of this host; install the package prosody, which makes the user"
            ) from None
        return entry.pw_uid, entry.pw_gid


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
            "data_dir": {"type": "path", "default": paths.XMPP_DATA_DIR},
            "groups_file": {"type": "path", "default": paths.XMPP_GROUPS_FILE},
            "owner": {"type": "str", "default": "prosody"},
        },
        supports_check_mode=True,
    )
    run_module(module, XmppAccounts)


if __name__ == "__main__":
    main()
