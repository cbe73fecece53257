# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Installing programs: a version replaces another in one step, and old versions are removed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.programs import installation
from ansible_collections.evio.cni.plugins.module_utils.programs.archive import build, collection_version, pack
from ansible_collections.evio.cni.plugins.module_utils.programs.installation import (
    InstallationError,
    install,
    previous_version,
    switch,
    uninstall,
    version_of,
)


def archive(word: str) -> bytes:
    files = {f"{module.partition('.')[0]}/__init__.py": b"" for module in installation.PROGRAMS.values()}
    program = f"def main():\n    print({word!r})\n".encode()
    return pack(files | {module.replace(".", "/") + ".py": program for module in installation.PROGRAMS.values()})


def put(tmp_path: Path, content: bytes) -> bool:
    return install(content, bin_dir=str(tmp_path / "bin"), lib_dir=str(tmp_path / "lib")).changed


def run(tmp_path: Path) -> str:
    return subprocess.run([tmp_path / "bin/evio"], check=True, capture_output=True, text=True).stdout.strip()


def test_same_files_make_the_same_archive() -> None:
    assert pack({"a": b"1", "b": b"2"}) == pack({"b": b"2", "a": b"1"})


def test_sources_and_an_installed_collection_tell_the_same_version(tmp_path: Path) -> None:
    """Of the same commit, they make the same archive."""
    (tmp_path / "galaxy.yml").write_text("---\nnamespace: evio\nversion: 1.2.3\nreadme: README.md\n")
    assert collection_version(tmp_path) == "1.2.3"
    (tmp_path / "galaxy.yml").unlink()
    (tmp_path / "MANIFEST.json").write_text('{"collection_info": {"namespace": "evio", "version": "1.2.3"}}')
    assert collection_version(tmp_path) == "1.2.3"
    for damage in ("{", "[]", '{"collection_info": {}}'):
        (tmp_path / "MANIFEST.json").write_text(damage)
        with pytest.raises(InstallationError, match="cannot read the version of the collection"):
            collection_version(tmp_path)
    (tmp_path / "MANIFEST.json").unlink()
    with pytest.raises(InstallationError, match=r"neither galaxy.yml nor MANIFEST\.json .* install the collection"):
        collection_version(tmp_path)


