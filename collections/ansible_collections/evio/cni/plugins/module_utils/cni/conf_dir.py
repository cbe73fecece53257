# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directory a container runtime reads its CNI configuration from: putting our file there so that it is loaded.

containerd reloads on writes and on renames *inside* the directory only: a file moved in from elsewhere, as Ansible's
copy and template do it, is never seen. So the file is renamed in the directory itself (whole_file), from a name that no
runtime reads. What is in the file is conflist's subject, whether the runtime took it cri's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .. import paths
from ..atomic_file import write_atomic
from ..errors import EvioError

MODE = 0o600
_CONFIG_SUFFIXES = (".conf", ".conflist", ".json")


class ConfDirError(EvioError):
    """The conflist cannot be put in place, or would not be the one that is read."""


def render(conflist: dict[str, Any]) -> str:
    """The file's text: stable, so that equal configurations are equal bytes."""
    return json.dumps(conflist, indent=2) + "\n"


def read_conflist(directory: str = paths.CNI_CONF_DIR) -> str | None:
    """The text of our file as it is, or None where there is none."""
    try:
        return (Path(directory) / paths.CONFLIST_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfDirError(f"cannot read {directory}/{paths.CONFLIST_NAME}: {error}") from error


def is_current(conflist: dict[str, Any], directory: str = paths.CNI_CONF_DIR) -> bool:
    """Whether our file is there with this very text and mode 0600."""
    if read_conflist(directory) != render(conflist):
        return False
    return (Path(directory) / paths.CONFLIST_NAME).stat().st_mode & 0o777 == MODE


def refuse_competitors(directory: str = paths.CNI_CONF_DIR) -> None:
    """Raise ConfDirError if another file sorts before ours: the runtime takes the first by name and never ours."""
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
    """Put the conflist in place as one step that the runtime notices; False if it was there already.

    Raises ConfDirError, with the old file still in place, if the directory cannot be written or a competitor would win.
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
    """Take our file away; False if there was none."""
    try:
        (Path(directory) / paths.CONFLIST_NAME).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfDirError(f"cannot remove {directory}/{paths.CONFLIST_NAME}: {error}") from error
    return True
