# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which version of the programs a service runs: after an upgrade, services go on with the code that they have loaded.

A service of ours holds the directory of its version open as long as it runs (``installation.version_in_use``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ..systemd_units import SystemdError, main_processes
from .installation import version_pattern

SERVICES = ("evio-overlay.service", "evio-edgevpn-agent.service")
"""The services whose programs are ours and run long."""


def outdated_services(version: str, *, lib_dir: str, services: Sequence[str] = SERVICES) -> list[str]:
    """Return the services that run and were started with another version. Where no systemd is, none runs."""
    try:
        processes = main_processes(services)
    except SystemdError:
        return []
    return [name for name, process in processes.items() if held_version(process, lib_dir) != version]


def held_version(process: int, lib_dir: str) -> str | None:
    """Return the version that a process holds; None if it holds none, or has ended."""
    directory = f"/proc/{process}/fd"
    pattern = re.compile(rf"{re.escape(os.path.join(os.path.realpath(lib_dir), ''))}({version_pattern()})")
    try:
        descriptors = os.listdir(directory)
    except OSError:
        return None
    for descriptor in descriptors:
        try:
            found = pattern.fullmatch(os.readlink(f"{directory}/{descriptor}"))
        except OSError:
            continue
        if found:
            return found[1]
    return None
