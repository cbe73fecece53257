# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Removal of paths: however they are written, and what comes into a directory meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.path_removal import PathRemoval, PathRemovalError


@pytest.mark.parametrize("end", ["", "/", "//x/", "///x"])
def test_slashes_that_say_nothing_are_no_names(tmp_path: Path, end: str) -> None:
    path = tmp_path / "state" / end.strip("/")
    path.mkdir(parents=True, exist_ok=True)
    removal = PathRemoval(paths=[f"{tmp_path}//state{end}"])
    assert removal.found == [str(path)]
    removal.apply()
    assert not path.exists()


@pytest.mark.parametrize("path", ["/etc", "//etc//", "/", "", "etc/evio", "/etc/../var", "/etc/./evio"])
def test_parts_of_the_system_are_refused(path: str) -> None:
    with pytest.raises(PathRemovalError, match="only absolute paths of at least 2 names"):
        PathRemoval(empty_directories=[path])


def test_what_comes_into_an_empty_directory_meanwhile_stays_with_it(tmp_path: Path) -> None:
    (tmp_path / "outer/inner").mkdir(parents=True)
    (tmp_path / "outer/inner/ours").touch()
    inner, outer = f"{tmp_path}/outer/inner", f"{tmp_path}/outer"
    removal = PathRemoval(files=[f"{inner}/ours"], empty_directories=[inner, outer])
    assert removal.found == [f"{inner}/ours", inner, outer]
    (tmp_path / "outer/theirs").touch()
    removal.apply()
    assert [path.name for path in (tmp_path / "outer").iterdir()] == ["theirs"]
