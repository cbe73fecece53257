# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EdgeVPN.io's tunnels on this node: their TAP devices, the processes that feed them, and taking them down.

Each tunnel is a process of its own (``tincan``) with one TAP. Their names are naming's subject.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...kernel.links import LinkSocket
from ...ovs.bridge import unplug_ports
from ...ovs.jsonrpc import OvsdbClient, uuids

_SIOCGIFFLAGS = 0x8913
"""linux/sockios.h"""
_CARRIED = 0x1 | 0x40
"""IFF_UP and IFF_RUNNING of linux/if.h. A TAP device runs for as long as a process has it open."""
_TUN_DEVICE = "/dev/net/tun"
_TUN_NAME = "iff:"
"""Begins the line of /proc/PID/fdinfo/FD that has the name of the TAP device (tun_chr_show_fdinfo of the kernel)."""

_END_SECONDS = 3.0
"""Seconds that a tunnel's process has to end by itself."""

_POLL_SECONDS = 0.05


def carried_taps(bridges: Iterable[str], *, ovsdb: str) -> set[str]:
    """Return the TAP devices that are ports of the bridges, are up, and are fed by a process. Raises OvsdbError.

    EdgeVPN.io plugs a TAP in when both ends of its tunnel have found each other.
    """
    wanted = sorted(bridges)
    with OvsdbClient(ovsdb) as client:
        answer = client.transact(
            *(
                {"op": "select", "table": "Bridge", "where": [["name", "==", name]], "columns": ["ports"]}
                for name in wanted
            ),
            {"op": "select", "table": "Port", "where": [], "columns": ["_uuid", "name"]},
        )
    ports = {uuid for bridge in answer[:-1] for row in bridge["rows"] for uuid in uuids(row["ports"])}
    names = [row["name"] for row in answer[-1]["rows"] if row["_uuid"][1] in ports]
    return {name for name in names if (_flags(name) or 0) & _CARRIED == _CARRIED}


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
    devices = {name for name in wanted if _flags(name) is not None}
    if devices and not dry_run:
        ending = [pid for pid, fed in feeders(devices).items() if fed <= wanted]
        with LinkSocket() as kernel:
            # First the device: the cut does not wait for the process.
            for name in devices:
                kernel.delete_link(name)
        _end(ending)
    return sorted(found | devices)


def _flags(name: str) -> int | None:
    """Return the flags of a network device; None if there is none of this name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
        except OSError:
            return None
    return int(struct.unpack_from("16xH", answer)[0])


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
