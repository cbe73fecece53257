# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Install the programs on a host: their code in one directory for each version, byte-compiled, and their launchers.

An archive has the library as package ``evio_cni``, and a package for each program. A launcher contains the path of its
version's directory. It is put in place last, by a rename, so that a running program keeps the version it started with.
``archive`` packs an archive; ``stages`` makes the code of the CNI plugin quick to load; ``cni_plugins`` provides the
plugins that it calls.

A container installs on its host with ``root``, the directory below which it sees the host's directories.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..atomic_file import make_directories, read_text, write_atomic
from ..errors import EvioError
from ..host_root import below, resolve
from ..paths import CNI_BIN_DIR, PYTHON_PACKAGES
from . import stages

INTERPRETER = "/usr/bin/python3"
"""The distribution's Python. Others take longer to start, and are not on every host."""

OLDEST_PYTHON = (3, 10)
"""The oldest version of Python that runs the programs."""

PROGRAMS = {"evio": "evio_program.main", "evio-config-gen": "evio_config_gen.main"}
"""The launchers' names, and the modules whose ``main`` they call."""

LIBRARY = "evio_cni"
"""The library's package name on hosts."""

COLLECTION_VERSION = "COLLECTION_VERSION"
"""The file in an archive with the version of the collection, such as 0.1.0. Archives of earlier versions lack it."""

_LONGEST_VERSION = 100

_STAGED = "evio"
"""The program that loads its code by stages: the CNI plugin, which runs for every pod."""

_VERSION_PREFIX = "evio-"
_DIGITS = 16
"""Of a version's name: the start of its archive's SHA-256, in hexadecimal."""

_KEPT_VERSIONS = 2
"""The installed version, and the version before it, to which a person may want to go back."""

_LONGEST_CALL_SECONDS = 600.0
"""A call of the plugin that began before its version was replaced has ended by then."""

_COMPILE_SECONDS = 60
_LOCK_SECONDS = 120.0
_POLL_SECONDS = 0.1

_LIBRARIES = {"ovs": "python3-openvswitch", "pyroute2": "python3-pyroute2"}
"""Packages of Python that the programs import from the distribution, and the names of their Debian packages."""

_CHROOT = "import os, sys; os.chroot(sys.argv[1]); os.chdir('/'); os.execv(sys.argv[2], sys.argv[2:])"
_TELL_VERSION = "import sys; print(*sys.version_info[:2], sys.implementation.cache_tag)"
_LAUNCHER = """\
#!{interpreter} -ISE
import sys
sys.path.insert(0, {directory!r})
{preparation}from {module} import main
main()
"""
_WRITE_STAGES = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from evio_cni.programs.stages import write_stages; write_stages(*sys.argv[1:])"
)


class InstallationError(EvioError):
    """The programs cannot be installed; the version that was installed before is still in place."""


@dataclass(frozen=True)
class Installation:
    """What an installation has done."""

    version: str
    changed: bool
    """False if this version was installed, and all launchers started it."""
    warning: str = ""
    """Why the code may be slow to load on this host; empty if it was compiled by the host's own Python."""


def version_of(archive_digest: str) -> str:
    """Return the name of a version; ``archive_digest`` is the SHA-256 of its archive, in hexadecimal."""
    return _VERSION_PREFIX + archive_digest[:_DIGITS]


def version_pattern() -> str:
    """Return a regular expression that the name of each version matches."""
    return f"{_VERSION_PREFIX}[0-9a-f]{{{_DIGITS}}}"


def is_installed(version: str, *, bin_dir: str, lib_dir: str, interpreter: str = INTERPRETER, root: str = "/") -> bool:
    """Return whether this version is installed, and all launchers start it."""
    directory = os.path.join(lib_dir, version)
    return os.path.isdir(below(root, directory)) and all(
        _has_text(Path(below(root, bin_dir)) / name, _launcher(directory, name, interpreter)) for name in PROGRAMS
    )


def installed_version(bin_dir: str = CNI_BIN_DIR) -> str | None:
    """Return the version that the plugin's launcher starts; None if there is no launcher of ours."""
    directory = _installed_directory(bin_dir)
    return directory.name if directory is not None else None