def test_host_tells_the_version_of_the_collection(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    assert installation.installed_collection(str(tmp_path / "bin")) is None
    put(tmp_path, build())
    assert installation.installed_collection(str(tmp_path / "bin")) == collection_version()
    command = [tmp_path / "bin/evio", "version"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout
    name = version_of(hashlib.sha256(build()).hexdigest())
    assert told.startswith(f"{name} (evio.cni {collection_version()}), CNI ")


def test_program_runs_from_its_launcher_a_link_and_a_copy(tmp_path: Path) -> None:
    assert put(tmp_path, archive("one"))
    assert run(tmp_path) == "one"
    (tmp_path / "link").symlink_to(tmp_path / "bin/evio")
    (tmp_path / "copy").write_bytes((tmp_path / "bin/evio").read_bytes())
    (tmp_path / "copy").chmod(0o755)
    for launcher in ("link", "copy"):
        done = subprocess.run([tmp_path / launcher], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == "one"


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_all_users_can_read_the_files_and_only_root_write_them_with_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        put(tmp_path, archive("one"))
    finally:
        os.umask(before)
    for path in (tmp_path / "lib", *(tmp_path / "lib").rglob("*"), tmp_path / "bin"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    assert (tmp_path / "bin/evio").stat().st_mode & 0o777 == 0o755


def test_code_is_byte_compiled(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    assert list((tmp_path / "lib").glob("*/evio_program/__pycache__/main.*.pyc"))


def test_second_installation_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    assert not put(tmp_path, archive("one"))


def version(word: str) -> str:
    return version_of(hashlib.sha256(archive(word)).hexdigest())


def installed_long_ago(tmp_path: Path, *words: str) -> None:
    """Install versions, the first the oldest, as if an hour had passed after each."""
    for age, word in zip(range(len(words), 0, -1), words, strict=True):
        assert put(tmp_path, archive(word))
        then = time.time() - age * 3600
        os.utime(tmp_path / "lib" / version(word), (then, then))


def versions(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "lib").iterdir()}


def test_upgrade_keeps_the_previous_version(tmp_path: Path) -> None:
    installed_long_ago(tmp_path, "one", "two", "three")
    assert put(tmp_path, archive("four"))
    assert run(tmp_path) == "four"
    assert versions(tmp_path) == {version(word) for word in ("three", "four")}


def test_upgrade_keeps_versions_that_calls_may_still_run(tmp_path: Path) -> None:
    for word in ("one", "two", "three", "four"):
        assert put(tmp_path, archive(word))
    assert versions(tmp_path) == {version(word) for word in ("one", "two", "three", "four")}


def test_upgrade_keeps_a_version_that_a_program_holds(tmp_path: Path) -> None:
    installed_long_ago(tmp_path, "one", "two")
    held = os.open(tmp_path / "lib" / version("one"), os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        put(tmp_path, archive("three"))
        assert version("one") in versions(tmp_path)
    finally:
        os.close(held)
    put(tmp_path, archive("four"))
    assert version("one") not in versions(tmp_path)


def test_program_that_runs_long_holds_its_version(tmp_path: Path) -> None:
    library = tmp_path / "lib" / version("one") / "evio_cni"
    put(tmp_path, archive("one"))
    library.mkdir()
    (library / "programs").mkdir()
    for name in ("errors", "atomic_file", "host_root", "paths", "programs/installation", "programs/stages"):
        source = Path(installation.__file__).parents[1] / f"{name}.py"
        (library / f"{name}.py").write_bytes(source.read_bytes())
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from evio_cni.programs.installation import version_in_use\n"
        "with version_in_use(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-ISE", "-c", script, str(library.parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"held\n"
        assert installation._is_held(library.parent)
        program.communicate(timeout=10)
    assert not installation._is_held(library.parent)


def test_leftover_of_a_killed_installation_is_removed(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    (tmp_path / "lib" / f".{version('two')}").mkdir()
    put(tmp_path, archive("two"))
    assert versions(tmp_path) == {version("one"), version("two")}


def test_installations_at_the_same_time_all_succeed(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def attempt(word: str) -> None:
        try:
            put(tmp_path, archive(word))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=attempt, args=(word,)) for word in ("one", "two", "one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert run(tmp_path) in ("one", "two")
    assert versions(tmp_path) == {version("one"), version("two")}


def test_lost_launcher_is_put_back(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    (tmp_path / "bin/evio").unlink()
    assert put(tmp_path, archive("one"))
    assert run(tmp_path) == "one"


def test_broken_archive_leaves_the_installed_version(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    with pytest.raises(InstallationError):
        put(tmp_path, b"no archive")
    with pytest.raises(InstallationError, match="cannot compile"):
        put(tmp_path, pack({"evio_program/main.py": b"def main(:\n"}))
    assert run(tmp_path) == "one"
    assert [path.name for path in (tmp_path / "lib").glob(".*")] == []


def test_missing_interpreter_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match="/nowhere/python3 is not there"):
        install(archive("one"), bin_dir=str(tmp_path), lib_dir=str(tmp_path), interpreter="/nowhere/python3")


def test_python_that_is_too_old_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3 9 cpython-39\n")
    old.chmod(0o755)
    with pytest.raises(InstallationError, match=r"is Python 3\.9; the programs need 3\.10 or newer"):
        install(archive("one"), bin_dir=str(tmp_path / "b"), lib_dir=str(tmp_path / "l"), interpreter=str(old))
    assert not (tmp_path / "b").exists()
    assert list((tmp_path / "l").iterdir()) == []


def host_with_python(tmp_path: Path, python: str) -> Path:
    """Return the root of a host whose python3 is a link to a file of this name, which cannot be run."""
    (tmp_path / "host/usr/bin").mkdir(parents=True)
    (tmp_path / "host/usr/bin/python3").symlink_to(python)
    (tmp_path / "host/usr/bin" / python).write_text("no program\n")
    return tmp_path / "host"


def below_root(tmp_path: Path, root: Path, word: str) -> installation.Installation:
    return install(archive(word), bin_dir="/opt/cni/bin", lib_dir="/opt/cni/lib", root=str(root))


def test_below_a_root_launchers_name_the_paths_of_the_host(tmp_path: Path) -> None:
    root = host_with_python(tmp_path, "python3.11")
    assert below_root(tmp_path, root, "one").changed
    assert f"'/opt/cni/lib/{version('one')}'" in (root / "opt/cni/bin/evio").read_text()
    assert not below_root(tmp_path, root, "one").changed


def test_below_a_root_whose_python_cannot_be_run_the_code_is_compiled_by_this_python(tmp_path: Path) -> None:
    root = host_with_python(tmp_path, "python3.11")
    done = below_root(tmp_path, root, "one")
    assert "the host's /usr/bin/python3 cannot be run below" in done.warning
    tag = sys.implementation.cache_tag
    compiled = root / "opt/cni/lib" / done.version / f"evio_program/__pycache__/main.{tag}.pyc"
    assert b"/opt/cni/lib/" in compiled.read_bytes()
    assert str(root).encode() not in compiled.read_bytes()


def test_below_a_root_python_that_is_too_old_by_its_name_is_refused(tmp_path: Path) -> None:
    root = host_with_python(tmp_path, "python3.9")
    with pytest.raises(InstallationError, match=r"Python 3\.9; the programs need 3\.10"):
        below_root(tmp_path, root, "one")


def test_below_a_root_without_python_the_mount_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match="python3; if it is, mount the host's /usr/bin below"):
        below_root(tmp_path, tmp_path, "one")


def test_below_a_root_directory_that_is_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    root = host_with_python(tmp_path, "python3.11")
    (root / "opt/cni").mkdir(parents=True)
    (root / "opt/cni/bin").symlink_to("/usr/libexec/cni")
    with pytest.raises(InstallationError, match="/opt/cni/bin is a link to /usr/libexec/cni, which is not there"):
        below_root(tmp_path, root, "one")
    (root / "usr/libexec/cni").mkdir(parents=True)
    assert below_root(tmp_path, root, "one").changed
    assert (root / "usr/libexec/cni/evio").is_file()


def places(tmp_path: Path) -> dict[str, str]:
    return {"bin_dir": str(tmp_path / "bin"), "lib_dir": str(tmp_path / "lib")}


def test_host_that_has_gone_back_to_the_previous_version_stays_there(tmp_path: Path) -> None:
    installed_long_ago(tmp_path, "one", "two")
    for _time in range(2):
        previous = previous_version(version("two"), lib_dir=str(tmp_path / "lib"))
        assert previous == version("one")
        switch(previous, **places(tmp_path))
        assert run(tmp_path) == "one"


def test_host_that_was_not_upgraded_goes_back_to_the_version_that_it_has(tmp_path: Path) -> None:
    installed_long_ago(tmp_path, "one", "two")
    assert previous_version(version("three"), lib_dir=str(tmp_path / "lib")) == version("two")


def test_host_without_another_version_cannot_go_back(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    with pytest.raises(InstallationError, match="to go back to"):
        previous_version(version("one"), lib_dir=str(tmp_path / "lib"))
    for name in (f".{version('two')}", "evio-notes"):
        (tmp_path / "lib" / name).mkdir()
    with pytest.raises(InstallationError, match="to go back to"):
        previous_version(version("one"), lib_dir=str(tmp_path / "lib"))


def test_switch_to_a_version_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    for missing in (version("two"), "../../etc", ""):
        with pytest.raises(InstallationError, match=f"there is: {version('one')}"):
            switch(missing, **places(tmp_path))
    assert run(tmp_path) == "one"


def test_version_that_was_switched_from_is_kept_by_the_next_installation(tmp_path: Path) -> None:
    installed_long_ago(tmp_path, "one", "two")
    switch(version("one"), **places(tmp_path))
    put(tmp_path, archive("three"))
    assert versions(tmp_path) == {version(word) for word in ("one", "two", "three")}


def test_removal_leaves_a_directory_of_a_programs_name(tmp_path: Path) -> None:
    put(tmp_path, archive("one"))
    (tmp_path / "etc/evio").mkdir(parents=True)
    uninstall(bin_dir=str(tmp_path / "etc"), lib_dir=str(tmp_path / "lib"))
    assert (tmp_path / "etc/evio").is_dir()
    assert list((tmp_path / "lib").iterdir()) == []
