# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kernel settings (sysctls): read them, write them, and keep them for the next boot in a file of /etc/sysctl.d.

A setting is named by its path below /proc/sys, as in ``net/ipv4/ip_forward``. Which settings are needed is up to the
callers: ``ovs.bridge_spec`` for the pod bridge, ``overlay.wireguard.interface`` for the overlay.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ..atomic_file import read_text
from ..errors import EvioError
from ..managed_file import FileChange, ManagedFile

_PROC_SYS = Path("/proc/sys")

_HOST_PROC_SYS = Path("/host/proc/sys")
"""Where a container has the host's, if it may write settings: in its own /proc/sys they are read-only."""

_IPV6_ROUTES = Path("/proc/net/ipv6_route")

_FORWARDING_IPV6 = "net/ipv6/conf/all/forwarding"

_RTF_ADDRCONF = 0x40000
"""Of linux/ipv6_route.h: the route came with a router advertisement."""

_HEADER = "# What pods need of this node's kernel. Written by the collection evio.cni; changes here do not last.\n"

_MODE = 0o644


class SysctlError(EvioError):
    """A setting cannot be read or written."""


def read_sysctls(names: Iterable[str]) -> dict[str, str]:
    """Return the values of these settings, without the settings that the kernel does not have. Raises SysctlError."""
    return {name: value.strip() for name in names if (value := _read_text(_PROC_SYS / name)) is not None}


def write_sysctls(wanted: Mapping[str, str], known: Mapping[str, str] | None = None) -> None:
    """Set the settings whose values differ. ``known`` has values that were just read. Raises SysctlError.

    Before a node begins to forward IPv6, the interfaces that use router advertisements are told to use them still.
    """
    wanted = {**router_advertisement_sysctls(wanted), **wanted}
    found = dict(known or {})
    found.update(read_sysctls(wanted.keys() - found.keys()))
    for name, value in wanted.items():
        if found.get(name) != value:
            try:
                _write(name, value)
            except OSError as error:
                raise SysctlError(f"cannot set {dotted(name)} to {value}: {error.strerror}") from error


def _write(name: str, value: str) -> None:
    try:
        (_PROC_SYS / name).write_text(value, encoding="ascii")
    except OSError as error:
        if error.errno != errno.EROFS or not (_HOST_PROC_SYS / name).exists():
            raise
        (_HOST_PROC_SYS / name).write_text(value, encoding="ascii")


def settings_file_change(path: str, wanted: Mapping[str, str]) -> FileChange:
    """Return the change that makes a file of sysctl.d keep these settings. Raises ManagedFileError.

    No settings wanted means no file wanted. A file for a node that forwards IPv6 also keeps the interfaces that use
    router advertisements using them: the file is read at boot before the first advertisement comes.
    """
    file = ManagedFile(path, mode=_MODE)
    if wanted:
        wanted = {**router_advertisement_sysctls(wanted, _kept_by(file.text or "")), **wanted}
    return file.change_to(_render(wanted) if wanted else None)


def router_advertisement_sysctls(wanted: Mapping[str, str], kept: Collection[str] = ()) -> dict[str, str]:
    """Return the settings with which interfaces use router advertisements although the node forwards IPv6.

    The kernel drops the default route and the addresses of such an interface when forwarding begins, unless accept_ra
    is 2 (Documentation/networking/ip-sysctl.rst). Only an interface that has a route of a router advertisement gets it,
    and no interface on which another program (accept_ra 0) processes them: on other interfaces, a pod could send some.
    ``kept`` has settings that were made before: they stay as long as the kernel has them. Raises SysctlError.
    """
    if wanted.get(_FORWARDING_IPV6) != "1":
        return {}
    routes = (_read_text(_IPV6_ROUTES) or "").splitlines()
    advertised = {
        f"net/ipv6/conf/{fields[9]}/accept_ra"
        for fields in map(str.split, routes)
        if len(fields) == 10 and _is_advertised(fields[8])
    }
    found = read_sysctls({*advertised, *kept})
    return {name: "2" for name, value in sorted(found.items()) if value == "2" or (value == "1" and name in advertised)}


def _is_advertised(flags: str) -> bool:
    return bool(int(flags, 16) & _RTF_ADDRCONF)


def _kept_by(text: str) -> set[str]:
    """Return the settings of router advertisements in the text of a settings file, by path below /proc/sys."""
    lines = (line.partition(" = ")[0] for line in text.splitlines())
    return {dotted(name) for name in lines if name.startswith("net.ipv6.conf.") and name.endswith(".accept_ra")}


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