def installed_collection(bin_dir: str = CNI_BIN_DIR) -> str | None:
    """Return the collection's version of the programs that the launcher starts, such as 0.1.0; None if not known."""
    directory = _installed_directory(bin_dir)
    return collection_of(directory) if directory is not None else None


def collection_of(directory: Path) -> str | None:
    """Return the collection's version of the programs in a version's directory; None if they do not tell it."""
    try:
        text = read_text(directory / COLLECTION_VERSION)
    except (OSError, UnicodeDecodeError):
        return None
    return text.strip()[:_LONGEST_VERSION] if text else None


def _installed_directory(bin_dir: str) -> Path | None:
    try:
        text = read_text(Path(bin_dir) / _STAGED) or ""
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(rf"'(/[^'\n]*/{version_pattern()})'", text)
    return Path(match[1]) if match else None


def installed_versions(lib_dir: str) -> list[str]:
    """Return the versions whose code is on this host, the one that was installed or switched to last first."""
    found = [path for path in Path(lib_dir).glob(f"{_VERSION_PREFIX}*") if re.fullmatch(version_pattern(), path.name)]
    return [path.name for path in sorted(found, key=_time_of, reverse=True)]


def previous_version(version: str, *, lib_dir: str) -> str:
    """Return the version to which a host goes back from ``version``, whether it has that one yet or not.

    It is the last one that was installed or switched to, apart from ``version``: so a host that has gone back stays
    there. Raises InstallationError if the host has no other version.
    """
    others = [found for found in installed_versions(lib_dir) if found != version]
    if not others:
        raise InstallationError(
            f"there is no version in {lib_dir} beside {version} to go back to; install the collection of the wanted "
            "version, or give its archive as evio_programs_archive"
        )
    return others[0]


def find_version(name: str, *, lib_dir: str) -> str:
    """Return the version of this name whose code is on the host; ``name`` may be a version of the collection, too.

    Of several versions from the same version of the collection, it is the one that was installed or switched to last.
    Raises InstallationError, with the versions that are there, if there is none.
    """
    there = {version: collection_of(Path(lib_dir) / version) for version in installed_versions(lib_dir)}
    for version, collection in there.items():
        if name in (version, collection):
            return version
    told = [f"{version} ({collection})" if collection else version for version, collection in there.items()]
    raise InstallationError(f"the version {name} is not in {lib_dir}; there is: {', '.join(told) or 'none'}")


def switch(version: str, *, bin_dir: str, lib_dir: str, interpreter: str = INTERPRETER) -> None:
    """Let the launchers start a version whose code is on this host. Raises InstallationError if it is not."""
    find_version(version, lib_dir=lib_dir)
    if is_installed(version, bin_dir=bin_dir, lib_dir=lib_dir, interpreter=interpreter):
        return
    try:
        with _locked(Path(lib_dir)):
            os.utime(Path(lib_dir) / version)
            _write_launchers(version, Path(bin_dir), lib_dir, interpreter)
    except OSError as error:
        raise InstallationError(f"cannot switch to {version} in {bin_dir}: {error}") from error


def install(
    archive: bytes, *, bin_dir: str, lib_dir: str, interpreter: str = INTERPRETER, root: str = "/"
) -> Installation:
    """Install the archive's programs and switch to them. A second installation changes nothing.

    The paths are the host's; the host is seen below ``root``. The previous version stays, and so do versions that
    programs may still run; older versions are removed. Raises InstallationError, with the installed version in place.
    """
    version = version_of(hashlib.sha256(archive).hexdigest())
    if is_installed(version, bin_dir=bin_dir, lib_dir=lib_dir, interpreter=interpreter, root=root):
        return Installation(version, changed=False)
    seen_bin, seen_lib = (_directory_below(root, path) for path in (bin_dir, lib_dir))
    try:
        make_directories(seen_lib)
        with _locked(seen_lib):
            directory = seen_lib / version
            warning = ""
            if directory.is_dir():
                os.utime(directory)
            else:
                python = _find_python(root, interpreter)
                warning = python.warning
                _unpack(archive, directory, os.path.join(lib_dir, version), python)
            _write_launchers(version, seen_bin, lib_dir, interpreter)
            _remove_old_versions(seen_lib, keep=version)
    except (OSError, zipfile.BadZipFile) as error:
        raise InstallationError(f"cannot install the programs into {seen_bin} and {seen_lib}: {error}") from error
    return Installation(version, True, warning)


