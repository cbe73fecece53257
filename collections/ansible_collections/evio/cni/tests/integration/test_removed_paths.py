# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module removed_paths on real directories: what is named goes, what others have put beside it stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .ansible_module import check_do_again, run_module


def test_paths_go_and_directories_that_are_empty_then(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/other").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    arguments = {
        "paths": [str(tmp_path / name) for name in ("a/b/file", "link", "missing")],
        "empty_directories": [str(tmp_path / name) for name in ("a/b", "a", "kept", "none")],
    }
    predicted, done, _again = check_do_again("removed_paths", **arguments)
    assert (
        predicted["removed"] == done["removed"] == [str(tmp_path / name) for name in ("a/b/file", "link", "a/b", "a")]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/other").exists()


def test_file_goes_and_a_directory_that_was_given_for_it_stays(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "ssl/private").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "ssl")
    files = [str(tmp_path / name) for name in ("file", "ssl", "link", "missing")]
    _predicted, done, _again = check_do_again("removed_paths", files=files)
    assert done["removed"] == [files[0], files[2]]
    assert f"{files[1]} is a directory and stays" in str(done["warnings"])
    assert [path.name for path in tmp_path.iterdir()] == ["ssl"]
    assert (tmp_path / "ssl/private").is_dir()


@pytest.mark.root
def test_mount_point_stays_and_what_is_in_it_goes(tmp_path: Path) -> None:
    directory = tmp_path / "containerd"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(directory)], check=True)
    try:
        (directory / "layers/1").mkdir(parents=True)
        (directory / "state").touch()
        arguments = {"paths": [str(directory)], "empty_directories": [str(directory)]}
        _predicted, done, _again = check_do_again("removed_paths", **arguments)
        assert done["removed"] == [str(directory)]
        assert directory.is_mount()
        assert list(directory.iterdir()) == []
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_paths_of_the_system_itself_are_refused() -> None:
    for path in ("/", "/etc", "/etc/", "relative/path", "/etc/../usr", "/usr/..", "//usr"):
        for option in ("paths", "files", "empty_directories"):
            result = run_module("removed_paths", check_mode=True, **{option: [path]})
            assert result.get("failed"), path
            assert "only absolute paths" in result["msg"]
