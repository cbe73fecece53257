# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directory from which the container runtime reads its CNI configuration: put our conflist there, or remove it.

containerd reloads after a write or a rename *inside* this directory, but it does not see a file that is moved in from
elsewhere, as Ansible's copy and template do. So the file gets a temporary name in the directory itself, one that no
runtime reads, and is renamed. ``conflist`` has the file's content; ``cri`` asks whether the runtime has loaded it.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from .. import paths
from ..atomic_file import read_text, write_atomic
from ..errors import EvioError

MODE = 0o600
"""Of the conflist."""

_MULTUS = ("multus", "multus-shim")
"""Types of the plugin multus: ``multus-shim`` is that of its daemon."""

_LONGEST_FILE = 1 << 20
"""Bytes."""

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


def refuse_competitors(directory: str = paths.CNI_CONF_DIR, network: str = "evio") -> None:
    """Raise ConfDirError if the name of another file sorts before ours: the runtime reads only the first file.

    A file of multus is no competitor if multus gives pods our network, of this name, as their first.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    ahead = sorted(name for name in names if name.endswith(_CONFIG_SUFFIXES) and name < paths.CONFLIST_NAME)
    if ahead and multus_in_front(directory, network) is None:
        raise ConfDirError(
            f"{directory}/{ahead[0]} sorts before {paths.CONFLIST_NAME}: the container runtime would use that network "
            f"and never this one; remove it or rename it to sort after {paths.CONFLIST_NAME}; multus may stay if its "
            f"clusterNetwork or its first delegate is {network}"
        )


def later_files(directory: str = paths.CNI_CONF_DIR) -> list[str]:
    """Return the names of the files that the runtime would use if ours were not there, in the runtime's order."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(name for name in names if name.endswith(_CONFIG_SUFFIXES) and name > paths.CONFLIST_NAME)


def multus_in_front(directory: str = paths.CNI_CONF_DIR, network: str = "evio") -> str | None:
    """Return the name of multus' network if multus' is the first file and delegates to ``network``; None otherwise.

    That is so if its ``clusterNetwork`` names our network or our file, or its first delegate is our network.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(_CONFIG_SUFFIXES))
    except OSError:
        return None
    if not names or names[0] >= paths.CONFLIST_NAME:
        return None
    conf = _read_object(Path(directory) / names[0])
    plugins = conf.get("plugins")
    entry = plugins[0] if isinstance(plugins, list) and plugins else conf
    if not isinstance(entry, dict) or entry.get("type") not in _MULTUS:
        return None
    cluster_network = entry.get("clusterNetwork")
    if cluster_network:
        names_ours = isinstance(cluster_network, str) and (
            cluster_network == network or os.path.basename(cluster_network) == paths.CONFLIST_NAME
        )
    else:
        delegates = entry.get("delegates")
        first = delegates[0] if isinstance(delegates, list) and delegates else None
        names_ours = isinstance(first, dict) and first.get("name") == network
    return str(conf.get("name")) if names_ours else None


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; an empty object for a file that is too long, no JSON, or no regular file."""
    try:
        # Not to wait for the writer of a named pipe.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            text = file.read(_LONGEST_FILE + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
        value = json.loads(text) if len(text) <= _LONGEST_FILE else None
    except (OSError, RecursionError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_conflist(conflist: dict[str, Any], directory: str = paths.CNI_CONF_DIR) -> bool:
    """Put the conflist in place so that the runtime notices. Return False if it was in place already.

    Raises ConfDirError, with the old file still in place, if the file cannot be written, or if refuse_competitors does.
    """
    refuse_competitors(directory, str(conflist.get("name")))
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
