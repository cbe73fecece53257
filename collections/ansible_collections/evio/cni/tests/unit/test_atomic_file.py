# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that are written in one step, and never through a link that another user has laid."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.atomic_file import (
    make_directories,
    read_text,
    remove_file,
    write_atomic,
)
from ansible_collections.evio.cni.plugins.module_utils.managed_file import ManagedFile, ManagedFileError

_STRANGER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory of another user."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    os.chown(directory, _STRANGER, _STRANGER)
    return directory


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A file of root's, which the other user wants to read or to change."""
    path = tmp_path / "ours/secret"
    path.parent.mkdir()
    path.write_text("secret\n")
    path.chmod(0o600)
    return path


@pytest.fixture(params=[0o077, 0o777, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def lay_link(path: Path, target: Path) -> None:
    path.symlink_to(target)
    os.chown(path, _STRANGER, _STRANGER, follow_symlinks=False)


@pytest.mark.usefixtures("umask")
def test_file_and_its_directories_have_their_modes_with_any_umask(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a/b/file", "text\n", mode=0o644)
    make_directories(tmp_path / "c/d", 0o750)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b", "a/b/file", "c", "c/d")}
    assert modes == {"a": 0o755, "a/b": 0o755, "a/b/file": 0o644, "c": 0o750, "c/d": 0o750}
    assert [entry.name for entry in (tmp_path / "a/b").iterdir()] == ["file"]


def test_failed_write_leaves_nothing_beside_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "file", "text\n", mode=0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_links_of_root_and_of_this_user_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("absolute/../real")
    write_atomic(tmp_path / "relative/file", "text\n", mode=0o644)
    (tmp_path / "real/link").symlink_to("file")
    assert read_text(tmp_path / "absolute/link") == "text\n"
    remove_file(tmp_path / "relative/link")
    assert [entry.name for entry in (tmp_path / "real").iterdir()] == ["file"]


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="circle"):
        read_text(tmp_path / "circle/file")


@needs_root
def test_link_in_the_place_of_a_file_is_replaced_not_written_through(theirs: Path, ours: Path) -> None:
    lay_link(theirs / "file", ours)
    write_atomic(theirs / "file", "new\n", mode=0o640, uid=_STRANGER)
    assert ours.read_text() == "secret\n"
    assert (ours.stat().st_uid, ours.stat().st_mode & 0o777) == (0, 0o600)
    assert not (theirs / "file").is_symlink()
    assert (theirs / "file").read_text() == "new\n"


@needs_root
def test_link_at_a_temporary_name_of_this_process_leads_nowhere(theirs: Path, ours: Path) -> None:
    for name in (f".file.{os.getpid()}.tmp", ".file.tmp", "file.tmp"):
        lay_link(theirs / name, ours)
    write_atomic(theirs / "file", "new\n", mode=0o644, uid=_STRANGER, gid=_STRANGER)
    assert ours.read_text() == "secret\n"
    assert (ours.stat().st_uid, ours.stat().st_mode & 0o777) == (0, 0o600)
    assert (theirs / "file").read_text() == "new\n"


@needs_root
def test_directory_that_another_user_replaced_by_a_link_is_refused(theirs: Path, ours: Path) -> None:
    lay_link(theirs / "directory", ours.parent)
    with pytest.raises(OSError, match="symbolic link of user 65534"):
        write_atomic(theirs / "directory/secret", "new\n", mode=0o644)
    with pytest.raises(OSError, match="symbolic link of user 65534"):
        make_directories(theirs / "directory/sub", uid=_STRANGER)
    with pytest.raises(OSError, match="symbolic link of user 65534"):
        remove_file(theirs / "directory/secret")
    assert ours.read_text() == "secret\n"
    assert [entry.name for entry in ours.parent.iterdir()] == ["secret"]
    assert ours.parent.stat().st_uid == 0


@needs_root
def test_secret_behind_a_link_is_not_shown(theirs: Path, ours: Path) -> None:
    lay_link(theirs / "file", ours)
    with pytest.raises(OSError, match="symbolic link of user 65534"):
        read_text(theirs / "file")
    with pytest.raises(ManagedFileError, match="symbolic link of user 65534"):
        ManagedFile(theirs / "file", mode=0o600)


def test_pipe_in_the_place_of_a_file_does_not_make_the_reader_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    with pytest.raises(OSError, match="is no regular file"):
        read_text(tmp_path / "file")


def test_new_file_replaces_neither_a_file_nor_a_link(tmp_path: Path, ours: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for path in (ours, link):
        with pytest.raises(FileExistsError):
            write_atomic(path, "other\n", mode=0o600, must_be_new=True)
    assert ours.read_text() == "secret\n"
    assert link.is_symlink()
    assert not (tmp_path / "nowhere").exists()
    write_atomic(tmp_path / "new", "new\n", mode=0o640, must_be_new=True)
    assert (tmp_path / "new").read_text() == "new\n"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "new").stat().st_nlink == 1
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "link", "new"}
