# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The conflist gets into its directory by a rename that containerd notices, completely or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni import conf_dir

CONFLIST = {"cniVersion": "1.0.0", "name": "evio", "plugins": [{"type": "evio"}]}


def test_write_makes_the_file_private_and_leaves_nothing_else(tmp_path: Path) -> None:
    assert conf_dir.write_conflist(CONFLIST, str(tmp_path))
    assert os.listdir(tmp_path) == ["10-evio.conflist"]
    assert (tmp_path / "10-evio.conflist").stat().st_mode & 0o777 == 0o600


def test_second_write_of_the_same_conflist_changes_nothing(tmp_path: Path) -> None:
    conf_dir.write_conflist(CONFLIST, str(tmp_path))
    before = (tmp_path / "10-evio.conflist").stat()
    assert not conf_dir.write_conflist(CONFLIST, str(tmp_path))
    assert (tmp_path / "10-evio.conflist").stat().st_ino == before.st_ino


def test_wrong_mode_is_corrected(tmp_path: Path) -> None:
    conf_dir.write_conflist(CONFLIST, str(tmp_path))
    (tmp_path / "10-evio.conflist").chmod(0o644)
    assert not conf_dir.is_current(CONFLIST, str(tmp_path))
    assert conf_dir.write_conflist(CONFLIST, str(tmp_path))
    assert (tmp_path / "10-evio.conflist").stat().st_mode & 0o777 == 0o600


def test_temporary_file_has_a_name_that_no_runtime_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    rename = os.rename

    def note_and_rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        directories = (os.readlink(f"/proc/self/fd/{one}") for one in (src_dir_fd, dst_dir_fd))
        seen.append((f"{next(directories)}/{source}", f"{next(directories)}/{target}"))
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", note_and_rename)
    conf_dir.write_conflist(CONFLIST, str(tmp_path))
    [(source, target)] = seen
    assert Path(source).parent == Path(target).parent == tmp_path
    assert not source.endswith((".conf", ".conflist", ".json"))


def test_failed_rename_keeps_the_old_file_and_no_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf_dir.write_conflist(CONFLIST, str(tmp_path))

    def fail(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(conf_dir.ConfDirError, match="No space left"):
        conf_dir.write_conflist({**CONFLIST, "name": "other"}, str(tmp_path))
    assert os.listdir(tmp_path) == ["10-evio.conflist"]
    assert conf_dir.is_current(CONFLIST, str(tmp_path))


@pytest.mark.parametrize("name", ["05-other.conflist", "10-aaa.conf", "00.json"])
def test_file_that_sorts_before_ours_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(conf_dir.ConfDirError, match=name):
        conf_dir.write_conflist(CONFLIST, str(tmp_path))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["87-podman-bridge.conflist", "05-notes.txt", ".keep"])
def test_other_files_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    assert conf_dir.write_conflist(CONFLIST, str(tmp_path))


def test_second_remove_does_nothing(tmp_path: Path) -> None:
    conf_dir.write_conflist(CONFLIST, str(tmp_path))
    assert conf_dir.remove_conflist(str(tmp_path))
    assert not conf_dir.remove_conflist(str(tmp_path))


def test_directory_is_made_where_it_is_missing(tmp_path: Path) -> None:
    assert conf_dir.write_conflist(CONFLIST, str(tmp_path / "cni" / "net.d"))


OURS = {"name": "evio", "plugins": [{"type": "evio"}]}


@pytest.mark.parametrize(
    "conf",
    [
        {"type": "multus", "delegates": [OURS, {"type": "bridge"}]},
        {"type": "multus", "clusterNetwork": "evio"},
        {"type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-evio.conflist"},
        {"plugins": [{"type": "multus", "delegates": [OURS]}]},
    ],
    ids=str,
)
def test_multus_that_delegates_to_our_network_is_no_competitor(tmp_path: Path, conf: dict[str, Any]) -> None:
    (tmp_path / "00-multus.conf").write_text(json.dumps({"name": "multus-cni-network", **conf}))
    assert conf_dir.write_conflist(CONFLIST, str(tmp_path))
    assert conf_dir.multus_in_front(str(tmp_path)) == "multus-cni-network"


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "multus", "name": "m", "delegates": [{"name": "flannel"}, {"name": "evio"}]}',
        '{"type": "multus", "name": "m", "clusterNetwork": "flannel", "delegates": [{"name": "evio"}]}',
        '{"type": "multus", "name": "m", "clusterNetwork": 5}',
        '{"type": "multus", "name": "m", "delegates": {"name": "evio"}}',
        '{"type": "multus", "name": "m"}',
        '{"type": "flannel", "name": "evio", "delegates": [{"name": "evio"}]}',
        '{"plugins": [5]}',
        "[" * 100000,
        "no JSON",
        '{"type": "multus", "name": "m", "clusterNetwork": "evio"}' + " " * (1 << 20),
    ],
    ids=lambda text: text[:70],
)
def test_first_file_with_another_network_is_a_competitor(tmp_path: Path, text: str) -> None:
    (tmp_path / "00-multus.conf").write_text(text)
    with pytest.raises(conf_dir.ConfDirError, match=r"00-multus\.conf sorts before"):
        conf_dir.write_conflist(CONFLIST, str(tmp_path))


def test_named_pipe_in_front_is_a_competitor_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "00-multus.conf")
    with pytest.raises(conf_dir.ConfDirError):
        conf_dir.refuse_competitors(str(tmp_path))


def test_files_that_the_runtime_would_use_without_ours_are_named_in_its_order(tmp_path: Path) -> None:
    for name in ("10-flannel.conflist", "99-loopback.conf", "05-other.conflist", "10-evio.conflist", "87-podman.bak"):
        (tmp_path / name).write_text("{}")
    assert conf_dir.later_files(str(tmp_path)) == ["10-flannel.conflist", "99-loopback.conf"]
    assert conf_dir.later_files(str(tmp_path / "none")) == []
