# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kernel settings (sysctls): read them, write them, and keep them for the next boot in a file of /etc/sysctl.d.

A setting is named by its path below /proc/sys, as in ``net/ipv4/ip_forward``. Which settings are needed is up to the
callers: ``ovs.bridge_spec`` for the pod bridge, ``overlay.wireguard.interface`` for the overlay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..atomic_file import read_text
from ..errors import EvioError
from ..managed_file import FileChange, ManagedFile

_PROC_SYS = Path("/proc/sys")

_HEADER = "# What pods need of this node's kernel. Written by the collection evio.cni; changes here do not last.\n"

_MODE = 0o644


class SysctlError(EvioError):
    """A setting cannot be read or written."""


def read_sysctls(names: Iterable[str]) -> dict[str, str]:
    """Return the values of these settings, without the settings that the kernel does not have. Raises SysctlError."""
    return {name: value.strip() for name in names if (value := _read_text(_PROC_SYS / name)) is not None}


def write_sysctls(wanted: Mapping[str, str]) -> None:
    """Set the settings whose values differ. Raises SysctlError."""
    found = read_sysctls(wanted)
    for name, value in wanted.items():
        if found.get(name) != value:
            try:
                (_PROC_SYS / name).write_text(value, encoding="ascii")
            except OSError as error:
                raise SysctlError(f"cannot set {dotted(name)} to {value}: {error.strerror}") from error


def settings_file_change(path: str, wanted: Mapping[str, str]) -> FileChange:
    """Return the change that makes a file of sysctl.d keep these settings. Raises ManagedFileError.

    No settings wanted means no file wanted.
    """
    return ManagedFile(path, mode=_MODE).change_to(_render(wanted) if wanted else None)


def dotted(name: str) -> str:
    """Return a setting's name as sysctl(8) prints it: slashes and dots exchanged."""
    return name.translate(str.maketrans("/.", "./"))


def _render(wanted: Mapping[str, str]) -> str:
    return _HEADER + "".join(f"{dotted(name)} = {value}\n" for name, value in sorted(wanted.items()))


def _read_text(path: Path) -> str | None:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SysctlError(f"cannot read {path}: {error}") from error
