# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Network namespaces and real Open vSwitch daemons for tests. Everything is removed at the end of its context."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.kernel.netns import setns

from . import paused_process

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"

DATAPATH = os.environ.get("EVIO_TEST_DATAPATH", "netdev")
"""The datapath type of the tests' bridges; the kernel's own, ``system``, where vm/test_kernel runs them."""

PATIENCE = float(os.environ.get("EVIO_TEST_PATIENCE", "1"))
"""Times by which tests wait longer than on real processors, before they call something dead."""

OTHER_DATAPATH = "netdev" if DATAPATH == "system" else "system"

needs_system = pytest.mark.skipif(DATAPATH != "system", reason="a property of the datapath system")
needs_netdev = pytest.mark.skipif(DATAPATH != "netdev", reason="a property of the datapath netdev")


@contextlib.contextmanager
def network_namespace(prefix: str) -> Iterator[str]:
    """Create a network namespace with its loopback up, yield its name (a file in /run/netns), and delete it."""
    name = f"{prefix}{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def in_namespace(name: str, *command: str, check: bool = True, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a command in a network namespace, with the caller's mounts and processes."""
    return subprocess.run(
        ["nsenter", f"--net=/run/netns/{name}", *command],
        check=check,
        capture_output=True,
        text=True,
        timeout=timeout * PATIENCE,
    )


@contextlib.contextmanager
def inside_namespace(name: str) -> Iterator[None]:
    """Move the calling thread into a network namespace; its sockets and the programs that it starts are there."""
    with (
        open("/proc/thread-self/ns/net", "rb", 0) as own,
        Path("/run/netns", name).open("rb", 0) as other,
    ):
        setns(other.fileno())
        try:
            yield
        finally:
            setns(own.fileno())


class OpenVSwitch:
    """ovsdb-server and ovs-vswitchd in a network namespace, with their own database in ``directory``.

    ``netns`` is the name of the namespace, or a path as in ``/proc/PID/ns/net``. ``tso`` sets userspace TSO.
    """

    def __init__(self, netns: str, directory: Path, *, tso: bool = False) -> None:
        self.netns = netns
        self.directory = directory
        self.ovsdb = f"unix:{directory}/db.sock"
        self._tso = tso
        self._server: subprocess.Popen[bytes] | None = None
        self._switch: subprocess.Popen[bytes] | None = None

    def start(self) -> OpenVSwitch:
        self.start_server()
        self.start_vswitchd()
        return self

    def start_server(self) -> None:
        database = self.directory / "conf.db"
        if not database.exists():
            subprocess.run(["ovsdb-tool", "create", str(database), SCHEMA], check=True)
        self._server = self._spawn(
            "ovsdb-server",
            str(database),
            f"--remote=p{self.ovsdb}",
            f"--unixctl={self.directory}/ovsdb.ctl",
        )
        self._await_listener(self.directory / "db.sock", self._server)
        self.vsctl("--no-wait", "init")
        if self._tso:
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")

    def start_vswitchd(self) -> None:
        self._switch = self._spawn(
            "ovs-vswitchd",
            self.ovsdb,
            f"--pidfile={self.directory}/ovs-vswitchd.pid",
            f"--unixctl={self.directory}/vswitchd.ctl",
        )
        self._await_listener(self.directory / "vswitchd.ctl", self._switch)

    def stop(self) -> None:
        """Kill both daemons. Their devices stay until the namespace is deleted, as when a host stops the services."""
        self.kill_vswitchd()
        self.kill_server()

    def kill_vswitchd(self) -> None:
        self._switch = _kill(self._switch)
        (self.directory / "vswitchd.ctl").unlink(missing_ok=True)

    @contextlib.contextmanager
    def paused_vswitchd(self) -> Iterator[None]:
        """Pause vswitchd during the block; its devices stay."""
        if self._switch is None:
            raise RuntimeError("vswitchd does not run")
        paused_process.pause(self._switch)
        try:
            yield
        finally:
            paused_process.resume(self._switch)

    def resume_vswitchd(self) -> None:
        """Let a paused vswitchd go on before the end of its block."""
        if self._switch is not None:
            paused_process.resume(self._switch)

    def kill_server(self) -> None:
        self._server = _kill(self._server)
        (self.directory / "db.sock").unlink(missing_ok=True)

    def empty_database(self) -> None:
        """Delete the database; the server must be stopped."""
        (self.directory / "conf.db").unlink()

    def vsctl(self, *arguments: str) -> str:
        command = ["ovs-vsctl", f"--db={self.ovsdb}", f"--timeout={10 * PATIENCE:.0f}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=15 * PATIENCE).stdout.strip()

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        directories = ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR")
        environment = {**os.environ, **dict.fromkeys(directories, str(self.directory))}
        with (self.directory / "daemons.log").open("ab") as log:
            return subprocess.Popen(
                ["nsenter", f"--net={Path('/run/netns', self.netns)}", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    @staticmethod
    def _await_listener(path: Path, process: subprocess.Popen[bytes]) -> None:
        """Wait until the daemon accepts connections: its socket's file is there a moment before it listens."""
        deadline = time.monotonic() + 10 * PATIENCE
        while True:
            with (
                socket.socket(socket.AF_UNIX) as client,
                contextlib.suppress(FileNotFoundError, ConnectionRefusedError),
            ):
                client.connect(str(path))
                return
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nothing listens at {path}, see {path.parent}/daemons.log")
            time.sleep(0.01)


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait(timeout=10)
