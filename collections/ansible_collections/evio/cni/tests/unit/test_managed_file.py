# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A file that a module keeps: what differs is found, shown and put right, and nothing else is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.differences import Differences
from ansible_collections.evio.cni.plugins.module_utils.managed_file import ManagedFile, ManagedFileError, result_of


def test_missing_file_is_written_with_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "etc/file"
    change = ManagedFile(path, mode=0o600, directory_mode=0o700).change_to("text\n")
    assert change.changed
    header = {"before_header": str(path), "after_header": str(path)}
    assert change.diff() == [{**header, "before": "", "after": "text\n"}]
    assert not path.parent.exists()
    change.apply()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("text\n", 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_file_that_is_as_wanted_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text\n")
    path.chmod(0o600)
    before = path.stat()
    change = ManagedFile(path, mode=0o600, uid=os.getuid()).change_to("text\n")
    change.apply()
    assert (change.changed, change.diff()) == (False, [])
    assert path.stat() == before


def test_wrong_mode_is_shown_and_put_right(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text\n")
    path.chmod(0o644)
    change = ManagedFile(path, mode=0o600).change_to("text\n")
    [diff] = change.diff()
    assert (diff["before"], diff["after"]) == ({"mode": "0644"}, {"mode": "0600"})
    change.apply()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
def test_file_is_given_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text\n")
    path.chmod(0o640)
    change = ManagedFile(path, mode=0o640, uid=12, gid=34).change_to("text\n")
    assert [difference.name for difference in change.differences] == ["uid", "gid"]
    change.apply()
    assert (path.stat().st_uid, path.stat().st_gid) == (12, 34)


def test_file_is_removed_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text\n")
    change = ManagedFile(path, mode=0o600).change_to(None)
    change.apply()
    assert change.changed
    assert not path.exists()
    assert not ManagedFile(path, mode=0o600).change_to(None).changed


def test_diff_shows_only_what_it_may(tmp_path: Path) -> None:
    file = ManagedFile(tmp_path / "file", mode=0o600, show=lambda text: text.replace("secret", "(secret)"))
    assert file.change_to("a secret\n").diff()[0]["after"] == "a (secret)\n"


def test_result_has_the_diffs_of_everything_that_differs(tmp_path: Path) -> None:
    file = ManagedFile(tmp_path / "file", mode=0o600)
    same, other = Differences(), Differences()
    same.compare("mtu", 1420, 1420)
    other.compare("mtu", 1420, 1500)
    result = result_of(file.change_to("text\n"), same, other)
    assert result["changed"] is True
    assert [diff["after"] for diff in result["diff"]] == ["text\n", {"mtu": 1420}]
    assert result_of(file.change_to(None), same) == {"changed": False, "diff": []}


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(ManagedFileError, match=f"cannot read {tmp_path}/file"):
        ManagedFile(tmp_path / "file", mode=0o600)
    (tmp_path / "plain").write_text("")
    file = ManagedFile(tmp_path / "plain", mode=0o600)
    (tmp_path / "plain").unlink()
    (tmp_path / "plain").mkdir()
    with pytest.raises(ManagedFileError, match=f"cannot write {tmp_path}/plain: Is a directory"):
        file.change_to("text").apply()
