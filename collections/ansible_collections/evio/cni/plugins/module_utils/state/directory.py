# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directories of the plugin's state: make them, and tell whether they can be written."""

from __future__ import annotations

import posix


def is_writable(directory: str) -> bool:
    """Whether a lock and a journal can be put there, made with all those above it if need be."""
    while directory and not posix.access(directory, posix.F_OK):
        directory = directory.rpartition("/")[0]
    return posix.access(directory or "/", posix.W_OK | posix.X_OK)


def make_directories(path: str) -> None:
    """A directory with all those above it, nobody else's business. Raises OSError."""
    at = ""
    for part in filter(None, path.split("/")):
        at += "/" + part
        try:
            posix.mkdir(at, 0o700)
        except FileExistsError:
            continue
