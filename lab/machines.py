"""Nodes that are virtual machines: each has a kernel of its own, Debian's, with Open vSwitch and WireGuard in it.

QEMU emulates them (vm/machine.py), so they need nothing of this machine's kernel but a tap device, and they are slow.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "vm"))

import network
import ssh
from commands import LabError, attempt, in_netns, run
from machine import (
    KERNEL_OPTIONS,
    VirtualMachineError,
    end_of_console,
    find_cache,
    qemu,
    qemu_environment,
    shared_directory,
)
from state import Lab, write_file
from topology import Node

BOOT_TIMEOUT = 300.0
"""Seconds from the start of QEMU until systemd says that all units are up. A quiet machine needs 20."""
SLOWNESS = {"ansible_timeout": 60, "evio_ovs_timeout": 120, "evio_overlay_timeout": 180, "evio_etcd_start_timeout": 180}
"""Variables of the inventory: seconds for what takes a real host a few."""

_MEMORY = 1280
"""MiB of each machine."""
_DISK_BYTES = 4 << 30
"""Size of a disk; this machine's disk holds what was written to it."""
_INIT = Path(__file__).with_name("machine_init.sh")
_OPTIONS = (
    *(option for option in KERNEL_OPTIONS if option != "tsc=reliable"),
    # On a busy machine the processor's own counter is measured wrongly at boot: a node's clock ran four times as fast.
    *("tsc=unstable", "clocksource=hpet"),
    # Without udev, systemd would wait for the device of the console before it lets somebody log in there.
    "systemd.getty_auto=0",
)
_SHUTDOWN = 120.0
"""Seconds for a machine to shut down."""


def prepare(lab: Lab, node: Node) -> Path:
    """Make the node's disk, and return the directory whose files are copied into its root file system at each boot."""
    files = lab.node(node.name) / "root"
    for directory, mode in ((files / "etc/ssh", 0o755), (files / "root", 0o700)):
        directory.mkdir(parents=True, mode=mode)
    with lab.disk(node.name).open("wb") as disk:
        disk.truncate(_DISK_BYTES)
    run("mkfs.ext4", "-q", "-F", str(lab.disk(node.name)))
    return files


def start(lab: Lab, node: Node, rootfs: Path) -> None:
    """Start the node's machine with this root file system, which it only reads. Raises LabError without QEMU."""
    directory = lab.node(node.name)
    variables = f"ADDRESS={shlex.quote(node.address)}\nGATEWAY={shlex.quote(node.gateway)}\n"
    first, rest = _INIT.read_text().split("\n", 1)
    write_file(directory / "init", f"{first}\n{variables}{rest}", mode=0o755)
    try:
        cache = find_cache()
    except VirtualMachineError as error:
        raise LabError(f"{node.name}: {error}") from error
    command = [
        *qemu(cache, root=rootfs, exchange=directory, memory=_MEMORY, kernel_options=_OPTIONS),
        *shared_directory("base", rootfs, "readonly=on"),
        # Nothing that the node writes need survive a power cut of this machine.
        *("-drive", f"file={lab.disk(node.name)},format=raw,if=virtio,cache=unsafe"),
        *("-netdev", f"tap,id=eth0,ifname={node.name},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=eth0,mac={_mac(node)}"),
    ]
    in_segment = in_netns(lab.netns(node.router or network.SEGMENT), command)
    write_file(_start_file(lab, node), json.dumps({"command": in_segment, "environment": qemu_environment(cache)}))
    _start_qemu(lab, node)


def reboot(lab: Lab, node: Node) -> None:
    """Let the node shut down, and start its machine again; it is cut off if it does not shut down in time."""
    attempt(*command(lab, node, ["systemctl", "--no-block", "reboot"]))
    # What is shared of the old connection must not wait for answers of the new machine.
    attempt(*_ssh(lab), "-O", "exit", node.name)
    deadline = time.monotonic() + _SHUTDOWN
    while (process := pid(lab, node)) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    if process is not None:
        os.kill(process, signal.SIGKILL)
    _start_qemu(lab, node)


def pid(lab: Lab, node: Node) -> int | None:
    """Return the process id of the node's QEMU; None if it does not run."""
    try:
        number, started = map(int, _pid_file(lab, node).read_text().split())
    except (FileNotFoundError, ValueError):
        return None
    return number if _start_time(number) == started else None


def check(lab: Lab, node: Node) -> None:
    """Raise LabError with the end of the node's console if its machine does not run."""
    if pid(lab, node) is None:
        directory = lab.node(node.name)
        log = (directory / "qemu.log").read_text(errors="replace").strip()
        raise LabError(f"{node.name}: its virtual machine has ended{end_of_console(directory)}\n{log}")


def command(lab: Lab, node: Node, argv: Iterable[str]) -> list[str]:
    """Return the command line that runs argv on the node, by ssh."""
    return [*_ssh(lab), node.name, "--", shlex.join(argv)]


@contextmanager
def forwarded_socket(lab: Lab, node: Node, path: str) -> Iterator[Path]:
    """Let a Unix socket of this machine lead to one of the node during the block; give its path. Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="lab-") as directory:
        socket = Path(directory, "socket")
        forward = [*_ssh(lab), "-o", "ControlPath=none", "-N", "-L", f"{socket}:{path}", node.name]
        with subprocess.Popen(forward, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                deadline = time.monotonic() + 60
                while not socket.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        process.terminate()
                        raise LabError(f"{node.name}: {path} cannot be reached by ssh: {process.communicate()[1]}")
                    time.sleep(0.05)
                yield socket
            finally:
                process.terminate()


def _start_qemu(lab: Lab, node: Node) -> None:
    start_file = json.loads(_start_file(lab, node).read_text())
    with (lab.node(node.name) / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            start_file["command"],
            env=start_file["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    write_file(_pid_file(lab, node), f"{process.pid} {_start_time(process.pid)}\n")


def _start_time(process: int) -> int | None:
    """Return when a process was started, in ticks since the boot (proc(5), stat); None if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # A process that nobody has waited for is a zombie.
    return int(fields[19]) if fields[0] not in "ZX" else None


def _ssh(lab: Lab) -> list[str]:
    return ["ssh", "-F", str(ssh.configuration(lab)), "-o", "BatchMode=yes"]


def _mac(node: Node) -> str:
    """Return an address of QEMU's range, other for each node of a segment."""
    last = int(node.host.rpartition(".")[2])
    return f"52:54:00:00:00:{last:02x}"


def _start_file(lab: Lab, node: Node) -> Path:
    return lab.node(f"{node.name}.qemu.json")


def _pid_file(lab: Lab, node: Node) -> Path:
    return lab.node(node.name) / "pid"
