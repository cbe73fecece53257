# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The CNI plugins beside ours: linked or copied where they are missing, and what is there is never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.programs.cni_plugins import broken_plugins, provide_plugins
from ansible_collections.evio.cni.plugins.module_utils.programs.installation import InstallationError

BIN = "/opt/cni/bin"


def program(path: Path, text: str = "host-local") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def provide(root: Path, copies: Path | None = None) -> list[str]:
    return provide_plugins(["host-local"], bin_dir=BIN, root=str(root), copies=str(copies) if copies else None)


def test_plugin_of_the_distribution_is_linked(tmp_path: Path) -> None:
    program(tmp_path / "usr/lib/cni/host-local")
    assert provide(tmp_path) == ["host-local"]
    assert str((tmp_path / "opt/cni/bin/host-local").readlink()) == "/usr/lib/cni/host-local"
    assert provide(tmp_path) == []


def test_plugin_that_the_host_lacks_is_copied(tmp_path: Path) -> None:
    program(tmp_path / "copies/host-local", "copy")
    assert provide(tmp_path / "host", tmp_path / "copies") == ["host-local"]
    copy = tmp_path / "host/opt/cni/bin/host-local"
    assert (copy.read_text(), copy.stat().st_mode & 0o777) == ("copy", 0o755)


def test_plugin_that_is_nowhere_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match=r"/usr/lib/cni/host-local is not there .* containernetworking-plugins"):
        provide(tmp_path)


@pytest.mark.parametrize("is_link", [True, False])
def test_what_is_there_stays(tmp_path: Path, is_link: bool) -> None:
    program(tmp_path / "copies/host-local")
    there = tmp_path / "host/opt/cni/bin/host-local"
    if is_link:
        there.parent.mkdir(parents=True)
        there.symlink_to("/gone/host-local")
    else:
        program(there, "the site's own")
    assert provide(tmp_path / "host", tmp_path / "copies") == []
    assert there.is_symlink() if is_link else there.read_text() == "the site's own"


def test_plugin_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "opt/cni/bin"
    program(directory / "good")
    program(directory / "plain").chmod(0o644)
    (directory / "linked").symlink_to("/usr/lib/cni/linked")
    (directory / "dangling").symlink_to("/gone")
    (directory / "directory").mkdir()
    program(tmp_path / "usr/lib/cni/linked")
    names = ["good", "linked", "plain", "dangling", "directory"]
    assert broken_plugins(names, bin_dir=BIN, root=str(tmp_path)) == [
        "/opt/cni/bin/plain is not executable",
        "/opt/cni/bin/dangling is a link to /gone, which is not there",
        "/opt/cni/bin/directory is no file",
    ]
