# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Installing programs: a version replaces another in one step, and old versions are removed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.programs import installation
from ansible_collections.evio.cni.plugins.module_utils.programs.installation import (
    InstallationError,
    install,
    pack,
    version_of,
)


def archive(word: str) -> bytes:
    files = {f"{module.partition('.')[0]}/__init__.py": b"" for module in installation.PROGRAMS.values()}
    program = f"def main():\n    print({word!r})\n".encode()
    return pack(files | {module.replace(".", "/") + ".py": program for module in installation.PROGRAMS.values()})


def put(tmp_path: Path, content: bytes) -> bool:
    return install(content, bin_dir=str(tmp_path / "bin"), lib_dir=str(tmp_path / "lib"))


def run(tmp_path: Path) -> str:
    return subprocess.run([tmp_path / "bin/evio"], check=True, capture_output=True, text=True).stdout.strip()


def test_same_files_make_the_same_archive() -> None:
    assert pack({"a": b"1", "b": b"2"}) == pack({"b": b"2", "a": b"1"})


def test_program_runs_from_its_launcher_a_link_and_a_copy(tmp_path: Path) -> None:
    assert put(tmp_path, archive("one"))
    assert run(tmp_path) == "one"
    (tmp_path / "link").symlink_to(tmp_path / "bin/evio")
    (tmp_path / "copy").write_bytes((tmp_path / "bin/evio").read_bytes())
    (tmp_path / "copy").chmod(0o755)
    for launcher in ("link", "copy"):
        done = subprocess.run([tmp_path / launcher], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == "one"


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_all_users_can_read_the_files_and_only_root_write_them_with_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        put(tmp_path, archive("one"))
    finally:
        os.umask(before)
    for path in (tmp_path / "lib", *(tmp_path / "lib").rglob("*"), tmp_path / "bin"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    assert (tmp_path / "bin/evio").stat().st_mode & 0o777 == 0o755


def test_code_is_byte_compiled(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    assert list((tmp_path / "lib").glob("*/evio_program/__pycache__/main.*.pyc"))


def test_second_installation_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    assert not put(tmp_path, archive("one"))


def test_upgrade_keeps_the_previous_version(tmp_path: Path) -> None:
    for word in ("one", "two", "three"):
        assert put(tmp_path, archive(word))
    assert run(tmp_path) == "three"
    kept = {path.name for path in (tmp_path / "lib").iterdir()}
    assert kept == {version_of(hashlib.sha256(archive(word)).hexdigest()) for word in ("two", "three")}


def test_lost_launcher_is_put_back(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    (tmp_path / "bin/evio").unlink()
    assert put(tmp_path, archive("one"))
    assert run(tmp_path) == "one"


def test_broken_archive_leaves_the_installed_version(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    with pytest.raises(InstallationError):
        put(tmp_path, b"no archive")
    with pytest.raises(InstallationError, match="cannot compile"):
        put(tmp_path, pack({"evio_program/main.py": b"def main(:\n"}))
    assert run(tmp_path) == "one"
    assert [path.name for path in (tmp_path / "lib").glob(".*")] == []


def test_missing_interpreter_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match="/nowhere/python3 is not there"):
        install(archive("one"), bin_dir=str(tmp_path), lib_dir=str(tmp_path), interpreter="/nowhere/python3")
