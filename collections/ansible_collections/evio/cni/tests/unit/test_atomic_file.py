# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that are written in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.atomic_file import write_atomic


def test_file_has_its_mode_with_any_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "file", "text\n", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_failed_write_leaves_nothing_beside_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "file", "text\n", mode=0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
