# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Units of systemd and the files that they read: compare all of them with what is wanted, then change what differs.

Reads the state of all units in one call of systemctl. What a file says is left to the caller.
"""

from __future__ import annotations

import grp
import os.path
import pwd
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .differences import Differences
from .errors import EvioError
from .managed_file import FileChange, ManagedFile, result_of

UNIT_DIRECTORY = "/etc/systemd/system/"

_SHOW_SECONDS = 30.0
_CHANGE_SECONDS = 300.0
"""A start ends by DefaultTimeoutStartSec, 90 s, for each unit that has to be started before it."""

_ENABLED = {"enabled", "static", "alias", "indirect", "generated"}
"""Unit file states that need no `systemctl enable` (systemctl(1), is-enabled)."""
_RUNNING = {"active", "activating", "reloading"}
"""Active states of a unit that runs, or that systemd starts again by itself."""
_PROPERTIES = ("Id", "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload")


class SystemdError(EvioError):
    """systemctl has failed, or a unit does not exist; the message names the unit."""


@dataclass(frozen=True)
class UnitFile:
    """A file that shall have this text. ``owner`` and ``group`` are names; None leaves them as they are."""

    path: str
    text: str | None
    """None if the file shall not exist."""
    mode: int = 0o644
    owner: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Unit:
    """A unit that shall be enabled, and running if ``is_started``; it is restarted after a change of these files."""

    name: str
    is_started: bool = True
    restart_after: tuple[str, ...] = ()
    is_restarted: bool = False
    """Restart it in any case."""
    is_absent: bool = False
    """Stop and disable it, if there is one; the other fields do not count then."""


@dataclass(frozen=True)
class _Found:
    is_there: bool
    is_enabled: bool
    """Whether it needs no `systemctl enable`."""
    is_linked: bool
    """Whether `systemctl disable` would remove links."""
    is_running: bool
    is_failed: bool
    """Whether systemd keeps it in memory because it has failed, perhaps without its file."""
    needs_reload: bool


class SystemdUnits:
    """Files and units as found when this object was made, and what has to be done to them.

    ``dry_run`` changes nothing; a unit whose package is not installed yet is then expected to appear. Raises
    ManagedFileError, and SystemdError if a unit does not exist.
    """

    def __init__(self, files: Sequence[UnitFile], units: Sequence[Unit], *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.units = units
        self._kept = [unit for unit in units if not unit.is_absent]
        self.changes: list[FileChange] = [_managed(file, dry_run=dry_run).change_to(file.text) for file in files]
        self._found = _read(units)
        made_by_us = {file.path.removeprefix(UNIT_DIRECTORY) for file in files if file.text is not None}
        lacking = [unit.name for unit in self._kept if not self._found[unit.name].is_there]
        missing = [name for name in lacking if name not in made_by_us]
        if missing and not dry_run:
            raise SystemdError(f"{', '.join(missing)}: systemd has no such unit; is its package installed?")
        changed = self.changed_files
        self._restarted = {
            unit.name
            for unit in self._kept
            if unit.is_started
            and self._found[unit.name].is_running
            and (unit.is_restarted or changed & {*unit.restart_after})
        }
        self.differences = [self._compare(unit) for unit in units]

    @property
    def changed_files(self) -> set[str]:
        """The paths of the files that differ."""
        return {str(change.file.path) for change in self.changes if change.changed}

    def write_files(self) -> None:
        """Stop absent units, write what differs, let systemd read its units again if needed, and enable the units."""
        if self.dry_run:
            return
        # Before their files are removed: systemd needs these to know what to stop and which links to remove.
        absent = [unit for unit in self.units if unit.is_absent]
        found = self._found
        if any(self._is_left(unit) for unit in absent):
            _systemctl("disable", "--now", *(unit.name for unit in absent if found[unit.name].is_there))
            found = _read(absent)
        # A service that was stopped while it ran has failed, which systemd remembers of a unit without a file, too. It
        # refuses to forget that of a unit that has not failed.
        if failed := [unit.name for unit in absent if found[unit.name].is_failed]:
            _systemctl("reset-failed", *failed)
        for change in self.changes:
            change.apply()
        if any(path.startswith(UNIT_DIRECTORY) for path in self.changed_files) or any(
            found.needs_reload for found in self._found.values()
        ):
            _systemctl("daemon-reload")
        if disabled := [unit.name for unit in self._kept if not self._found[unit.name].is_enabled]:
            _systemctl("enable", *disabled)

    def start(self) -> None:
        """Start or restart the units, in their order, after write_files()."""
        if self.dry_run:
            return
        for unit in self._kept:
            if unit.name in self._restarted:
                _systemctl("restart", unit.name)
            elif unit.is_started and not self._found[unit.name].is_running:
                _systemctl("start", unit.name)

    def parts(self) -> list[FileChange | Differences]:
        """Return what managed_file.result_of makes ``changed`` and ``diff`` of."""
        return [*(change for change in self.changes if change.changed), *self.differences]

    def result(self) -> dict[str, Any]:
        """Return ``changed``, ``diff``, and ``files`` and ``units``: the names of those that have changed."""
        return {
            **result_of(*self.parts()),
            "files": sorted(self.changed_files),
            "units": [unit.name for unit, found in zip(self.units, self.differences, strict=True) if found.changed],
        }

    def _is_left(self, unit: Unit) -> bool:
        found = self._found[unit.name]
        return found.is_there and (found.is_linked or found.is_running)

    def _compare(self, unit: Unit) -> Differences:
        found = self._found[unit.name]
        differences = Differences()
        differences.compare("unit", unit.name, unit.name)
        if unit.is_absent:
            state = "running" if found.is_running else "failed" if found.is_failed else "stopped"
            differences.compare("enabled", False, found.is_linked)
            differences.compare("state", "stopped", state)
            return differences
        differences.compare("enabled", True, found.is_enabled)
        if unit.is_started:
            state = "running" if found.is_running else "stopped"
            differences.compare("state", "restarted" if unit.name in self._restarted else "running", state)
        return differences


def main_processes(units: Sequence[str]) -> dict[str, int]:
    """Return the main process of each of these services that runs, by the service's name. Raises SystemdError."""
    text = _systemctl("show", "--property=Id,MainPID", "--", *units, seconds=_SHOW_SECONDS)
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.strip().split("\n\n")]
    found = {block.get("Id", ""): int(block.get("MainPID") or 0) for block in blocks}
    return {unit: found[unit] for unit in units if found.get(unit)}


