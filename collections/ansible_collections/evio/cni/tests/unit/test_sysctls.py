# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kernel settings kept for the next boot, and the one way of writing a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.atomic_file import write_atomic
from ansible_collections.evio.cni.plugins.module_utils.kernel.sysctl import SysctlError, dotted, ensure_file


def test_file_is_made_kept_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "sysctl.d/60-evio.conf"
    assert ensure_file(str(path), {"net/ipv4/ip_forward": "1"}).changed
    assert path.read_text().endswith("\nnet.ipv4.ip_forward = 1\n")
    assert path.stat().st_mode & 0o777 == 0o644
    assert not ensure_file(str(path), {"net/ipv4/ip_forward": "1"}).changed
    assert ensure_file(str(path), {}).changed
    assert not path.exists()
    assert not ensure_file(str(path), {}).changed


def test_directory_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "sysctl.d").write_text("")
    with pytest.raises(SysctlError, match=r"cannot read .*60-evio\.conf"):
        ensure_file(str(tmp_path / "sysctl.d/60-evio.conf"), {"net/ipv4/ip_forward": "1"})


def test_interface_with_a_dot_is_written_as_sysctl_reads_it() -> None:
    assert dotted("net/ipv6/conf/eth0.7/accept_ra") == "net.ipv6.conf.eth0/7.accept_ra"


def test_whole_file_has_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "file", "text\n", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_write_that_fails_leaves_nothing_beside_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "file", "text\n", mode=0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