def installed_files(*, bin_dir: str, lib_dir: str) -> list[Path]:
    """Return the launchers and the directories of all versions, also of what killed installations have left."""
    # A directory of a program's name is not of ours, as /etc/evio where people give /etc for bin_dir.
    launchers = [path for name in PROGRAMS if not (path := Path(bin_dir) / name).is_dir() or path.is_symlink()]
    versions = [*Path(lib_dir).glob(f"{_VERSION_PREFIX}*"), *Path(lib_dir).glob(f".{_VERSION_PREFIX}*")]
    return [path for path in (*launchers, *sorted(versions)) if os.path.lexists(path)]


def uninstall(*, bin_dir: str, lib_dir: str) -> None:
    """Remove the launchers, then all versions. Raises InstallationError; a second call goes on."""
    for path in installed_files(bin_dir=bin_dir, lib_dir=lib_dir):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise InstallationError(f"cannot remove {path}: {error.strerror}; run the removal again") from error


def missing_libraries(root: str = "/") -> list[str]:
    """Return the Debian packages of the libraries that the programs need and the host does not have."""
    packages = resolve(root, PYTHON_PACKAGES)
    return [package for name, package in _LIBRARIES.items() if not os.path.isdir(os.path.join(packages, name))]


@contextlib.contextmanager
def version_in_use() -> Iterator[None]:
    """Keep the version that this program runs from being removed: it imports more of it as long as it runs."""
    directory = Path(__file__).resolve().parents[2]
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _directory_below(root: str, path: str) -> Path:
    """Return where a directory of the host is seen. Raises InstallationError if a link leads to where nothing is."""
    seen = Path(resolve(root, path))
    if os.path.islink(below(root, path)) and not seen.is_dir():
        target = os.readlink(below(root, path))
        raise InstallationError(
            f"{path} is a link to {target}, which is not there; in a container, mount the host's {target} below {root}"
        )
    return seen


