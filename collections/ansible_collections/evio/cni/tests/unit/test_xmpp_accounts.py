# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Accounts of the XMPP server: the files that prosody reads, and the accounts that are refused."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.accounts import (
    XmppAccount,
    XmppAccountError,
    check_accounts,
    file_name,
    has_password,
    render_account,
    render_groups,
)

HOST = [XmppAccount("n1-host@xmpp.example", "a"), XmppAccount("n2-host@xmpp.example", "b")]
PODS = [XmppAccount("n1-pods@xmpp.example", "c")]


def test_account_file_verifies_the_password_without_containing_it() -> None:
    content = render_account("correct horse")
    assert has_password(content, "correct horse")
    assert not has_password(content, "wrong")
    assert "horse" not in content
    assert render_account("correct horse") != content


@pytest.mark.parametrize("content", ["", "return {}", 'return { ["password"] = "a"; };', "\0"])
def test_file_without_keys_has_no_password(content: str) -> None:
    assert not has_password(content, "a")


def test_names_are_escaped_for_paths() -> None:
    assert file_name("xmpp.example") == "xmpp%2eexample"
    assert file_name("../n1") == "%2e%2e%2fn1"


def test_each_overlay_has_its_own_group() -> None:
    assert render_groups({"HOSTOVL": HOST, "PODOVL": PODS}).split("\n\n") == [
        "[HOSTOVL]\nn1-host@xmpp.example=n1-host\nn2-host@xmpp.example=n2-host",
        "[PODOVL]\nn1-pods@xmpp.example=n1-pods\n",
    ]


@pytest.mark.parametrize(
    ("domain", "pods", "words"),
    [
        ("xmpp.example", HOST[:1], "n1-host@xmpp.example is used twice, by overlay H and by overlay P"),
        ("xmpp.example", [XmppAccount("n1@other.example", "a")], "'n1@other.example' of overlay P"),
        ("xmpp.example", [XmppAccount("N1@xmpp.example", "a")], "in lower case"),
        ("xmpp.example", [XmppAccount("n1@xmpp.example", "")], "n1@xmpp.example of overlay P has no password"),
        ("Xmpp_Example", PODS, "evio_xmpp_domain: 'Xmpp_Example'"),
    ],
)
def test_account_that_cannot_work_is_refused_by_name(domain: str, pods: list[XmppAccount], words: str) -> None:
    with pytest.raises(XmppAccountError) as raised:
        check_accounts(domain, {"H": HOST, "P": pods})
    assert words in str(raised.value)


def test_password_is_in_no_representation() -> None:
    assert "'c'" not in repr(PODS[0])
