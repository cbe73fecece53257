# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EdgeVPN.io's tunnels on this node: their TAP devices, the processes that feed them, and taking them down.

Each tunnel is a process of its own (``tincan``) with one TAP. Their names are naming's subject.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...kernel.links import IFF_UP, LinkSocket
from ...ovs.bridge import unplug_ports

_INTERFACES = Path("/sys/class/net")
_TUN_DEVICE = "/dev/net/tun"
_TUN_NAME = "iff:"
"""Begins the line of /proc/PID/fdinfo/FD that has the name of the TAP device (tun_chr_show_fdinfo of the kernel)."""

_END_SECONDS = 3.0
"""Seconds that a tunnel's process has to end by itself."""

_POLL_SECONDS = 0.05


def carried_taps(prefixes: Iterable[str]) -> list[str]:
    """Return the TAP devices whose names begin with a prefix, which are up, and which a process feeds."""
    starts = tuple(prefixes)
    return sorted(
        entry.name for entry in _INTERFACES.iterdir() if starts and entry.name.startswith(starts) and _is_carried(entry)
    )


def feeders(taps: Iterable[str]) -> dict[int, set[str]]:
    """Return the processes of this network namespace that feed one of the TAP devices, with all that each feeds."""
    wanted = set(taps)
    fed = {pid: _fed_by(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))}
    own = _namespace("self")
    return {pid: names for pid, names in fed.items() if names & wanted and _namespace(str(pid)) == own}


def remove_tunnels(names: Iterable[str], *, ovsdb: str, timeout: float = 10.0, dry_run: bool = False) -> list[str]:
    """Unplug the ports of these names, delete the TAP devices, and end the processes that feed them.

    A TAP whose port is unplugged stays up, and this node routes what the tunnel brings. A process that feeds another
    TAP as well is left alone. Return the names of which there was a port or a device. ``timeout`` in seconds. Raises
    OvsdbError and NetlinkError.
    """
    wanted = set(names)
    found = set(unplug_ports(wanted, ovsdb=ovsdb, timeout=timeout, dry_run=dry_run))
    devices = {name for name in wanted if (_INTERFACES / name).exists()}
    if devices and not dry_run:
        ending = [pid for pid, fed in feeders(devices).items() if fed <= wanted]
        with LinkSocket() as kernel:
            # First the device: the cut does not wait for the process.
            for name in devices:
                kernel.delete_link(name)
        _end(ending)
    return sorted(found | devices)


def _is_carried(interface: Path) -> bool:
    """Return whether the device is up and has a carrier: a TAP has one for as long as a process has it open."""
    try:
        is_up = int((interface / "flags").read_text(), 16) & IFF_UP
        return bool(is_up) and (interface / "carrier").read_text().strip() == "1"
    except (OSError, ValueError):
        return False


def _fed_by(pid: int) -> set[str]:
    """Return the TAP devices that a process has open."""
    names: set[str] = set()
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}") == _TUN_DEVICE:
                    lines = Path(f"/proc/{pid}/fdinfo/{number}").read_text().splitlines()
                    names |= {line.removeprefix(_TUN_NAME).strip() for line in lines if line.startswith(_TUN_NAME)}
    return names


def _namespace(process: str) -> str | None:
    try:
        return os.readlink(f"/proc/{process}/ns/net")
    except OSError:
        return None


def _end(pids: Iterable[int]) -> None:
    """End processes: by SIGTERM, and after _END_SECONDS by SIGKILL."""
    started: Mapping[int, int] = {pid: os.pidfd_open(pid) for pid in pids if Path(f"/proc/{pid}").exists()}
    try:
        _signal(started.values(), signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        _signal(started.values(), signal.SIGKILL)
    finally:
        for descriptor in started.values():
            os.close(descriptor)


def _signal(descriptors: Iterable[int], number: signal.Signals) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
