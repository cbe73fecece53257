"""A cache is filled once, is whole or is not there, and says where it failed."""

from __future__ import annotations

from pathlib import Path

import debian_packages
import pytest
from debian_packages import Steps, fill


def is_filled(directory: Path) -> bool:
    return (directory / "program").is_file()


def test_cache_is_filled_once_and_leaves_no_working_directory(tmp_path: Path) -> None:
    built = []

    def build(steps: Steps, out: Path) -> None:
        built.append(out)
        steps.run("cp", "/etc/hostname", out / "program")

    for _time in range(2):
        fill(tmp_path / "cache", "test", is_filled, build)
    assert len(built) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "cache.lock"]


def test_step_that_fails_leaves_no_cache_and_its_output_is_told(tmp_path: Path) -> None:
    def build(steps: Steps, out: Path) -> None:
        (out / "program").write_text("half")
        steps.run("sh", "-c", "echo no such package >&2; exit 7")

    with pytest.raises(SystemExit, match=r"(?s)no such package.*test: sh failed; all output is in .*cache\.log"):
        fill(tmp_path / "cache", "test", is_filled, build)
    assert not (tmp_path / "cache").exists()
    fill(tmp_path / "cache", "test", is_filled, lambda _steps, out: (out / "program").touch())
    assert is_filled(tmp_path / "cache")


def test_output_of_a_step_is_its_standard_output(tmp_path: Path) -> None:
    found = []
    fill(tmp_path / "cache", "test", is_filled, lambda steps, _out: found.append(steps.output("echo", "one")))
    assert found == ["one\n"]


@pytest.mark.parametrize(
    ("line", "stanza"),
    [
        (
            "deb [signed-by=/usr/share/k.gpg] http://deb.debian.org/debian bookworm main contrib",
            "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main contrib"
            "\nSigned-By: /usr/share/k.gpg",
        ),
        (
            "deb http://deb.debian.org/debian bookworm-updates main",
            "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm-updates\nComponents: main",
        ),
        ("deb-src http://deb.debian.org/debian bookworm main", ""),
    ],
)
def test_line_of_sources_list_becomes_a_stanza(line: str, stanza: str) -> None:
    assert debian_packages._stanza(line) == stanza
