# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module packages asks the real dpkg of this machine which packages are missing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from .ansible_module import run_module


def missing(*names: str) -> list[str]:
    # In check mode nothing is noted on this machine.
    result = run_module("packages", check_mode=True, name=list(names))
    assert result["changed"] is False
    found: list[str] = result["missing"]
    return found


def test_only_packages_that_dpkg_has_not_installed_are_missing() -> None:
    assert missing("dpkg", "no-such-package", "coreutils") == ["no-such-package"]


def test_package_of_an_architecture_is_asked_for_with_it() -> None:
    native = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    assert missing(f"coreutils:{native}", "coreutils:s390x") == ["coreutils:s390x"]


def test_names_that_only_apt_understands_are_left_to_it() -> None:
    assert missing("coreutils=9.1-1", "core*", "--status", "dpkg/stable") == [
        "coreutils=9.1-1",
        "core*",
        "--status",
        "dpkg/stable",
    ]


def test_missing_package_makes_the_note_begin_and_the_end_finds_nothing_new(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    run_module("packages", check_mode=True, name=["no-such-package"], note=str(note))
    assert not note.exists()
    run_module("packages", name=["no-such-package"], note=str(note))
    assert "dpkg" in json.loads(note.read_text())["before"]["packages"]
    run_module("packages", name=["no-such-package"], note=str(note), installed=True)
    assert not note.exists()


def test_removal_without_a_note_removes_nothing(tmp_path: Path) -> None:
    result = run_module("packages", state="absent", note=str(tmp_path / "note.json"))
    assert (result["changed"], result["removed"]) == (False, [])


def test_removal_of_a_package_that_much_needs_is_planned_without_it(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    note.write_text(
        json.dumps({"version": 1, "packages": ["python3", "no-such-package"], "accounts": {}, "before": None})
    )
    result = run_module("packages", check_mode=True, state="absent", note=str(note))
    assert (result["changed"], result["removed"]) == (False, [])
    assert result["needed"]["python3"]
