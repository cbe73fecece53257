# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directories of the plugin's state: make them, and tell whether files can be written in them."""

from __future__ import annotations

import posix


def is_writable(directory: str) -> bool:
    """Return whether files can be written in a directory, or it and its missing parents can be made."""
    while directory and not posix.access(directory, posix.F_OK):
        directory = directory.rpartition("/")[0]
    return posix.access(directory or "/", posix.W_OK | posix.X_OK)


def make_directories(path: str) -> None:
    """Make a directory and its missing parents, each with mode 0700. Raises OSError."""
    directory = ""
    for part in filter(None, path.split("/")):
        directory += "/" + part
        try:
            posix.mkdir(directory, 0o700)
        except FileExistsError:
            continue
