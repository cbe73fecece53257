# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write a file in one step: a reader sees the old content or the new, never a part of it, even after a power cut.

Root writes and reads files in directories that belong to other users, such as prosody's. Such a user must not lead it
elsewhere: a symbolic link counts only if root or this process's user has made it, temporary names cannot be foretold,
and from the root directory on, each name is looked up in an open directory. Modes do not depend on the umask.

What a file says is left to the caller. A module compares its files with ``managed_file``.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST_LINKS = 40
"""Symbolic links in one path, as in the kernel (path_resolution(7))."""


def write_atomic(
    path: str | Path,
    content: str | bytes,
    *,
    mode: int,
    uid: int | None = None,
    gid: int | None = None,
    must_be_new: bool = False,
) -> None:
    """Write a file in one step: under a temporary name beside it, flushed to the disk, then renamed. Raises OSError.

    ``mode`` is the permission bits. ``uid`` and ``gid`` give the file to an owner; None keeps that of this process. A
    symbolic link in the file's place is replaced. With ``must_be_new`` nothing is replaced: FileExistsError. Missing
    directories are made, with mode 0755.
    """
    name = Path(path).name
    temporary = f".{name}.{os.urandom(8).hex()}.tmp"
    make_directories(Path(path).parent)
    with _open_directory(Path(path).parent) as directory:
        try:
            _write_flushed(temporary, directory, content, mode, uid, gid)
            if must_be_new:
                os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
                os.unlink(temporary, dir_fd=directory)
            else:
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)


def unfinished_writes(path: str | Path) -> list[str]:
    """Return the temporary files that killed writes of this file have left beside it."""
    file = Path(path)
    return sorted(map(str, file.parent.glob(f".{glob.escape(file.name)}.{'[0-9a-f]' * 16}.tmp")))


def read_text(path: str | Path) -> str | None:
    """Return the text of a file (UTF-8), or None if there is no such file. Raises OSError or UnicodeDecodeError."""
    found = read_file(path)
    return None if found is None else found[0].decode("utf-8")


def read_file(path: str | Path) -> tuple[bytes, os.stat_result] | None:
    """Return the content and the status of a regular file, or None if there is no such file. Raises OSError."""
    try:
        located = _locate(path)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(located).st_mode):
            number = errno.EISDIR if stat.S_ISDIR(os.fstat(located).st_mode) else errno.EINVAL
            raise OSError(number, "is no regular file", str(path))
        # The descriptor only names the file; this opens the same file, whatever has its name by now.
        with open(f"/proc/self/fd/{located}", "rb") as stream:
            return stream.read(), os.fstat(stream.fileno())
    finally:
        os.close(located)


def remove_file(path: str | Path) -> None:
    """Remove a file, or a symbolic link in its place, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), _open_directory(Path(path).parent) as directory:
        os.unlink(Path(path).name, dir_fd=directory)


def make_directories(
    path: str | Path, mode: int = 0o755, *, uid: int | None = None, gid: int | None = None
) -> list[str]:
    """Make a directory and its missing parents with this mode and owner; return the paths of those that were made.

    Directories that exist stay as they are. Raises OSError.
    """
    made: list[str] = []
    os.close(_locate(path, made=made, mode=mode, owner=(uid, gid)))
    return made


def give_directory(path: str | Path, *, uid: int | None, gid: int | None) -> None:
    """Give a directory to an owner. Raises OSError."""
    with _open_directory(path) as directory:
        os.fchown(directory, -1 if uid is None else uid, -1 if gid is None else gid)


@contextlib.contextmanager
def _open_directory(path: str | Path) -> Iterator[int]:
    located = _locate(path)
    try:
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=located)
    finally:
        os.close(located)
    try:
        yield directory
    finally:
        os.close(directory)


def _locate(
    path: str | Path,
    *,
    made: list[str] | None = None,
    mode: int = 0,
    owner: tuple[int | None, int | None] = (None, None),
) -> int:
    """Return a descriptor (O_PATH, open(2)) of what has this path. With ``made``, missing directories are made.

    Raises OSError ELOOP for a symbolic link that another user than root and this process's has made.
    """
    names = os.path.abspath(path).split("/")
    here, links = _open_root(), 0
    try:
        while names:
            name = names.pop(0)
            if name in ("", "."):
                continue
            try:
                there = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            except FileNotFoundError:
                if made is None:
                    raise
                there = _make_directory(name, here, mode, owner)
                made.append(os.readlink(f"/proc/self/fd/{there}"))
            status = os.fstat(there)
            if not stat.S_ISLNK(status.st_mode):
                os.close(here)
                here = there
                continue
            try:
                links += 1
                if links > _MOST_LINKS or status.st_uid not in (0, os.geteuid()):
                    what = f"{name} is a symbolic link of user {status.st_uid}, which is not followed"
                    raise OSError(errno.ELOOP, what, str(path))
                target = os.readlink("", dir_fd=there)
            finally:
                os.close(there)
            names = target.split("/") + names
            if target.startswith("/"):
                os.close(here)
                here = _open_root()
        return here
    except BaseException:
        os.close(here)
        raise


def _open_root() -> int:
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_directory(name: str, parent: int, mode: int, owner: tuple[int | None, int | None]) -> int:
    """Make a directory, and return a descriptor of it. Another program may have made it at the same moment."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return os.open(name, flags, dir_fd=parent)
    there = os.open(name, flags, dir_fd=parent)
    try:
        # In a directory of another user, something else may stand in the new directory's place by now.
        if os.fstat(there).st_uid == os.geteuid():
            _give(there, mode, *owner)
    except BaseException:
        os.close(there)
        raise
    return there


def _write_flushed(
    name: str, directory: int, content: str | bytes, mode: int, uid: int | None, gid: int | None
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    with open(descriptor, "wb") as stream:
        _give(descriptor, mode, uid, gid)
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
        stream.flush()
        os.fsync(descriptor)


def _give(descriptor: int, mode: int, uid: int | None, gid: int | None) -> None:
    """Set owner and mode, in this order: fchown clears bits of the mode."""
    if uid is not None or gid is not None:
        os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
    os.fchmod(descriptor, mode)