def from_options(
    files: Iterable[Mapping[str, Any]], units: Iterable[Mapping[str, Any]], *, dry_run: bool
) -> SystemdUnits:
    """Return the files and units of the options of these names, as doc_fragments/units describes them.

    A file with ``if_directory`` is left out if its directory does not exist.
    """
    return SystemdUnits(
        [
            UnitFile(
                file["path"],
                file["content"] if file["state"] == "present" else None,
                int(file["mode"], 8),
                file["owner"],
                file["group"],
            )
            for file in files
            if not file["if_directory"] or _has_directory(file["path"])
        ],
        [
            Unit(
                unit["name"],
                unit["state"] == "started",
                tuple(unit["restart_after"]),
                unit["restarted"],
                unit["state"] == "absent",
            )
            for unit in units
        ],
        dry_run=dry_run,
    )


OPTIONS: dict[str, Any] = {
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "content": {"type": "str"},
            "template": {"type": "str"},
            "mode": {"type": "str", "default": "0644"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "if_directory": {"type": "bool", "default": False},
        },
        "required_if": [("state", "present", ("content", "template"), True)],
        "mutually_exclusive": [("content", "template")],
    },
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "enabled", "absent"], "default": "started"},
            "restart_after": {"type": "list", "elements": "path", "default": []},
            "restarted": {"type": "bool", "default": False},
        },
    },
}
"""The options of modules that keep files and units, for AnsibleModule."""


def _has_directory(path: str) -> bool:
    return os.path.isdir(os.path.dirname(path))


def _managed(file: UnitFile, *, dry_run: bool) -> ManagedFile:
    try:
        uid = pwd.getpwnam(file.owner).pw_uid if file.owner is not None else None
        gid = grp.getgrnam(file.group).gr_gid if file.group is not None else None
    except KeyError as error:
        # In check mode the package that makes the account may not be installed yet.
        if not dry_run:
            raise SystemdError(f"{file.path}: {error.args[0]}") from error
        uid = gid = None
    return ManagedFile(file.path, mode=file.mode, uid=uid, gid=gid)


def _read(units: Sequence[Unit]) -> dict[str, _Found]:
    """Return the state of each unit, by its name."""
    if not units:
        return {}
    names = [unit.name for unit in units]
    text = _systemctl("show", f"--property={','.join(_PROPERTIES)}", "--", *names, seconds=_SHOW_SECONDS)
    # One block of lines for each unit, in the order of the arguments, and an empty line between them.
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.strip().split("\n\n")]
    if len(blocks) != len(names):
        raise SystemdError(f"systemctl show told {len(blocks)} units instead of {', '.join(names)}")
    return {name: _found(block) for name, block in zip(names, blocks, strict=True)}


def _found(properties: Mapping[str, str]) -> _Found:
    return _Found(
        is_there=properties.get("LoadState") != "not-found",
        is_enabled=properties.get("UnitFileState") in _ENABLED,
        is_linked=properties.get("UnitFileState") == "enabled",
        is_running=properties.get("ActiveState") in _RUNNING,
        is_failed=properties.get("ActiveState") == "failed",
        needs_reload=properties.get("NeedDaemonReload") == "yes",
    )


def _systemctl(*arguments: str, seconds: float = _CHANGE_SECONDS) -> str:
    command = ["systemctl", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemdError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise SystemdError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
