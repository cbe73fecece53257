# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A virtual machine that QEMU emulates: Debian's stock kernel on the host's own files, for one command.

setup/kernel_vm downloads kernel and QEMU. Three directories are shared with the guest by 9p: the host's root file
system and the kernel's modules for reading, and one for the command, its exit status and the files that it leaves.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROVIDER = HERE.parent / "setup/kernel_vm"

TIMED_OUT, FAILED, INTERRUPTED = 124, 125, 130
"""Exit statuses of the programs."""

KERNEL_OPTIONS = (
    *("console=ttyS0", "quiet", "loglevel=4", "panic=-1", "nokaslr"),
    # The emulated processors need no protection from each other, and the host's load must not look like a fault.
    *("mitigations=off", "no_timer_check", "tsc=reliable", "nowatchdog"),
)
PROCESSOR = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+fsgsbase"
"""QEMU's widest processor, "max", is half as fast: wireguard's AVX code is slow in emulation."""

EMULATION = ("-smp", "1", "-accel", "tcg,thread=single,tb-size=512")
CLOCK, HASTY_CLOCK = ("-icount", "shift=0"), ("-icount", "shift=0,sleep=off")
"""A processor for which an instruction takes 1 ns, however long the host takes for it: limits of time that hold on real
hosts hold in the machine, also when the host has other work. While the processor idles, its time is the host's; with
the hasty clock it goes to the next timer at once, also if the machine waits for a disk."""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    # Not below /run, over which tests mount; and short, because sockets' paths have 108 bytes.
    "TMPDIR": "/mnt",
    "VM_OUTPUT": "/run/vm/output",
}


class VirtualMachineError(Exception):
    """The virtual machine cannot be had, or has not run the command to its end; ``status`` for vm/vm's exit."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def run_in_machine(
    program: str,
    command: Sequence[str],
    *,
    memory: int = 2048,
    skips_idle: bool = False,
    timeout: float,
    output: Path | None = None,
) -> int:
    """Run the command as ``Machine.run`` does; return the exit status of the program that is named, with its message.

    The machine ends with the program, also at SIGTERM.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return Machine(memory=memory, skips_idle=skips_idle).run(command, timeout=timeout, output=output)
    except VirtualMachineError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED


class Machine:
    """A virtual machine that is started for each command."""

    def __init__(self, *, memory: int = 2048, skips_idle: bool = False) -> None:
        """``memory`` in MiB. With ``skips_idle``, its time passes at once while it has nothing to do."""
        self._memory = memory
        self._clock = HASTY_CLOCK if skips_idle else CLOCK

    def run(self, command: Sequence[str], *, timeout: float, output: Path | None = None) -> int:
        """Run the command in the current directory; return its exit status. What it prints is printed as it comes.

        ``timeout`` in seconds, with the boot. Files that it leaves in $VM_OUTPUT are copied to ``output``. Raises
        VirtualMachineError.
        """
        cache = find_cache()
        with tempfile.TemporaryDirectory(prefix="vm-") as name:
            exchange = Path(name)
            (exchange / "output").mkdir()
            init = exchange / "init"
            init.write_text(_init(command))
            init.chmod(0o755)
            try:
                self._emulate(cache, exchange, timeout)
                status = _read_status(exchange)
            finally:
                if output is not None:
                    shutil.copytree(exchange / "output", output, dirs_exist_ok=True)
        return status

    def _emulate(self, cache: Path, exchange: Path, timeout: float) -> None:
        """Run QEMU until the guest is powered off. Raises VirtualMachineError."""
        command = [*("nice", "-n", "10"), *self._qemu(cache, exchange)]
        # At the end of its standard input QEMU would close the port by which the guest prints.
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=qemu_environment(cache)) as process:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise VirtualMachineError(
                    f"the command did not end within {timeout:g} s, so the machine was stopped", TIMED_OUT
                ) from None
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
        if process.returncode:
            raise VirtualMachineError(f"QEMU ended with status {process.returncode}{end_of_console(exchange)}")

    def _qemu(self, cache: Path, exchange: Path) -> list[str]:
        return [
            *qemu(cache, root=Path("/"), exchange=exchange, memory=self._memory),
            *self._clock,
            *("-chardev", "stdio,id=output,signal=off"),
            *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=output,name=output"),
        ]


def find_cache() -> Path:
    """Return the directory that setup/kernel_vm fills. Raises VirtualMachineError if it cannot."""
    done = subprocess.run([PROVIDER], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise VirtualMachineError("there is neither a kernel nor QEMU to run; setup/kernel_vm says why")
    return Path(done.stdout.strip())


def qemu(
    cache: Path, *, root: Path, exchange: Path, memory: int, kernel_options: Sequence[str] = KERNEL_OPTIONS
) -> list[str]:
    """Return the command of a machine with ``memory`` MiB that boots the file system ``root``, which it only reads.

    Its process 1 is ``exchange``/init, its console ``exchange``/console. It ends when the guest is powered off or
    boots again.
    """
    programs = cache / "root"
    share = programs / "usr/share"
    return [
        str(programs / "usr/bin/qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-L", str(share / "qemu"), "-L", str(share / "seabios")),
        *("-M", "q35", "-cpu", PROCESSOR, *EMULATION, "-m", str(memory)),
        *("-kernel", str(cache / "vmlinux"), "-initrd", str(cache / "initramfs")),
        *("-append", " ".join(kernel_options)),
        *("-serial", f"file:{exchange}/console"),
        *shared_directory("root", root, "readonly=on"),
        *shared_directory("modules", cache / "modules", "readonly=on"),
        *shared_directory("exchange", exchange),
    ]


def qemu_environment(cache: Path) -> dict[str, str]:
    """Return the environment in which QEMU finds its libraries and modules in the cache."""
    root = cache / "root"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    return os.environ | {
        "LD_LIBRARY_PATH": f"{libraries}:{root}/lib/x86_64-linux-gnu",
        "QEMU_MODULE_DIR": str(libraries / "qemu"),
    }


def shared_directory(tag: str, directory: Path, *options: str) -> list[str]:
    """Return QEMU's options that give the guest this directory under this name."""
    # The host's file systems have inode numbers of their own: remap keeps two files from having one number.
    properties = ("local", f"id={tag}", f"path={directory}", "security_model=none", "multidevs=remap", *options)
    return ["-fsdev", ",".join(properties), "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _init(command: Sequence[str]) -> str:
    """Return the guest's init: guest_init.sh, with the command where that calls it."""
    variables = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in ENVIRONMENT.items())
    function = f"run_command() {{\ncd {shlex.quote(os.getcwd())} && exec {shlex.join(command)}\n}}\n"
    script = (HERE / "guest_init.sh").read_text()
    first, rest = script.split("\n", 1)
    return f"{first}\n{variables}{function}{rest}"


def _read_status(exchange: Path) -> int:
    try:
        return int((exchange / "status").read_text())
    except (FileNotFoundError, ValueError):
        raise VirtualMachineError(f"the machine ended before the command{end_of_console(exchange)}") from None


def end_of_console(exchange: Path) -> str:
    """Return the last lines of the guest's console, as the end of a message."""
    try:
        lines = (exchange / "console").read_text(errors="replace").splitlines()[-20:]
    except FileNotFoundError:
        return "; it has not reached its kernel"
    return "; its console's last lines:\n" + "\n".join(lines)
