# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The journal: entries are read as they were written, survive cut-off lines, and can be read by root alone."""

from __future__ import annotations

import os
import posix
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.attachment import Attachment
from ansible_collections.evio.cni.plugins.module_utils.cni.spec import IO_FAILURE
from ansible_collections.evio.cni.plugins.module_utils.names import host_ifname
from ansible_collections.evio.cni.plugins.module_utils.plugin.error_codes import cni_error
from ansible_collections.evio.cni.plugins.module_utils.state.directory import StateError
from ansible_collections.evio.cni.plugins.module_utils.state.journal import Journal

POD = Attachment("evio", "a", "eth0")
ENTRY = {"host": "evio0", "ips": ["10.244.3.2/24"], "config": {"name": "evio", "note": "\u00e9" * 3000}}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "var/state"


@pytest.fixture
def journal(state: Path) -> Journal:
    return Journal(str(state))


def test_entry_is_read_back_as_it_was_written(journal: Journal) -> None:
    journal.begin(POD, ENTRY)
    assert journal.read(POD) == ENTRY
    journal.add(POD, {"deleted": True, "host": "evio1"})
    assert journal.read(POD) == {**ENTRY, "deleted": True, "host": "evio1"}
    journal.begin(POD, {"at": 1})
    assert journal.read(POD) == {"at": 1}


def test_add_does_not_create_an_entry(journal: Journal, state: Path) -> None:
    journal.begin(POD, ENTRY)
    journal.remove(POD)
    with pytest.raises(StateError, match="cannot write the journal"):
        journal.add(POD, {"deleted": True})
    assert list((state / "evio").iterdir()) == []


@pytest.mark.parametrize("rest", [b'{"deleted": tr', b'{"deleted": true', b"7\n", b"\xff\n", b"\0\0\0"])
def test_line_that_was_cut_off_is_passed_over(journal: Journal, state: Path, rest: bytes) -> None:
    journal.begin(POD, ENTRY)
    with (state / "evio/a:eth0").open("ab") as stream:
        stream.write(rest)
    assert journal.read(POD) == ENTRY
    journal.add(POD, {"deleted": True})
    assert journal.read(POD) == {**ENTRY, "deleted": True}


def test_entry_without_a_final_newline_is_read_and_added_to(journal: Journal, state: Path) -> None:
    journal.begin(POD, ENTRY)
    (state / "evio/a:eth0").write_text('{"host":"evio0","ips":["10.244.3.2/24"]}')
    assert journal.read(POD) == {"host": "evio0", "ips": ["10.244.3.2/24"]}
    journal.add(POD, {"deleted": True})
    assert journal.read(POD) == {"host": "evio0", "ips": ["10.244.3.2/24"], "deleted": True}


def test_entry_is_written_completely_when_the_kernel_writes_in_parts(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = posix.write
    monkeypatch.setattr(posix, "write", lambda descriptor, text: write(descriptor, text[:1000]))
    journal.begin(POD, ENTRY)
    assert journal.read(POD) == ENTRY


def test_entries_and_directories_can_be_read_by_root_alone(journal: Journal, state: Path) -> None:
    before = os.umask(0)
    try:
        journal.begin(POD, ENTRY)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (state, state / "evio", state / "evio/a:eth0")] == [
        0o700,
        0o700,
        0o600,
    ]


def test_empty_journal_has_no_entry_and_no_attachment(journal: Journal) -> None:
    assert (journal.read(POD), journal.attachments("evio"), journal.younger_than("evio", 60)) == (None, [], set())
    journal.remove(POD)


def test_interfaces_of_one_container_have_separate_entries(journal: Journal) -> None:
    journal.begin(POD, {"at": 0})
    journal.begin(Attachment("evio", "a", "net1"), {"at": 1})
    journal.remove(POD)
    assert (journal.read(POD), journal.read(Attachment("evio", "a", "net1"))) == (None, {"at": 1})
    assert journal.attachments("evio") == [Attachment("evio", "a", "net1")]


def test_networks_have_separate_entries(journal: Journal) -> None:
    journal.begin(POD, ENTRY)
    assert journal.attachments("other") == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"7", b"\0" * 100])
def test_entry_with_unreadable_content_is_empty_and_still_listed(journal: Journal, state: Path, content: bytes) -> None:
    journal.begin(POD, ENTRY)
    (state / "evio/a:eth0").write_bytes(content)
    assert journal.read(POD) == {}
    assert journal.attachments("evio") == [POD]


def test_other_files_are_not_attachments(journal: Journal, state: Path) -> None:
    journal.begin(POD, ENTRY)
    (state / "evio/lost+found").mkdir()
    assert journal.attachments("evio") == [POD]


def test_younger_than_returns_only_young_entries(journal: Journal, state: Path) -> None:
    journal.begin(Attachment("evio", "old", "eth0"), ENTRY)
    journal.begin(Attachment("evio", "new", "eth0"), ENTRY)
    path = state / "evio/old:eth0"
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 100))
    assert journal.younger_than("evio", 60) == {Attachment("evio", "new", "eth0")}


def test_symbolic_link_in_place_of_an_entry_is_not_followed(journal: Journal, state: Path, tmp_path: Path) -> None:
    journal.begin(POD, ENTRY)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (state / "evio/b:eth0").symlink_to(victim)
    with pytest.raises(StateError) as raised:
        journal.begin(Attachment("evio", "b", "eth0"), ENTRY)
    assert cni_error(raised.value).code == IO_FAILURE
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "call",
    [
        lambda journal: journal.begin(POD, ENTRY),
        lambda journal: journal.read(POD),
        lambda journal: journal.remove(POD),
        lambda journal: journal.attachments("evio"),
    ],
)
def test_state_directory_that_is_a_file_is_a_state_error(
    journal: Journal, state: Path, call: Callable[[Journal], Any]
) -> None:
    state.parent.mkdir()
    state.write_text("")
    with pytest.raises(StateError, match=r"journal.*Not a directory") as raised:
        call(journal)
    assert cni_error(raised.value).code == IO_FAILURE


def test_host_end_is_the_noted_name_if_it_can_be_ours(tmp_path: Path) -> None:
    """An older version of the plugin may have chosen another name."""
    journal, ours = Journal(str(tmp_path)), host_ifname("evio", "0a1b", "eth0")
    assert journal.host_end(Attachment("evio", "0a1b", "eth0")) == ours
    for noted, name in (("evpod05ee4e8ba7", "evpod05ee4e8ba7"), ("eth0", ours), ("evpod/../../x", ours), (7, ours)):
        journal.begin(Attachment("evio", "0a1b", "eth0"), {"host": noted})
        assert journal.host_end(Attachment("evio", "0a1b", "eth0")) == name


def test_host_end_is_derived_when_the_entry_cannot_be_read(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    (tmp_path / "evio/0a1b:eth0").mkdir(parents=True)
    assert journal.host_end(Attachment("evio", "0a1b", "eth0")) == host_ifname("evio", "0a1b", "eth0")
    with pytest.raises(StateError, match="cannot read the journal"):
        journal.read(Attachment("evio", "0a1b", "eth0"))
