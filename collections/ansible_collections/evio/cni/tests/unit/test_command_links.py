# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""People find the programs by links in PATH and for man and the shells; what others have put there stays."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.programs import installation
from ansible_collections.evio.cni.plugins.module_utils.programs.archive import build, pack
from ansible_collections.evio.cni.plugins.module_utils.programs.command_links import (
    CommandLinks,
    apply_command_links,
    read_command_links,
)
from ansible_collections.evio.cni.plugins.module_utils.programs.installation import InstallationError, version_of

PAGE = "share/man/man8/evio.8"
COMPLETION = "share/bash-completion/completions/evio"


def archive(*pages: str) -> bytes:
    """An archive with these pages, whose programs do nothing."""
    files = {module.replace(".", "/") + ".py": b"def main(): pass\n" for module in installation.PROGRAMS.values()}
    return pack(files | dict.fromkeys(pages, b"page"))


class Host:
    """A host's directories, and the version that was installed last."""

    def __init__(self, directory: Path) -> None:
        self.prefix = directory / "local"
        self.directories = {"bin_dir": str(directory / "bin"), "lib_dir": str(directory / "lib")}
        self.version: str | None = None

    def install(self, content: bytes) -> CommandLinks:
        self.version = installation.install(content, **self.directories).version
        return self.link()

    def read(self) -> CommandLinks:
        return read_command_links(str(self.prefix), version=self.version, **self.directories)

    def link(self) -> CommandLinks:
        found = self.read()
        apply_command_links(found)
        return found

    def links(self) -> set[str]:
        """The links that lead somewhere."""
        return {
            str(path.relative_to(self.prefix)) for path in self.prefix.rglob("*") if path.is_symlink() and path.exists()
        }


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_commands_and_pages_are_linked_once(host: Host) -> None:
    assert not host.install(archive(PAGE)).are_right
    assert host.links() == {"bin/evio", "bin/evio-config-gen", PAGE}
    assert host.read().are_right
    assert (host.prefix / PAGE).read_text() == "page"


def test_archive_of_the_collection_has_pages_of_each_program(host: Host) -> None:
    host.install(build())
    assert len(host.links()) == len(installation.PROGRAMS) * 4


def test_upgrade_and_downgrade_leave_no_link_to_a_page_that_a_version_has_not(host: Host) -> None:
    host.install(archive(PAGE))
    host.install(archive(PAGE, COMPLETION))
    assert str(host.version) in os.readlink(host.prefix / PAGE)
    assert COMPLETION in host.links()
    host.install(archive())
    assert host.links() == {"bin/evio", "bin/evio-config-gen"}
    assert not (host.prefix / PAGE).is_symlink()


def test_what_others_have_put_there_stays(host: Host) -> None:
    for name, target in (("bin/evio", "/elsewhere/evio"), (PAGE, f"{host.directories['lib_dir']}/evio-mine/{PAGE}")):
        (host.prefix / name).parent.mkdir(parents=True)
        (host.prefix / name).symlink_to(target)
    (host.prefix / "bin/evio-config-gen").write_text("mine\n")
    foreign = host.install(archive(PAGE)).foreign
    assert foreign == tuple(str(host.prefix / name) for name in ("bin/evio", "bin/evio-config-gen", PAGE))
    host.version = None
    host.link()
    assert os.readlink(host.prefix / "bin/evio") == "/elsewhere/evio"
    assert (host.prefix / "bin/evio-config-gen").read_text() == "mine\n"


def test_removal_leaves_nothing(host: Host, tmp_path: Path) -> None:
    host.install(archive(PAGE))
    host.version = None
    host.link()
    installation.uninstall(**host.directories)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert installation.installed_files(**host.directories) == []


def test_directory_that_cannot_be_written_is_named_with_what_to_do(host: Host) -> None:
    host.prefix.write_text("a file\n")
    with pytest.raises(InstallationError, match=r"cannot link .*local/bin/evio: .*; make its directory writable, or"):
        host.install(archive())


def test_version_that_is_not_installed_yet_is_expected_to_have_all_pages(host: Host) -> None:
    host.version = version_of(hashlib.sha256(b"").hexdigest())
    assert len(host.read().links) == len(installation.PROGRAMS) * 4


def test_below_a_root_links_name_the_paths_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    version = version_of(hashlib.sha256(b"").hexdigest())
    directories = {"bin_dir": "/opt/cni/bin", "lib_dir": "/opt/cni/lib", "root": str(tmp_path)}
    apply_command_links(read_command_links("/usr/local", version=version, **directories))
    assert os.readlink(tmp_path / "usr/local/bin/evio") == "/opt/cni/bin/evio"
    assert os.readlink(tmp_path / "usr/local" / PAGE) == f"/opt/cni/lib/{version}/{PAGE}"
