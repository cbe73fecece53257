# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file of rotated passwords: which password counts at each step of a rotation, and files that are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.credentials import (
    Credentials,
    CredentialsError,
    accepted_turn_accounts,
    begin_turn,
    begin_xmpp,
    current_account,
    current_turn_servers,
    finish_turn,
    parse_credentials,
    render_credentials,
    take_next_passwords,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = ["n1@x", "n2@x", "n3@x"]
SERVER = {"address": "198.51.100.11:3478", "user": "evio", "password": "old"}


def password(credentials: Credentials, name: str) -> str:
    return str(current_account({"username": name, "password": "old"}, credentials)["password"])


def users(servers: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(server["user"], server["password"]) for server in servers]


def test_account_keeps_its_password_until_its_turn() -> None:
    begun = begin_xmpp(Credentials(), NAMES)
    assert {password(begun, name) for name in NAMES} == {"old"}
    taken = take_next_passwords(begun, ["n2@x"])
    assert (password(taken, "n1@x"), password(taken, "n2@x")) == ("old", begun.xmpp["n2@x"].next_password)
    assert len({entry.next_password for entry in begun.xmpp.values()}) == 3
    assert min(len(entry.next_password) for entry in begun.xmpp.values()) >= 32


def test_rotation_that_was_cut_off_goes_on_and_a_finished_one_begins_anew() -> None:
    cut_off = take_next_passwords(begin_xmpp(Credentials(), NAMES), NAMES[:1])
    assert begin_xmpp(cut_off, NAMES) == cut_off
    done = take_next_passwords(cut_off, NAMES)
    again = begin_xmpp(done, NAMES)
    assert {name: password(again, name) for name in NAMES} == {name: password(done, name) for name in NAMES}
    assert all(again.xmpp[name].next_password not in ("", password(done, name)) for name in NAMES)


def test_turn_takes_the_former_account_until_the_end() -> None:
    begun = begin_turn(Credentials(), [SERVER])
    [new] = users(current_turn_servers([SERVER], begun))
    assert new[0].startswith("evio-")
    assert users(accepted_turn_accounts([SERVER], begun)) == [new, ("evio", "old")]
    assert begin_turn(begun, [SERVER]) == begun
    finished = finish_turn(begun)
    assert users(accepted_turn_accounts([SERVER], finished)) == [new]
    again = begin_turn(finished, [SERVER])
    [newer] = users(current_turn_servers([SERVER], again))
    assert newer[0] != new[0]
    assert users(accepted_turn_accounts([SERVER], again)) == [newer, new]


def test_servers_of_others_stay_as_they_are() -> None:
    other = {**SERVER, "address": "elsewhere:3478"}
    assert current_turn_servers([other], begin_turn(Credentials(), [SERVER])) == [other]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["begin", "take", "turn", "end"]), st.integers(0, 2)),
    )
)
def test_file_tells_the_same_at_each_step(steps: list[tuple[str, int]]) -> None:
    credentials = Credentials()
    for what, index in steps:
        if what == "begin":
            credentials = begin_xmpp(credentials, NAMES)
        elif what == "take":
            credentials = take_next_passwords(credentials, [NAMES[index]])
        elif what == "turn":
            credentials = begin_turn(credentials, [SERVER])
        else:
            credentials = finish_turn(credentials)
        assert parse_credentials(render_credentials(credentials)) == credentials
    assert parse_credentials("\n") == Credentials()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "claims"}, "not a file of the passwords"),
        ({"version": 2}, "its format has version 2"),
        ({"xmpp": {"n1@x": {"password": 7}}}, "damaged"),
        ({"xmpp": {"n1@x": {"password": ""}}}, "damaged"),
        ({"xmpp": {"n1@x": {"passwort": "a"}}}, "damaged"),
        ({"xmpp": []}, "damaged"),
        ({"turn": {"a:1": {"former": {"user": "a", "password": "b"}}}}, "damaged"),
        ({"turn": {"a:1": None}}, "damaged"),
    ],
)
def test_file_that_cannot_be_right_is_refused_without_showing_it(changes: Mapping[str, Any], words: str) -> None:
    text = json.dumps({**json.loads(render_credentials(Credentials())), **changes})
    with pytest.raises(CredentialsError) as raised:
        parse_credentials(text)
    assert words in str(raised.value)
    assert "n1@x" not in str(raised.value)
