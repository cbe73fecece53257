# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let people on the host find the programs: symbolic links in PATH, and for man(1) and the completion of bash and zsh.

The commands lead to the launchers, the pages into the installed version's directory. What is not our link is never
changed. ``installation`` installs what they lead to.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..atomic_file import make_directories
from ..host_root import below, resolve
from .installation import PROGRAMS, InstallationError, version_pattern

SHARE = "share"
"""The directory of pages and completions in an archive, with the paths that they have below the prefix."""

_PAGES = tuple(
    f"{SHARE}/{path}"
    for name in PROGRAMS
    for path in (f"man/man8/{name}.8", f"bash-completion/completions/{name}", f"zsh/site-functions/_{name}")
)


@dataclass(frozen=True)
class CommandLink:
    """One link that is wanted, or is there and not wanted any more."""

    path: str
    target: str | None
    """Where it has to lead; None if it has to go."""
    found: str | None
    """Where it leads; None if it is not there."""

    @property
    def is_right(self) -> bool:
        """Whether nothing has to be done."""
        return self.target == self.found


@dataclass(frozen=True)
class CommandLinks:
    """All links below a prefix."""

    links: tuple[CommandLink, ...]
    foreign: tuple[str, ...]
    """Paths at which somebody else has put something."""

    @property
    def are_right(self) -> bool:
        """Whether nothing has to be done."""
        return all(link.is_right for link in self.links)


def read_command_links(
    prefix: str, *, bin_dir: str, lib_dir: str, version: str | None, root: str = "/"
) -> CommandLinks:
    """Compare the links below ``prefix`` with those of a version; with None, all of ours are unwanted.

    The paths are the host's; the host is seen below ``root``. A version that is not installed yet has all pages.
    """
    wanted: dict[str, str] = {}
    if version is not None:
        directory = os.path.join(lib_dir, version)
        wanted = {f"bin/{name}": os.path.join(bin_dir, name) for name in PROGRAMS}
        wanted |= {name: os.path.join(directory, name) for name in _pages(below(root, directory))}
    links, foreign = [], []
    for name in (*(f"bin/{program}" for program in PROGRAMS), *_PAGES):
        place, base = os.path.split(os.path.join(prefix, name))
        path = os.path.join(resolve(root, place), base)
        found = os.readlink(path) if os.path.islink(path) else None
        if found is not None and _is_ours(found, name, bin_dir, lib_dir):
            links.append(CommandLink(path, wanted.get(name), found))
        elif name in wanted and os.path.lexists(path):
            foreign.append(path)
        elif name in wanted:
            links.append(CommandLink(path, wanted[name], None))
    return CommandLinks(tuple(links), tuple(foreign))


def apply_command_links(wanted: CommandLinks) -> None:
    """Make, change and remove links until they are right. Raises InstallationError."""
    for link in wanted.links:
        try:
            if link.is_right:
                continue
            if link.target is None:
                os.unlink(link.path)
                continue
            make_directories(Path(link.path).parent)
            temporary = f"{link.path}.evio-new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            os.symlink(link.target, temporary)
            os.rename(temporary, link.path)
        except OSError as error:
            raise InstallationError(
                f"cannot link {link.path}: {error.strerror}; make its directory writable, or "
                "choose another prefix for the links (evio_commands_prefix; empty for none)"
            ) from error


def _pages(directory: str) -> list[str]:
    """Return the pages that a version has: earlier versions had none."""
    return [name for name in _PAGES if not os.path.isdir(directory) or os.path.isfile(os.path.join(directory, name))]


def _is_ours(target: str, name: str, bin_dir: str, lib_dir: str) -> bool:
    if name.startswith("bin/"):
        return target == os.path.join(bin_dir, os.path.basename(name))
    return (
        re.fullmatch(f"{re.escape(os.path.join(lib_dir, ''))}{version_pattern()}/{re.escape(name)}", target) is not None
    )
