# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file on the control machine with the passwords of XMPP and TURN that were rotated.

Pure. The inventory has the first password of each account; this file has those that a rotation has made since, and they
count. It also says how far a rotation is, so that the next run continues one that was cut off.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import EvioError

KIND = "passwords of evio.cni"
VERSION = 1

_PASSWORD_BYTES = 24
"""Of random in a password, which has 4 characters for 3 bytes."""

_SUFFIX_BYTES = 4
"""Of random in the name of a TURN account, which must be another one than before: two passwords need two names."""


class CredentialsError(EvioError):
    """The file cannot be used; the message says why, and never what is in it."""


@dataclass(frozen=True)
class XmppPasswords:
    """The passwords of one XMPP account."""

    password: str = field(default="", repr=False)
    """The password that counts; empty where the inventory's does."""
    next_password: str = field(default="", repr=False)
    """The password that the account gets when its node's turn comes; empty outside of a rotation."""


@dataclass(frozen=True)
class TurnAccount:
    """An account of a TURN server."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class TurnServer:
    """The accounts that count for one entry of evio_turn_servers."""

    account: TurnAccount
    former: TurnAccount | None = None
    """The account that the nodes had before, which the server takes too until all nodes have the new one."""


@dataclass(frozen=True)
class Credentials:
    """What the file holds."""

    xmpp: Mapping[str, XmppPasswords] = field(default_factory=dict)
    """By the account's name with its domain."""
    turn: Mapping[str, TurnServer] = field(default_factory=dict)
    """By the server's address as in evio_turn_servers."""


def parse_credentials(text: str) -> Credentials:
    """Return what a file's text holds; nothing for an empty text. Raises CredentialsError."""
    if not text.strip():
        return Credentials()
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise CredentialsError(f"it is not a file of the {KIND}")
        if data.get("version") != VERSION:
            raise CredentialsError(f"its format has version {data.get('version')!r}, and {VERSION} is known here")
        return Credentials(
            {str(name): XmppPasswords(**_texts(found)) for name, found in data["xmpp"].items()},
            {str(address): _turn_server(found) for address, found in data["turn"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CredentialsError(f"it is damaged ({type(error).__name__}); restore it from a copy") from None


def render_credentials(credentials: Credentials) -> str:
    """Return the file's text."""
    xmpp = {
        name: {key: value for key, value in vars(found).items() if value}
        for name, found in sorted(credentials.xmpp.items())
    }
    turn = {
        address: {"account": vars(server.account), **({"former": vars(server.former)} if server.former else {})}
        for address, server in sorted(credentials.turn.items())
    }
    return json.dumps({"kind": KIND, "version": VERSION, "xmpp": xmpp, "turn": turn}, indent=2) + "\n"


def begin_xmpp(credentials: Credentials, usernames: Iterable[str]) -> Credentials:
    """Return the credentials with a next password for each account; unchanged if a rotation was cut off.

    Such a rotation goes on with the accounts that have not had their turn yet.
    """
    names = list(usernames)
    if any(credentials.xmpp.get(name, XmppPasswords()).next_password for name in names):
        return credentials
    begun = {
        name: replace(credentials.xmpp.get(name, XmppPasswords()), next_password=_new_password()) for name in names
    }
    return replace(credentials, xmpp={**credentials.xmpp, **begun})


def take_next_passwords(credentials: Credentials, usernames: Iterable[str]) -> Credentials:
    """Return the credentials in which the next passwords of these accounts count."""
    taken = {
        name: XmppPasswords(found.next_password)
        for name in usernames
        if (found := credentials.xmpp.get(name, XmppPasswords())).next_password
    }
    return replace(credentials, xmpp={**credentials.xmpp, **taken})


def begin_turn(credentials: Credentials, servers: Iterable[Mapping[str, str]]) -> Credentials:
    """Return the credentials with a new account for each entry of evio_turn_servers, beside the one that it has.

    An entry whose rotation was cut off keeps both.
    """
    turn = dict(credentials.turn)
    for server in servers:
        known = turn.get(server["address"])
        if known is not None and known.former is not None:
            continue
        had = known.account if known is not None else TurnAccount(server["user"], server["password"])
        name = f"{server['user']}-{secrets.token_hex(_SUFFIX_BYTES)}"
        turn[server["address"]] = TurnServer(TurnAccount(name, _new_password()), had)
    return replace(credentials, turn=turn)


def finish_turn(credentials: Credentials) -> Credentials:
    """Return the credentials without the former accounts."""
    return replace(credentials, turn={address: replace(s, former=None) for address, s in credentials.turn.items()})


def current_account(account: Mapping[str, Any], credentials: Credentials) -> dict[str, Any]:
    """Return an XMPP account of the inventory with the password that counts."""
    found = credentials.xmpp.get(str(account.get("username")), XmppPasswords())
    return {**account, "password": found.password} if found.password else dict(account)


def current_turn_servers(servers: Iterable[Mapping[str, Any]], credentials: Credentials) -> list[dict[str, Any]]:
    """Return the entries of evio_turn_servers with the accounts that count."""
    return [
        {**server, **vars(found.account)} if (found := credentials.turn.get(str(server.get("address")))) else {**server}
        for server in servers
    ]


def accepted_turn_accounts(servers: Iterable[Mapping[str, Any]], credentials: Credentials) -> list[dict[str, Any]]:
    """Return the accounts that the server of these entries takes: those that count, and the former ones."""
    listed = list(servers)
    former = [
        {**server, **vars(found.former)}
        for server in listed
        if (found := credentials.turn.get(str(server.get("address")))) and found.former
    ]
    return current_turn_servers(listed, credentials) + former


def _new_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def _turn_server(found: Mapping[str, Any]) -> TurnServer:
    former = found.get("former")
    return TurnServer(
        TurnAccount(**_texts(found["account"])), TurnAccount(**_texts(former)) if former is not None else None
    )


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) and value for value in found.values()):
        raise TypeError
    return dict(found)
