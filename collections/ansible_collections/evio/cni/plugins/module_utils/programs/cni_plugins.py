# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Provide the distribution's CNI plugins, such as host-local, in the directory where the runtime looks for plugins.

What is there under a plugin's name stays: a file, a link, and a link that leads to nothing. ``installation`` installs
our own programs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..atomic_file import make_directories, write_atomic
from ..host_root import resolve
from ..paths import DISTRIBUTION_CNI_DIR
from .installation import InstallationError

_MODE = 0o755


def missing_plugins(names: Sequence[str], *, bin_dir: str, root: str = "/") -> list[str]:
    """Return which of these plugins have no file and no link in ``bin_dir``, a path of the host seen below ``root``."""
    directory = resolve(root, bin_dir)
    return [name for name in names if not os.path.lexists(os.path.join(directory, name))]


def provide_plugins(
    names: Sequence[str],
    *,
    bin_dir: str,
    source_dir: str = DISTRIBUTION_CNI_DIR,
    root: str = "/",
    copies: str | None = None,
) -> list[str]:
    """Link the missing plugins to the host's ``source_dir``, or copy them from ``copies``; return their names.

    ``copies`` is a directory of this program's own, where the host may lack the distribution's package. Raises
    InstallationError if a plugin is in neither directory, or if ``bin_dir`` cannot be written.
    """
    missing = missing_plugins(names, bin_dir=bin_dir, root=root)
    directory = Path(resolve(root, bin_dir))
    try:
        make_directories(directory)
        for name in missing:
            target = os.path.join(source_dir, name)
            copy = os.path.join(copies, name) if copies is not None else ""
            if os.path.isfile(resolve(root, target)):
                (directory / name).symlink_to(target)
            elif copy and os.path.isfile(copy):
                write_atomic(directory / name, Path(copy).read_bytes(), mode=_MODE)
            else:
                raise InstallationError(
                    f"{target} is not there to be linked; install the package containernetworking-plugins"
                )
    except OSError as error:
        raise InstallationError(f"cannot provide CNI plugins in {bin_dir}: {error}") from error
    return missing


def linked_plugins(names: Sequence[str], *, bin_dir: str, source_dir: str = DISTRIBUTION_CNI_DIR) -> list[str]:
    """Return the paths of those of these plugins that are links to the distribution's, as ``provide_plugins`` makes."""
    paths = [os.path.join(bin_dir, name) for name in names]
    return [
        path
        for path, name in zip(paths, names, strict=True)
        if os.path.islink(path) and os.readlink(path) == os.path.join(source_dir, name)
    ]


def remove_links(paths: Sequence[str]) -> None:
    """Remove these links. Raises InstallationError."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InstallationError(f"cannot remove {path}: {error.strerror}") from error


def broken_plugins(names: Sequence[str], *, bin_dir: str, root: str = "/") -> list[str]:
    """Return one sentence for each of these plugins that is there and cannot be run: a link to nothing, no program."""
    sentences = []
    for name in names:
        path = os.path.join(bin_dir, name)
        seen = resolve(root, path)
        if not os.path.isfile(seen):
            link = resolve(root, bin_dir) + f"/{name}"
            what = f"a link to {os.readlink(link)}, which is not there" if os.path.islink(link) else "no file"
            sentences.append(f"{path} is {what}")
        elif not os.stat(seen).st_mode & 0o111:
            sentences.append(f"{path} is not executable")
    return sentences