@contextlib.contextmanager
def _locked(lib_dir: Path) -> Iterator[None]:
    """Let one installation run at a time: Ansible, a container and an operator can start it at once."""
    descriptor = os.open(lib_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InstallationError(
                        f"another installation has been at work in {lib_dir} for {_LOCK_SECONDS:.0f} s"
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _has_text(path: Path, text: str) -> bool:
    try:
        return read_text(path) == text
    except (OSError, UnicodeDecodeError):
        return False


def _write_launchers(version: str, bin_dir: Path, lib_dir: str, interpreter: str) -> None:
    for name in PROGRAMS:
        write_atomic(bin_dir / name, _launcher(os.path.join(lib_dir, version), name, interpreter), mode=0o755)


def _launcher(directory: str, name: str, interpreter: str) -> str:
    preparation = stages.LAUNCH if name == _STAGED else ""
    return _LAUNCHER.format(
        interpreter=interpreter, directory=directory, module=PROGRAMS[name], preparation=preparation
    )


@dataclass(frozen=True)
class _Python:
    """The Python that compiles the code."""

    command: tuple[str, ...]
    root: str
    """The directory below which it sees the host's files, as this program does, or ``/``."""
    warning: str = ""

    def sees(self, path: Path) -> str:
        """Return the path by which this Python finds what this program finds by ``path``."""
        return str(path) if self.root == "/" else "/" + os.path.relpath(path, self.root)


def _find_python(root: str, interpreter: str) -> _Python:
    """Return the host's Python, or this program's if the host's cannot be run here. Raises InstallationError.

    The host's Python does not use another version's byte code: it compiles each module at its first import.
    """
    seen = resolve(root, interpreter)
    if not os.path.isfile(seen):
        mount = "" if root == "/" else f"; if it is, mount the host's {os.path.dirname(interpreter)} below {root}"
        raise InstallationError(f"{interpreter} is not there; install the package python3{mount}")
    if root == "/":
        host = _Python((interpreter,), root)
    else:
        host = _Python((sys.executable, "-ISE", "-c", _CHROOT, root, interpreter), root)
    try:
        major, minor, tag = _run([*host.command, "-ISE", "-c", _TELL_VERSION], "run").split()
    except (InstallationError, ValueError) as error:
        if root == "/":
            raise
        _refuse_old_python(interpreter, _version_in_name(seen))
        own = sys.implementation.cache_tag
        return _Python(
            (sys.executable,),
            "/",
            f"the host's {interpreter} cannot be run below {root} ({error}), so the code was compiled for {own} by the "
            "container's Python; another Python on the host compiles each module at its first import",
        )
    _refuse_old_python(f"{interpreter} ({tag})", (int(major), int(minor)))
    return host


def _refuse_old_python(interpreter: str, version: tuple[int, int] | None) -> None:
    if version is not None and version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise InstallationError(
            f"{interpreter} is Python {'.'.join(map(str, version))}; the programs need {oldest} or newer"
        )


def _version_in_name(path: str) -> tuple[int, int] | None:
    """Return the version in a name such as ``python3.11``, to which the distribution's ``python3`` is a link."""
    match = re.search(r"python(\d+)\.(\d+)$", path)
    return (int(match[1]), int(match[2])) if match else None


def _unpack(archive: bytes, directory: Path, final: str, python: _Python) -> None:
    """Make the version's directory under a temporary name, flush it, and rename it when it is complete.

    ``final`` is the directory's path on the host.
    """
    temporary = directory.with_name(f".{directory.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as unpacked:
            unpacked.extractall(temporary)
        _compile(temporary, final, python)
        _set_modes(temporary)
        _flush(temporary)
        os.rename(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _set_modes(directory: Path) -> None:
    """Let all users read the files, whatever the umask is."""
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _flush(directory: Path) -> None:
    """Write the files to the disk: after a power cut, the directory is complete if it has its name."""
    for path in (*directory.rglob("*"), directory):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _compile(directory: Path, final: str, python: _Python) -> None:
    """Byte-compile the code for the interpreter that will run it, and write the stages.

    The interpreter never compares the byte code with its source: versions do not change.
    """
    seen = python.sees(directory)
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", seen, "-p", final, seen]
    _run([*python.command, "-ISE", "-m", "compileall", *options], "compile the programs")
    if (directory / LIBRARY).is_dir():
        # no_debug_ranges: without the columns of tracebacks, which every call would have to load.
        _run(
            [*python.command, "-ISE", "-X", "no_debug_ranges", "-c", _WRITE_STAGES, seen, final], "compile the programs"
        )


def _run(command: list[str], purpose: str) -> str:
    """Run a Python and return what it prints. Raises InstallationError; ``purpose`` is a verb for its message."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
    except OSError as error:
        raise InstallationError(f"cannot start {command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise InstallationError(f"{command[0]} did not {purpose} within {_COMPILE_SECONDS} s") from None
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise InstallationError(f"{command[0]} cannot {purpose}: {lines[-1] if lines else done.returncode}")
    return done.stdout


def _remove_old_versions(lib_dir: Path, *, keep: str) -> None:
    """Remove versions that were replaced long ago and that no program holds, and what killed installations have left.

    A version was replaced when the next was installed. Calls of the plugin are short and do not hold their version; the
    overlay's agent and the node's watch do (``version_in_use``).
    """
    for leftover in lib_dir.glob(f".{_VERSION_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    versions = sorted(lib_dir.glob(f"{_VERSION_PREFIX}*"), key=_time_of, reverse=True)
    versions.sort(key=lambda path: path.name != keep)
    replaced = [_time_of(newer) for newer in versions[:-1]]
    for path, when in list(zip(versions[1:], replaced, strict=True))[_KEPT_VERSIONS - 1 :]:
        if time.time() - when > _LONGEST_CALL_SECONDS and not _is_held(path):
            # Under another name first: a directory of a version's name is complete.
            removed = path.with_name(f".{path.name}")
            os.rename(path, removed)
            shutil.rmtree(removed, ignore_errors=True)


def _time_of(directory: Path) -> float:
    return directory.stat().st_mtime


def _is_held(directory: Path) -> bool:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
