# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Accounts of nodes on a prosody server: its files of hashed passwords, and the groups that make its rosters.

Pure. prosody reads an account's file at each sign-in (authentication = "internal_hashed", RFC 5802 with SHA-1); its own
program would take the passwords as arguments, for everybody to read in the list of processes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import EvioError

ITERATIONS = 10000
"""prosody's own default."""
_LOCAL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_FIELD = re.compile(r'\["(\w+)"\] = (?:"([^"\\]*)"|(\d+));')


class XmppAccountError(EvioError):
    """The accounts cannot be so; the message names the account."""


@dataclass(frozen=True)
class Account:
    """One account, which one node has in one overlay."""

    username: str
    """With its domain: ``node3-pods@xmpp.example``."""
    password: str = field(repr=False)

    @property
    def local(self) -> str:
        return self.username.partition("@")[0]


def check_accounts(domain: str, overlays: Mapping[str, Sequence[Account]]) -> None:
    """Raise XmppAccountError for what prosody or Evio would misread; overlays are named by their ids."""
    if not _DOMAIN.fullmatch(domain):
        raise XmppAccountError(f"evio_xmpp_domain: {domain!r} is not the name of a domain in lower case")
    owner: dict[str, str] = {}
    for overlay, accounts in overlays.items():
        for account in accounts:
            local, _at, its_domain = account.username.partition("@")
            if its_domain != domain or not _LOCAL.fullmatch(local):
                raise XmppAccountError(
                    f"account {account.username!r} of overlay {overlay} is not a name in lower case with @{domain}"
                )
            if not account.password:
                raise XmppAccountError(f"account {account.username} of overlay {overlay} has no password")
            if account.username in owner:
                raise XmppAccountError(
                    f"account {account.username} is used twice, in overlay {owner[account.username]} and in {overlay}; "
                    "Evio would mix what is said to either"
                )
            owner[account.username] = overlay


def file_name(name: str) -> str:
    """A domain or a local part as prosody has it in a path: all but letters and digits as ``%xx``."""
    return re.sub(r"[^A-Za-z0-9]", lambda found: f"%{ord(found[0]):02x}", name)


def render_account(password: str, salt: str | None = None) -> str:
    """The content of an account's file."""
    salt = salt or secrets.token_hex(16)
    stored_key, server_key = _keys(password, salt, ITERATIONS)
    fields = {"salt": f'"{salt}"', "stored_key": f'"{stored_key}"', "server_key": f'"{server_key}"'}
    lines = [f'\t["{name}"] = {value};\n' for name, value in {**fields, "iteration_count": str(ITERATIONS)}.items()]
    return "return {\n" + "".join(lines) + "};\n"


def has_password(content: str, password: str) -> bool:
    """Whether an account's file, of ours or of prosody's own making, is for this password."""
    fields = {name: text or number for name, text, number in _FIELD.findall(content)}
    try:
        wanted = _keys(password, fields["salt"], int(fields["iteration_count"]))
    except (KeyError, ValueError):
        return False
    return (fields.get("stored_key"), fields.get("server_key")) == wanted


def render_groups(overlays: Mapping[str, Sequence[Account]]) -> str:
    """The file of prosody's mod_groups: an overlay's accounts are in each other's rosters, and in no others."""
    lines = []
    for overlay, accounts in overlays.items():
        lines.append(f"[{overlay}]")
        lines += sorted(f"{account.username}={account.local}" for account in accounts)
        lines.append("")
    return "\n".join(lines)


def _keys(password: str, salt: str, iterations: int) -> tuple[str, str]:
    """StoredKey and ServerKey of RFC 5802, in hexadecimal digits."""
    salted = hashlib.pbkdf2_hmac("sha1", password.encode(), salt.encode(), iterations)
    client_key, server_key = (hmac.new(salted, what, "sha1").digest() for what in (b"Client Key", b"Server Key"))
    return hashlib.sha1(client_key).hexdigest(), server_key.hex()
