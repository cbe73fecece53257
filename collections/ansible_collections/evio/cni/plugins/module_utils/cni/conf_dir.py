# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directory from which the container runtime reads its CNI configuration: put our conflist there, or remove it.

containerd reloads after a write or a rename *inside* this directory, but it does not see a file that is moved in from
elsewhere, as Ansible's copy and template do. So the file gets a temporary name in the directory itself, one that no
runtime reads, and is renamed. ``conflist`` has the file's content; ``cri`` asks whether the runtime has loaded it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .. import paths
from ..atomic_file import read_text, write_atomic
from ..errors import EvioError

MODE = 0o600
"""Of the conflist."""

_CONFIG_SUFFIXES = (".conf", ".conflist", ".json")


class ConfDirError(EvioError):
    """The conflist cannot be read, written or removed, or the runtime would read another file instead."""


def render(conflist: dict[str, Any]) -> str:
    """Return the file's text; the same conflist always gives the same text."""
    return json.dumps(conflist, indent=2) + "\n"


def read_conflist(directory: str = paths.CNI_CONF_DIR) -> str | None:
    """Return the text of our conflist in this directory; None if there is none. Raises ConfDirError."""
    try:
        return read_text(Path(directory) / paths.CONFLIST_NAME)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfDirError(f"cannot read {directory}/{paths.CONFLIST_NAME}: {error}") from error


def is_current(conflist: dict[str, Any], directory: str = paths.CNI_CONF_DIR) -> bool:
    """Return whether our conflist is in the directory, with this content and mode 0600. Raises ConfDirError."""
    if read_conflist(directory) != render(conflist):
        return False
    return (Path(directory) / paths.CONFLIST_NAME).stat().st_mode & 0o777 == MODE


def refuse_competitors(directory: str = paths.CNI_CONF_DIR) -> None:
    """Raise ConfDirError if the name of another file sorts before ours: the runtime reads only the first file."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    ahead = sorted(name for name in names if name.endswith(_CONFIG_SUFFIXES) and name < paths.CONFLIST_NAME)
    if ahead:
        raise ConfDirError(
            f"{directory}/{ahead[0]} sorts before {paths.CONFLIST_NAME}: the container runtime would use that network "
            f"and never this one; remove it or rename it to sort after {paths.CONFLIST_NAME}"
        )


def write_conflist(conflist: dict[str, Any], directory: str = paths.CNI_CONF_DIR) -> bool:
    """Put the conflist in place so that the runtime notices. Return False if it was in place already.

    Raises ConfDirError, with the old file still in place, if the file cannot be written, or if refuse_competitors does.
    """
    refuse_competitors(directory)
    if is_current(conflist, directory):
        return False
    target = Path(directory) / paths.CONFLIST_NAME
    try:
        write_atomic(target, render(conflist), mode=MODE)
    except OSError as error:
        raise ConfDirError(f"cannot write {target}: {error}") from error
    return True


def remove_conflist(directory: str = paths.CNI_CONF_DIR) -> bool:
    """Remove our conflist. Return False if there was none. Raises ConfDirError."""
    try:
        (Path(directory) / paths.CONFLIST_NAME).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfDirError(f"cannot remove {directory}/{paths.CONFLIST_NAME}: {error}") from error
    return True
