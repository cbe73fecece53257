# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Accounts of nodes on the XMPP server, and the files in which the server prosody keeps them.

Pure. prosody reads an account's file at each sign-in (authentication = "internal_hashed", RFC 5802 with SHA-1). The
files are written directly because prosodyctl takes passwords as arguments, which every user sees in the process list.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import EvioError

ITERATIONS = 10000
"""Rounds of the password's hash: prosody's own default."""

_LOCAL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_FIELD = re.compile(r'\["(\w+)"\] = (?:"([^"\\]*)"|(\d+));')


class XmppAccountError(EvioError):
    """The accounts cannot work; the message names the account."""


@dataclass(frozen=True)
class XmppAccount:
    """The account of one node in one overlay."""

    username: str
    """With its domain: ``node3-pods@xmpp.example``."""
    password: str = field(repr=False)

    @property
    def local(self) -> str:
        """The username without its domain."""
        return self.username.partition("@")[0]


def check_accounts(domain: str, overlays: Mapping[str, Sequence[XmppAccount]]) -> None:
    """Raise XmppAccountError for the first account that prosody or EdgeVPN.io would misread.

    ``overlays`` has the accounts by the id of the overlay.
    """
    if not _DOMAIN.fullmatch(domain):
        raise XmppAccountError(f"evio_xmpp_domain: {domain!r} is not the name of a domain in lower case")
    for overlay, accounts in overlays.items():
        for account in accounts:
            local, _at, its_domain = account.username.partition("@")
            if its_domain != domain or not _LOCAL.fullmatch(local):
                raise XmppAccountError(
                    f"account {account.username!r} of overlay {overlay}: use a name in lower case with @{domain}"
                )
            if not account.password:
                raise XmppAccountError(f"account {account.username} of overlay {overlay} has no password")
    refuse_shared_accounts(
        (f"overlay {overlay}", account.username) for overlay, accounts in overlays.items() for account in accounts
    )


def refuse_shared_accounts(usernames: Iterable[tuple[str, str]]) -> None:
    """Raise XmppAccountError if two of the usernames, each given with the name of its holder, are the same account."""
    holders: dict[str, str] = {}
    for holder, username in usernames:
        # RFC 7622 section 3.3: for the server, names that differ in case only are the same.
        account = username.lower()
        if account in holders:
            raise XmppAccountError(
                f"account {username} is used twice, by {holders[account]} and by {holder}; EdgeVPN.io would deliver "
                "the messages of both to the session that signed in first"
            )
        holders[account] = holder


def file_name(name: str) -> str:
    """Return a domain or local part as prosody writes it in paths: other than letters and digits as ``%xx``."""
    return re.sub(r"[^A-Za-z0-9]", lambda found: f"%{ord(found[0]):02x}", name)


def render_account(password: str, salt: str | None = None) -> str:
    """Return the content of an account's file; the salt is random unless it is given."""
    salt = salt or secrets.token_hex(16)
    stored_key, server_key = _keys(password, salt, ITERATIONS)
    fields = {"salt": f'"{salt}"', "stored_key": f'"{stored_key}"', "server_key": f'"{server_key}"'}
    lines = [f'\t["{name}"] = {value};\n' for name, value in {**fields, "iteration_count": str(ITERATIONS)}.items()]
    return "return {\n" + "".join(lines) + "};\n"


def has_password(content: str, password: str) -> bool:
    """Return whether an account's file, written by us or by prosody itself, has this password."""
    fields = {name: text or number for name, text, number in _FIELD.findall(content)}
    try:
        wanted = _keys(password, fields["salt"], int(fields["iteration_count"]))
    except (KeyError, ValueError):
        return False
    return (fields.get("stored_key"), fields.get("server_key")) == wanted


def render_groups(overlays: Mapping[str, Sequence[XmppAccount]]) -> str:
    """Return the file of prosody's mod_groups: the accounts of an overlay are in each other's rosters only."""
    lines = []
    for overlay, accounts in overlays.items():
        lines.append(f"[{overlay}]")
        lines += sorted(f"{account.username}={account.local}" for account in accounts)
        lines.append("")
    return "\n".join(lines)


def _keys(password: str, salt: str, iterations: int) -> tuple[str, str]:
    """Return StoredKey and ServerKey of RFC 5802, in hexadecimal digits."""
    salted = hashlib.pbkdf2_hmac("sha1", password.encode(), salt.encode(), iterations)
    client_key, server_key = (hmac.new(salted, what, "sha1").digest() for what in (b"Client Key", b"Server Key"))
    return hashlib.sha1(client_key).hexdigest(), server_key.hex()
