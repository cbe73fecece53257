# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The services that carry a node's pod network, as systemd knows them, and the errors in their journal."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

UNITS = (
    "evio-overlay.service",
    "evio.service",
    "evio-edgevpn-agent.service",
    "evio-repair.service",
    "evio-flows.path",
    "evio-metrics.timer",
    "evio-metrics.socket",
    "ovsdb-server.service",
    "ovs-vswitchd.service",
    "containerd.service",
    "kubelet.service",
    "etcd.service",
    "prosody.service",
    "coturn.service",
)
"""The units that are asked for; a node has some of them."""

_LOGGED_UNITS = (
    "evio-overlay.service",
    "evio-edgevpn-agent.service",
    "evio-repair.service",
    "evio-flows.service",
    "evio-metrics.service",
)
"""Units whose warnings and errors are shown."""

_PLUGIN_ENTRIES = ("SYSLOG_IDENTIFIER=evio", *(f"CNI_COMMAND={verb}" for verb in ("ADD", "DEL", "CHECK", "GC")))
"""What the entries of the plugin's failed calls match (plugin/error_log)."""

_PLUGIN_FAILURE = r'plugin type=\\?"evio\\?".* failed'
"""What container runtimes log about a failed call of the plugin (libcni), also if the plugin was killed. containerd
puts a backslash before a quote."""

_ERROR_WORDS = r"(?i)error|fail|cannot|warning|refuse"
"""Words by which lines without a priority of their own are chosen, as those of wireguard-go."""

_EXPECTED = re.compile("Found left-over process .*|This usually indicates unclean termination .*")
"""What systemd itself says at each start of evio-overlay.service, which leaves wireguard-go running when it stops."""

ERROR, WARNING = "error", "warning"
"""Severities of what is logged."""

_WARNING_PRIORITY = 4
_DEFAULT_PRIORITY = 6
"""syslog(3): LOG_WARNING; and LOG_INFO, which the journal gives a line of a service that has no prefix."""

_MOST_ERRORS = 10
_MOST_LINES = 300
"""Lines of the journal that are read of each kind, the newest; the same message counts once among the errors."""
_LONGEST_LINE = 500
"""Characters."""
_SECONDS = 5.0


@dataclass(frozen=True)
class Service:
    """A unit of systemd that is installed here. The fields are keys of ``evio status --json``."""

    name: str
    state: str
    """``active``, ``inactive``, ``failed`` ... (systemctl(1))."""
    is_enabled: bool
    restarts: int
    """How often systemd has restarted it by itself since its last start by hand."""


@dataclass(frozen=True)
class LoggedError:
    """A message of the journal. The fields are keys of ``evio status --json``."""

    time: float
    """When it was logged last, in seconds since 1970."""
    unit: str
    message: str
    severity: str = ERROR
    """ERROR or WARNING."""
    count: int = 1
    """How often it was logged."""


def read_services(units: Sequence[str] = UNITS) -> list[Service]:
    """Return the units that are installed; none where systemd is not the init system."""
    properties = "Id,LoadState,ActiveState,UnitFileState,NRestarts"
    found = []
    for block in _run("systemctl", "show", "--property", properties, *units).split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        if fields.get("LoadState") == "loaded":
            restarts = fields.get("NRestarts", "")
            found.append(
                Service(
                    fields["Id"],
                    fields.get("ActiveState", "unknown"),
                    fields.get("UnitFileState") in ("enabled", "static", "indirect", "alias"),
                    int(restarts) if restarts.isdigit() else 0,
                )
            )
    return found


def read_errors(most: int = _MOST_ERRORS) -> list[LoggedError]:
    """Return what was logged in this boot's last day, errors before warnings, the newest of each first.

    That is what our services logged, and the failed calls of the plugin.
    """
    units = [word for unit in _LOGGED_UNITS for word in ("--unit", unit)]
    found = [
        *_read_journal(f"--priority={_WARNING_PRIORITY}", *units),
        *_read_journal(*_PLUGIN_ENTRIES),
        *_read_journal(f"--priority={_DEFAULT_PRIORITY}..7", f"--grep={_ERROR_WORDS}", *units),
    ]
    told = [error.message.partition(": ")[2] for error in found]
    runtime = _read_journal(f"--grep={_PLUGIN_FAILURE}", "--unit", "containerd.service", "--unit", "crio.service")
    # The runtime logs the plugin's own sentence among its words.
    found += [line for line in runtime if not any(words and words in _unquoted(line.message) for words in told)]
    return sorted(_counted(found), key=lambda error: (error.severity != ERROR, -error.time))[:most]


def _read_journal(*filters: str) -> list[LoggedError]:
    lines = _run(
        *("journalctl", "--no-pager", "--output=json", "--boot", "--since=-24h", f"--lines={_MOST_LINES}"), *filters
    )
    return [error for line in lines.splitlines() if (error := _parse(line)) is not None]


def _counted(errors: Sequence[LoggedError]) -> list[LoggedError]:
    """Return each message of a unit once, with the time of the last and how often it was logged."""
    newest: dict[tuple[str, str, str], LoggedError] = {}
    for error in errors:
        key = (error.severity, error.unit, error.message)
        before = newest.get(key)
        count = 1 if before is None else before.count + 1
        newest[key] = replace(error if before is None or error.time > before.time else before, count=count)
    return list(newest.values())


def _parse(line: str) -> LoggedError | None:
    """Return a line of ``journalctl --output=json`` (systemd's JOURNAL_EXPORT_FORMATS); None if it is none to tell."""
    try:
        entry: dict[str, Any] = json.loads(line)
        message = entry["MESSAGE"]
        if isinstance(message, list):
            # Bytes that are no text are listed one by one.
            message = bytes(message).decode("utf-8", "replace")
        moment = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        unit = str(entry.get("_SYSTEMD_UNIT", ""))
        # What systemd itself says of a unit has the unit's name in another field.
        if unit == "init.scope":
            unit = str(entry.get("UNIT", ""))
            if _EXPECTED.search(str(message)):
                return None
        severity = _severity(int(entry.get("PRIORITY", _DEFAULT_PRIORITY)), str(message))
        return LoggedError(moment, unit, str(message)[:_LONGEST_LINE], severity)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _unquoted(text: str) -> str:
    return text.replace('\\"', '"')


def _severity(priority: int, message: str) -> str:
    if priority >= _DEFAULT_PRIORITY:
        # wireguard-go writes "ERROR:", libcni "level=error".
        return ERROR if "error" in message.lower() else WARNING
    return ERROR if priority < _WARNING_PRIORITY else WARNING


def _run(*command: str) -> str:
    """Return what a program prints; an empty text where it is missing, fails, or does not end in time."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout
