"""The collection's archive: the same bytes for the same commit, and never without the programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
COLLECTION = "collections/ansible_collections/evio/cni"
# Without the configuration of this repository, with which Ansible would find its collection.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"
INSTALL_PROGRAMS = """\
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: /usr/bin/python3
  tasks:
    - evio.cni.programs:
        bin_dir: "{directory}/bin"
        lib_dir: "{directory}/lib"
        commands_prefix: "{directory}/local"
        state: "{state}"
"""


def run(*command: object, umask: int = 0o022, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env={**ENVIRONMENT, **environment},
        umask=umask,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def done(*command: object, **environment: str) -> str:
    result = run(*command, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def clone(directory: Path, umask: int = 0o022) -> Path:
    assert run("git", "clone", "--quiet", REPOSITORY, directory, umask=umask).returncode == 0
    return directory


def build(repository: Path, target: Path) -> Path:
    return Path(done(repository / "setup/collection_archive.py", target).strip())


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("archive")
    return build(clone(directory / "clone"), directory / "built")


def install(archive: Path, directory: Path) -> Path:
    command = ("ansible-galaxy", "collection", "install", "--offline", archive, "-p", directory)
    done(*command, ANSIBLE_COLLECTIONS_PATH=str(directory))
    return directory


def install_programs(
    collections: Path, directory: Path, *, state: str = "present", options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the module of an installed collection, on a file system where the collection cannot be changed."""
    playbook = directory / "play.yml"
    playbook.write_text(INSTALL_PROGRAMS.format(directory=directory, state=state))
    read_only = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    return run(
        *("unshare", "--mount", "sh", "-c", read_only, "sh", collections),
        *("ansible-playbook", "-i", "localhost,", playbook, *options),
        ANSIBLE_COLLECTIONS_PATH=str(collections),
        ANSIBLE_HOME=str(directory / "ansible"),
    )


def test_same_commit_gives_the_same_bytes_in_any_directory_with_any_umask_and_times(
    archive: Path, tmp_path: Path
) -> None:
    other = clone(tmp_path / "elsewhere", umask=0o077)
    for path in (other / COLLECTION).rglob("*"):
        os.utime(path, (1, 1))
    # What tests and linters leave in a tree.
    (other / COLLECTION / "plugins/modules/__pycache__").mkdir()
    assert build(other, tmp_path / "built").read_bytes() == archive.read_bytes()


def test_archive_has_every_file_of_the_programs_and_of_the_library(archive: Path) -> None:
    with tarfile.open(archive) as packed:
        names = set(packed.getnames())
    sources = [*(REPOSITORY / COLLECTION / "roles/programs/files").rglob("*.py")]
    sources += (REPOSITORY / COLLECTION / "plugins/module_utils").rglob("*.py")
    assert {str(path.relative_to(REPOSITORY / COLLECTION)) for path in sources} <= names
    assert "roles/programs/files/evio_program/main.py" in names


@pytest.mark.root
def test_programs_are_installed_from_a_read_only_collection_also_of_a_build_by_hand(
    archive: Path, tmp_path: Path
) -> None:
    done("ansible-galaxy", "collection", "build", clone(tmp_path / "clone") / COLLECTION, "--output-path", tmp_path)
    versions = []
    for path in (archive, tmp_path / archive.name):
        place = tmp_path / f"place{len(versions)}"
        place.mkdir()
        result = install_programs(install(path, place / "collections"), place)
        assert result.returncode == 0, result.stdout + result.stderr
        versions.append(done(place / "local/bin/evio", "version"))
    assert versions[0].startswith("evio-")
    assert "(evio.cni 0.1.0)" in versions[0]
    assert versions[0] == versions[1]


@pytest.mark.root
def test_incomplete_collection_is_refused_in_words(archive: Path, tmp_path: Path) -> None:
    collections = install(archive, tmp_path / "collections")
    shutil.rmtree(collections / "ansible_collections/evio/cni/roles/programs/files/evio_config_gen")
    result = install_programs(collections, tmp_path)
    assert result.returncode != 0
    assert "evio_config_gen/main.py is not there: install the collection evio.cni again" in result.stdout
    assert not (tmp_path / "bin").exists()


@pytest.mark.root
def test_programs_are_removed_with_the_links_by_which_people_find_them(archive: Path, tmp_path: Path) -> None:
    collections = install(archive, tmp_path / "collections")
    bare = files(tmp_path)
    assert install_programs(collections, tmp_path).returncode == 0
    assert "changed=0 " in install_programs(collections, tmp_path).stdout
    there = files(tmp_path)
    assert {"local/bin/evio", "local/share/man/man8/evio-config-gen.8"} <= there
    planned = install_programs(collections, tmp_path, state="absent", options=("--check",))
    assert "changed=1 " in planned.stdout
    assert files(tmp_path) == there
    assert "changed=1 " in install_programs(collections, tmp_path, state="absent").stdout
    assert files(tmp_path) - bare == {"play.yml"}
    assert "changed=0 " in install_programs(collections, tmp_path, state="absent").stdout


def files(directory: Path) -> set[str]:
    """The files and links below a directory that are neither Ansible's own nor the collection's."""
    paths = (path.relative_to(directory) for path in directory.rglob("*") if path.is_symlink() or path.is_file())
    return {str(path) for path in paths if path.parts[0] not in ("ansible", "collections")}
