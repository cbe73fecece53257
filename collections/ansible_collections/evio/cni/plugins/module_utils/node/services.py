# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The services that carry a node's pod network, as systemd knows them, and the errors in their journal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
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

_QUIET_UNITS = (
    "evio-overlay.service",
    "evio-edgevpn-agent.service",
    "evio-repair.service",
    "evio-flows.service",
    "evio-metrics.service",
)
"""Units whose warnings and errors are shown."""

_PLUGIN_FAILURE = r'plugin type="evio".* failed'
"""What container runtimes log about a failed call of the plugin (libcni)."""

_ERROR_WORDS = r"(?i)error|fail|cannot|warning|refuse"
"""Words by which lines of the programs are chosen: what they print has no priority of its own."""

_MOST_ERRORS = 10
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
    """A line of the journal. The fields are keys of ``evio status --json``."""

    time: float
    """Seconds since 1970."""
    unit: str
    message: str


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
    """Return the last errors of this boot's last day, the newest first: of our services, and of calls of the plugin."""
    common = ("journalctl", "--no-pager", "--output=json", "--boot", "--since=-24h", f"--lines={most}")
    units = [word for unit in _QUIET_UNITS for word in ("--unit", unit)]
    ours = _run(*common, f"--grep={_ERROR_WORDS}", *units)
    runtime = _run(*common, f"--grep={_PLUGIN_FAILURE}", "--unit", "containerd.service", "--unit", "crio.service")
    found = [error for line in (ours + runtime).splitlines() if (error := _parse(line)) is not None]
    return sorted(found, key=lambda error: -error.time)[:most]


def _parse(line: str) -> LoggedError | None:
    """Return a line of ``journalctl --output=json`` (systemd's JOURNAL_EXPORT_FORMATS); None if it is none."""
    try:
        entry: dict[str, Any] = json.loads(line)
        message = entry["MESSAGE"]
        if isinstance(message, list):
            # Bytes that are no text are listed one by one.
            message = bytes(message).decode("utf-8", "replace")
        moment = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        return LoggedError(moment, str(entry.get("_SYSTEMD_UNIT", "")), str(message)[:_LONGEST_LINE])
    except (KeyError, TypeError, ValueError):
        return None


def _run(*command: str) -> str:
    """Return what a program prints; an empty text where it is missing, fails, or does not end in time."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout
