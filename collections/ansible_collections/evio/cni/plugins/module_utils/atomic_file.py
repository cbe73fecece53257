# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write a file in one step: a reader sees the old content or the new, never a part of it, even after a power cut.

What a file says is left to the caller. A module compares its files with ``managed_file``.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomic(
    path: str | Path, content: str | bytes, *, mode: int, uid: int | None = None, gid: int | None = None
) -> None:
    """Write a file in one step: under a temporary name beside it, flushed to the disk, then renamed. Raises OSError.

    ``mode`` is the permission bits. ``uid`` and ``gid`` give the file to an owner; None keeps that of this process.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        _write_flushed(temporary, content, mode, uid, gid)
        os.rename(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _flush_directory(target.parent)


def read_text(path: str | Path) -> str | None:
    """Return the text of a file (UTF-8), or None if there is no such file. Raises OSError or UnicodeDecodeError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _write_flushed(path: Path, content: str | bytes, mode: int, uid: int | None, gid: int | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as stream:
        if uid is not None or gid is not None:
            os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
        # After fchown, which clears bits of the mode.
        os.fchmod(descriptor, mode)
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
        stream.flush()
        os.fsync(descriptor)


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
