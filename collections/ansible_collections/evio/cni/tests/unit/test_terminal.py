# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the operator's commands print fits the terminal, and no name of a pod can give the terminal commands."""

from __future__ import annotations

import pytest
from evio_program import terminal

ROWS = [
    ("NODE", "ADDRESS", "PATH", "ENDPOINT"),
    ("edge-" + "x" * 60, "10.10.0.2", "relay cloud-" + "y" * 40, "[2001:db8:1234:5678:9abc:def0:1234:5678]:51820"),
    ("node3", "10.10.0.3", "direct", "203.0.113.7:51820"),
]


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "width", lambda: 80)


@pytest.mark.usefixtures("columns")
def test_table_is_cut_in_its_flexible_columns() -> None:
    lines = terminal.table(ROWS, flexible=(0, 2, 3))
    assert max(map(len, lines)) <= 80
    assert "…" in lines[1]
    assert "10.10.0.2" in lines[1]
    assert "203.0.113.7:51820" in lines[2]


def test_table_in_a_pipe_is_whole() -> None:
    assert ROWS[1][0] in terminal.table(ROWS)[1]


@pytest.mark.usefixtures("columns")
def test_sentence_is_wrapped_and_commands_stay_whole() -> None:
    command = "systemctl-" + "z" * 90
    text = terminal.wrapped(f"a sentence of many words that has to be wrapped {command}", first="ERROR   ")
    assert text.splitlines()[-1] == " " * 8 + command


def test_control_characters_are_not_printed() -> None:
    assert terminal.printable("pod\x1b]0;title\x07\n\u202ename") == "pod?]0;title???name"


def test_pipe_gets_no_colour() -> None:
    assert terminal.colour("text", terminal.RED) == "text"
