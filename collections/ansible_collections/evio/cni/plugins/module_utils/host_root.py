# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host's files as a container sees them: below the directory where the host's directories are mounted.

On the host itself that directory is ``/``. Symbolic links of the host lead to where the host would find their targets.
"""

from __future__ import annotations

import os
import stat

_MOST_LINKS = 40
"""Symbolic links in one path, as in the kernel (path_resolution(7))."""


def below(root: str, path: str) -> str:
    """Return where this absolute path of the host is seen; links in it are not followed."""
    return os.path.join(root, path.lstrip("/"))


def resolve(root: str, path: str) -> str:
    """Return where the host's file of this absolute path is seen, with all links followed as the host follows them.

    Names that are not there are taken as they stand. In a circle of links, one of them is returned.
    """
    seen, links = os.path.join(root, ""), 0
    names = path.split("/")
    here: list[str] = []
    while names:
        name = names.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            here = here[:-1]
            continue
        candidate = os.path.join(seen, *here, name)
        try:
            is_link = stat.S_ISLNK(os.lstat(candidate).st_mode)
        except OSError:
            is_link = False
        if not is_link:
            here.append(name)
            continue
        links += 1
        if links > _MOST_LINKS:
            return candidate
        target = os.readlink(candidate)
        if target.startswith("/"):
            here = []
        names = target.split("/") + names
    return os.path.join(seen, *here)
