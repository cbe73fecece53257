# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kernel settings by their path below /proc/sys: read, written, and kept for the next boot in a file of sysctl.d.

Which settings a pod bridge needs is bridge_spec's subject.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..atomic_file import write_atomic
from ..differences import Differences
from ..errors import EvioError

_PROC_SYS = Path("/proc/sys")
_HEADER = "# What pods need of this node's kernel. Written by the collection evio.cni; changes here do not last.\n"
_MODE = 0o644


class SysctlError(EvioError):
    """The kernel has no such setting, or does not let it be changed."""


def read_sysctls(names: Iterable[str]) -> dict[str, str]:
    """The values of those settings that the kernel has; names as in ``net/ipv4/ip_forward``."""
    return {name: value for name in names if (value := _read(name)) is not None}


def write_sysctls(wanted: Mapping[str, str]) -> None:
    """Set those that differ. Raises SysctlError."""
    found = read_sysctls(wanted)
    for name, value in wanted.items():
        if found.get(name) != value:
            try:
                (_PROC_SYS / name).write_text(value, encoding="ascii")
            except OSError as error:
                raise SysctlError(f"cannot set {dotted(name)} to {value}: {error.strerror}") from error


def compare_file(path: str, wanted: Mapping[str, str]) -> Differences:
    """How the file of sysctl.d differs from one that keeps these settings; nothing wanted is no file."""
    differences = Differences()
    differences.compare(path, _render(wanted) if wanted else None, _read_text(Path(path)))
    return differences


def ensure_file(path: str, wanted: Mapping[str, str]) -> Differences:
    """Make the file keep these settings, and return what differed before. Raises SysctlError."""
    differences = compare_file(path, wanted)
    if differences.changed:
        try:
            if wanted:
                write_atomic(path, _render(wanted), mode=_MODE)
            else:
                Path(path).unlink(missing_ok=True)
        except OSError as error:
            raise SysctlError(f"cannot write {path}: {error.strerror}") from error
    return differences


def dotted(name: str) -> str:
    """As sysctl(8) prints it: dots between the parts, and slashes for dots within one."""
    return name.translate(str.maketrans("/.", "./"))


def _render(wanted: Mapping[str, str]) -> str:
    return _HEADER + "".join(f"{dotted(name)} = {value}\n" for name, value in sorted(wanted.items()))


def _read(name: str) -> str | None:
    text = _read_text(_PROC_SYS / name)
    return text.strip() if text is not None else None


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SysctlError(f"cannot read {path}: {error}") from error
