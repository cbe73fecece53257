# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Removal of files and directories: what is named goes, and what somebody else has put beside it stays.

Which paths are ours is left to the callers.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable

from .errors import EvioError

_LEAST_NAMES = 2
"""Names in a path that may be removed: never /etc or /var itself."""


class PathRemovalError(EvioError):
    """A path must not be removed, or cannot be."""


class PathRemoval:
    """What is to be removed, as found when this object was made."""

    def __init__(
        self, *, paths: Iterable[str] = (), files: Iterable[str] = (), empty_directories: Iterable[str] = ()
    ) -> None:
        """Find what is there. Raises PathRemovalError for a path that is not absolute or is a part of the system.

        ``paths`` are removed with all that is in them, ``files`` only if they are no directories, and
        ``empty_directories`` if nothing is left in them, in their order. All paths are absolute.
        """
        whole, single = [_checked(path) for path in paths], [_checked(path) for path in files]
        self.directories = [path for path in single if _is_directory(path)]
        """Those of ``files`` that are directories, and stay."""
        named = [*whole, *(path for path in single if path not in self.directories)]
        self._named = [path for path in named if os.path.lexists(path) and not _is_bare_mount_point(path)]
        self._empty: list[str] = []
        for directory in [_checked(path) for path in empty_directories]:
            if _is_directory(directory) and not os.path.ismount(directory) and _is_left_empty(directory, {*self.found}):
                self._empty.append(directory)

    @property
    def found(self) -> list[str]:
        """The paths that will be removed, in this order."""
        return [*self._named, *self._empty]

    def apply(self) -> None:
        """Remove them. Raises PathRemovalError; a second removal goes on.

        A directory into which somebody has put something since this object was made stays.
        """
        for path in self._named:
            _remove(path)
        for directory in self._empty:
            _remove_empty(directory)


def _checked(path: str) -> str:
    names = [name for name in path.split("/") if name]
    if not path.startswith("/") or len(names) < _LEAST_NAMES or {".", ".."}.intersection(names):
        raise PathRemovalError(f"{path}: only absolute paths of at least {_LEAST_NAMES} names are removed")
    return f"/{'/'.join(names)}"


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _is_left_empty(directory: str, removed: set[str]) -> bool:
    return all(os.path.join(directory, name) in removed for name in os.listdir(directory))


def _is_bare_mount_point(path: str) -> bool:
    return os.path.ismount(path) and os.path.isdir(path) and not os.listdir(path)


def _remove(path: str) -> None:
    try:
        if os.path.ismount(path) and os.path.isdir(path):
            for name in os.listdir(path):
                _remove(os.path.join(path, name))
        elif _is_directory(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise PathRemovalError(f"cannot remove {error.filename or path}: {error.strerror}") from error


def _remove_empty(directory: str) -> None:
    try:
        os.rmdir(directory)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise PathRemovalError(f"cannot remove {directory}: {error.strerror}") from error
