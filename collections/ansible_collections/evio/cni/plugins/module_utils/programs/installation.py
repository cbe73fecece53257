# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Install the programs on a host: their code in one directory for each version, byte-compiled, and their launchers.

An archive has the library as package ``evio_cni``, and a package for each program. A launcher contains the path of its
version's directory. It is put in place last, by a rename, so that a running program keeps the version it started with.
``stages`` makes the code of the CNI plugin quick to load.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ..atomic_file import make_directories, read_text, write_atomic
from ..errors import EvioError
from . import stages

INTERPRETER = "/usr/bin/python3"
"""The distribution's Python. Others take longer to start, and are not on every host."""

PROGRAMS = {"evio": "evio_program.main", "evio-config-gen": "evio_config_gen.main"}
"""The launchers' names, and the modules whose ``main`` they call."""

LIBRARY = "evio_cni"
"""The library's package name on hosts."""

_STAGED = "evio"
"""The program that loads its code by stages: the CNI plugin, which runs for every pod."""

_VERSION_PREFIX = "evio-"
_DIGITS = 16
"""Of a version's name: the start of its archive's SHA-256, in hexadecimal."""

_KEPT_VERSIONS = 2
"""The installed version, and the version before it, which programs may still run."""

_COMPILE_SECONDS = 60
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


def version_of(archive_digest: str) -> str:
    """Return the name of a version; ``archive_digest`` is the SHA-256 of its archive, in hexadecimal."""
    return _VERSION_PREFIX + archive_digest[:_DIGITS]


def is_installed(version: str, *, bin_dir: str, lib_dir: str, interpreter: str = INTERPRETER) -> bool:
    """Return whether this version is installed, and all launchers start it."""
    directory = str(Path(lib_dir) / version)
    return os.path.isdir(directory) and all(
        _has_text(Path(bin_dir) / name, _launcher(directory, name, interpreter)) for name in PROGRAMS
    )


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of these files, given by their paths in it; the same files always give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[path])
    return buffer.getvalue()


def install(archive: bytes, *, bin_dir: str, lib_dir: str, interpreter: str = INTERPRETER) -> bool:
    """Install the archive's programs and switch to them. Return False if they are installed already.

    The previous version is kept, for programs that are running; older versions are removed. Raises InstallationError.
    """
    version = version_of(hashlib.sha256(archive).hexdigest())
    if is_installed(version, bin_dir=bin_dir, lib_dir=lib_dir, interpreter=interpreter):
        return False
    try:
        directory = _unpack(archive, version, Path(lib_dir), interpreter)
        for name in PROGRAMS:
            write_atomic(Path(bin_dir) / name, _launcher(str(directory), name, interpreter), mode=0o755)
        _remove_old_versions(Path(lib_dir), keep=version)
    except (OSError, zipfile.BadZipFile) as error:
        raise InstallationError(f"cannot install the programs into {bin_dir} and {lib_dir}: {error}") from error
    return True


def _has_text(path: Path, text: str) -> bool:
    try:
        return read_text(path) == text
    except (OSError, UnicodeDecodeError):
        return False


def _launcher(directory: str, name: str, interpreter: str) -> str:
    preparation = stages.LAUNCH if name == _STAGED else ""
    return _LAUNCHER.format(
        interpreter=interpreter, directory=directory, module=PROGRAMS[name], preparation=preparation
    )


def _unpack(archive: bytes, version: str, lib_dir: Path, interpreter: str) -> Path:
    """Return the version's directory. It is made under a temporary name, and renamed when it is complete."""
    directory = lib_dir / version
    if directory.is_dir():
        os.utime(directory)
        return directory
    make_directories(lib_dir)
    temporary = lib_dir / f".{version}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as unpacked:
            unpacked.extractall(temporary)
        _compile(temporary, directory, interpreter)
        _set_modes(temporary)
        os.rename(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def _set_modes(directory: Path) -> None:
    """Let all users read the files, whatever the umask is."""
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _compile(directory: Path, final: Path, interpreter: str) -> None:
    """Byte-compile the code for the interpreter that will run it, and write the stages.

    The interpreter never compares the byte code with its source: versions do not change.
    """
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(directory), "-p", str(final), str(directory)]
    _run([interpreter, "-ISE", "-m", "compileall", *options])
    if (directory / LIBRARY).is_dir():
        # no_debug_ranges: without the columns of tracebacks, which every call would have to load.
        _run([interpreter, "-ISE", "-X", "no_debug_ranges", "-c", _WRITE_STAGES, str(directory), str(final)])


def _run(command: list[str]) -> None:
    interpreter = command[0]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
    except FileNotFoundError:
        raise InstallationError(f"{interpreter} is not there; install the package python3") from None
    except subprocess.TimeoutExpired:
        raise InstallationError(f"{interpreter} did not compile the programs within {_COMPILE_SECONDS} s") from None
    if done.returncode != 0:
        raise InstallationError(f"{interpreter} cannot compile the programs: {(done.stdout + done.stderr).strip()}")


def _remove_old_versions(lib_dir: Path, *, keep: str) -> None:
    versions = sorted(lib_dir.glob(f"{_VERSION_PREFIX}*"), key=lambda path: path.stat().st_mtime, reverse=True)
    others = [path for path in versions if path.name != keep]
    for path in others[_KEPT_VERSIONS - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
    for leftover in lib_dir.glob(f".{_VERSION_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
