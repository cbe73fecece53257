# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state directory: make it, tell whether files can be written in it, and the error when they cannot."""

from __future__ import annotations

import posix

from ..errors import EvioError

_ROOM = 16384
"""Bytes: the journal's entry of one attachment, with a long configuration, fits in."""


class StateError(EvioError):
    """A file of the state directory cannot be read or written."""


def is_writable(directory: str) -> bool:
    """Return whether files can be written in a directory, or it and its missing parents can be made."""
    while directory and not posix.access(directory, posix.F_OK):
        directory = directory.rpartition("/")[0]
    return posix.access(directory or "/", posix.W_OK | posix.X_OK)


def has_space(directory: str) -> bool:
    """Return whether the file system of a directory, or of its nearest parent that exists, has room for more files."""
    while directory and not posix.access(directory, posix.F_OK):
        directory = directory.rpartition("/")[0]
    found = posix.statvfs(directory or "/")
    # Some file systems count no inodes: f_files is 0 there.
    return found.f_bfree * found.f_frsize >= _ROOM and (found.f_ffree > 0 or found.f_files == 0)


def make_directories(path: str) -> None:
    """Make a directory and its missing parents, each with mode 0700. Raises OSError."""
    directory = ""
    for part in filter(None, path.split("/")):
        directory += "/" + part
        try:
            posix.mkdir(directory, 0o700)
        except FileExistsError:
            continue
        posix.chmod(directory, 0o700)  # The umask may have taken the owner's rights away.
