# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian packages that this collection has installed on a host: a note of them, and their removal.

Before apt installs anything, the note gets what is there; afterwards, what is new. So the note is right even if a run
is interrupted in between, and a package that was there before is never removed. Nor is one that a package of others
needs.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .atomic_file import read_text, remove_file, write_atomic
from .errors import EvioError

_QUERY_SECONDS = 60.0
_PURGE_SECONDS = 900.0
_LOCK_SECONDS = 120
"""For how long apt waits for another apt."""

_VERSION = 1
_SCRIPTS = Path("/var/lib/dpkg/info")
"""Where dpkg has the packages' scripts, which make users and groups."""

_SYSTEM_IDS = 1000
"""Users and groups below are the system's (Debian policy 9.2.2)."""

_REMOVED = re.compile(r"^(?:Purg|Remv) (\S+)", re.MULTILINE)
"""A line of `apt-get --simulate purge`."""


class PackagesError(EvioError):
    """apt or dpkg has failed, or the note cannot be read or written."""


@dataclass(frozen=True)
class Host:
    """What packages bring: all that are installed, and the system's users and groups."""

    packages: frozenset[str]
    accounts: frozenset[str]
    """``user:NAME`` and ``group:NAME``."""


@dataclass(frozen=True)
class Note:
    """What this collection has installed on a host."""

    packages: frozenset[str] = frozenset()
    accounts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Users and groups as in Host, each with the packages of the note that have made it."""
    before: Host | None = None
    """What was there before an installation that has begun, and has not ended as far as the note knows."""


@dataclass(frozen=True)
class Removal:
    """What is to be removed."""

    packages: tuple[str, ...]
    accounts: tuple[str, ...]
    needed: Mapping[str, tuple[str, ...]]
    """Packages of the note that stay, each with the packages of others that need it."""


def package_name(package: str) -> str:
    """Return the name of a package without architecture, version and release, which apt takes with it."""
    return re.split("[:=/]", package)[0]


def read_note(path: str) -> Note:
    """Return the note; an empty one if there is none. Raises PackagesError."""
    try:
        text = read_text(path)
        if text is None:
            return Note()
        value = json.loads(text)
        if value["version"] != _VERSION:
            raise PackagesError(f"{path} is of version {value['version']}, which this collection does not know")
        before = value["before"]
        return Note(
            frozenset(value["packages"]),
            {name: tuple(packages) for name, packages in value["accounts"].items()},
            None if before is None else Host(frozenset(before["packages"]), frozenset(before["accounts"])),
        )
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackagesError(f"cannot read {path}: {error}; remove it if the packages may stay on this host") from error


def write_note(path: str, note: Note) -> None:
    """Write the note; an empty note is no file. Raises PackagesError."""
    try:
        if note == Note():
            remove_file(path)
            return
        value: dict[str, Any] = {
            "about": "Debian packages that evio.cni has installed here, and that its playbook teardown removes",
            "version": _VERSION,
            "packages": sorted(note.packages),
            "accounts": {name: sorted(packages) for name, packages in sorted(note.accounts.items())},
            "before": None,
        }
        if note.before is not None:
            value["before"] = {"packages": sorted(note.before.packages), "accounts": sorted(note.before.accounts)}
        write_atomic(path, json.dumps(value, indent=1) + "\n", mode=0o644)
    except OSError as error:
        raise PackagesError(f"cannot write {path}: {error.strerror}") from error


def read_host() -> Host:
    """Return what is installed. Raises PackagesError."""
    told = _run(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n"])
    packages = (line.split() for line in told.splitlines())
    accounts = [f"user:{user.pw_name}" for user in pwd.getpwall() if user.pw_uid < _SYSTEM_IDS]
    accounts += [f"group:{group.gr_name}" for group in grp.getgrall() if group.gr_gid < _SYSTEM_IDS]
    return Host(
        frozenset(words[0] for words in packages if len(words) == 2 and words[1] == "installed"), frozenset(accounts)
    )


def begin_installation(note: Note) -> Note:
    """Return the note with what is installed now, before apt is started. Raises PackagesError."""
    return note if note.before is not None else replace(note, before=read_host())


def end_installation(note: Note, names: Iterable[str]) -> Note:
    """Return the note with what is new since the beginning. Raises PackagesError.

    ``names`` are the packages that were to be installed. Of others, only those count that apt has installed because
    another package needs them: a person may have installed more since a run was interrupted.
    """
    if note.before is None:
        return note
    host = read_host()
    new = host.packages - note.before.packages
    if new:
        dependencies = set(_run(["apt-mark", "showauto"]).split())
        new &= dependencies | set(names)
    accounts = {name: _makers(name, new) for name in host.accounts - note.before.accounts}
    made = {name: packages for name, packages in accounts.items() if packages}
    return Note((note.packages & host.packages) | new, {**note.accounts, **made})


def plan_removal(note: Note, keep: Collection[str]) -> Removal:
    """Return what of the note can be removed. Raises PackagesError.

    ``keep`` has names of packages that stay, and so do those that they need, and those that packages of others need.
    """
    owned = sorted(note.packages & read_host().packages)
    wanted = [name for name in owned if name not in keep]
    needed: dict[str, tuple[str, ...]] = {}
    if wanted and _goes_with(wanted) - set(wanted):
        # One by one, to find out which of them the others need.
        needed = {name: others for name in wanted if (others := tuple(sorted(_goes_with([name]) - set(wanted))))}
        wanted = [name for name in wanted if name not in needed]
    gone = note.packages - (set(owned) - set(wanted))
    accounts = [name for name, makers in note.accounts.items() if gone.issuperset(makers) and _is_there(name)]
    # Users first: a group stays while it is the group of a user.
    return Removal(tuple(wanted), tuple(sorted(accounts, reverse=True)), needed)


def remove(removal: Removal) -> None:
    """Purge the packages, and delete the users and groups that they have made. Raises PackagesError."""
    if removal.packages:
        options = ["--yes", "--option", f"DPkg::Lock::Timeout={_LOCK_SECONDS}"]
        _run(["apt-get", *options, "purge", "--", *removal.packages], seconds=_PURGE_SECONDS)
    for account in removal.accounts:
        kind, _separator, name = account.partition(":")
        # A user's group of the same name goes with it.
        if _is_there(account):
            _run(["userdel" if kind == "user" else "groupdel", "--", name])


def after_removal(note: Note, removal: Removal) -> Note:
    """Return the note without what was removed."""
    left = note.packages & read_host().packages
    accounts = {name: makers for name, makers in note.accounts.items() if name not in removal.accounts}
    return Note(left, {name: makers for name, makers in accounts.items() if left.intersection(makers)})


def _goes_with(names: Sequence[str]) -> set[str]:
    """Return what apt would remove with these packages, themselves too."""
    return set(_REMOVED.findall(_run(["apt-get", "--simulate", "purge", "--", *names])))


def _makers(account: str, packages: Iterable[str]) -> tuple[str, ...]:
    """Return the packages whose scripts name this user or group."""
    name = account.partition(":")[2].encode()
    word = re.compile(rb"(?<![\w-])" + re.escape(name) + rb"(?![\w-])")
    return tuple(sorted(package for package in packages if any(map(word.search, _scripts(package)))))


def _scripts(package: str) -> list[bytes]:
    paths = [*_SCRIPTS.glob(f"{package}.p*inst"), *_SCRIPTS.glob(f"{package}:*.p*inst")]
    files = [*paths, Path(f"/usr/lib/sysusers.d/{package}.conf")]
    return [path.read_bytes() for path in files if path.is_file()]


def _is_there(account: str) -> bool:
    kind, _separator, name = account.partition(":")
    try:
        if kind == "user":
            pwd.getpwnam(name)
        else:
            grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _run(command: list[str], seconds: float = _QUERY_SECONDS) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackagesError(f"{' '.join(command[:2])}: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise PackagesError(f"{' '.join(command[:4])} failed: {lines[-1] if lines else done.returncode}")
    return done.stdout
