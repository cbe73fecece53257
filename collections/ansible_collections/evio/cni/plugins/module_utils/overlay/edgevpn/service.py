# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EdgeVPN.io's service as it runs: the controller's process, its sessions on the signalling server, and restarting it.

The controller tells nobody that it has lost its sessions, so they are counted in the kernel.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import EvioError

UNIT = "evio.service"

_ESTABLISHED = 1
"""TCP_ESTABLISHED of the kernel's include/net/tcp_states.h, as in /proc/net/tcp."""

_CGROUP_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
"""Where the tree is in which systemd keeps a service's processes: cgroup v2, the mixed layout, cgroup v1."""

_SYSTEMCTL_SECONDS = 90.0
"""A stop takes up to 20 s, before systemd kills what does not end."""

_CONNECT_SECONDS = 3.0


class EdgeVpnServiceError(EvioError):
    """The service cannot be asked or restarted."""


@dataclass(frozen=True)
class ServiceState:
    """What systemd says of the service."""

    main_pid: int
    """Process id of the controller; 0 if it does not run."""
    control_group: str
    started: float
    """When the service became active, in seconds of the monotonic clock; 0 if it has not."""


def service_state() -> ServiceState:
    """Ask systemd for the service. Raises EdgeVpnServiceError."""
    properties = "MainPID,ControlGroup,ActiveEnterTimestampMonotonic"
    lines = _systemctl("show", f"--property={properties}", UNIT).splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    try:
        return ServiceState(
            int(found.get("MainPID", "0")),
            found.get("ControlGroup", ""),
            int(found.get("ActiveEnterTimestampMonotonic") or "0") / 1e6,
        )
    except ValueError as error:
        raise EdgeVpnServiceError(f"systemctl show {UNIT}: {error}") from error


def restart_service() -> None:
    """Restart the service, and wait until systemd has. Raises EdgeVpnServiceError."""
    # A run that was killed may have left a drop-in that systemd has not read.
    _systemctl("daemon-reload")
    _systemctl("restart", UNIT)


def count_sessions(state: ServiceState, ports: Iterable[int]) -> int:
    """Return how many TCP connections the service's processes have to these ports of other hosts or of this one."""
    pids = _processes(state)
    if not pids:
        return 0
    inodes = _sockets_of(pids)
    connections = [*_connections("/proc/net/tcp", set(ports)), *_connections("/proc/net/tcp6", set(ports))]
    return sum(inode in inodes for inode in connections)


def is_answering(host: str, port: int) -> bool:
    """Return whether the signalling server accepts a connection."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_SECONDS):
            return True
    except (OSError, UnicodeError):
        return False


def _processes(state: ServiceState) -> list[int]:
    for root in _CGROUP_ROOTS if state.control_group else ():
        with contextlib.suppress(OSError, ValueError):
            pids = [int(line) for line in Path(f"{root}{state.control_group}/cgroup.procs").read_text().split()]
            if pids:
                return pids
    return [state.main_pid] if state.main_pid else []


def _sockets_of(pids: Iterable[int]) -> set[int]:
    """Return the inodes of the sockets that the processes have open."""
    inodes: set[int] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{number}"))
                    inodes |= {int(found[1])} if found else set()
    return inodes


def _connections(path: str, ports: set[int]) -> list[int]:
    """Return the inodes of established connections to the remote ports (proc(5))."""
    try:
        lines = Path(path).read_text().splitlines()[1:]
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [
        int(row[9]) for row in fields if int(row[3], 16) == _ESTABLISHED and int(row[2].rpartition(":")[2], 16) in ports
    ]


def _systemctl(*arguments: str) -> str:
    command = ["systemctl", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SYSTEMCTL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeVpnServiceError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise EdgeVpnServiceError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
