# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real etcd members for tests, with data in a directory of the test, alone or as a cluster.

They listen on free ports of the loopback, or in another network namespace; with mutual TLS unless a test says no.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.evio.cni.plugins.module_utils.etcd.access import Access, EtcdError
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd, Get
from ansible_collections.evio.cni.plugins.module_utils.pki import issue

from . import paused_process


class EtcdServer:
    """One member. It keeps its data: ``start`` after ``stop`` or ``kill`` continues with them."""

    def __init__(
        self,
        directory: Path,
        *,
        quota_bytes: int | None = None,
        tls: bool = True,
        name: str = "member",
        place: tuple[str, str] | None = None,
    ) -> None:
        """``place`` is a network namespace's name, and the member's address there; None for the tests' loopback."""
        self.directory = directory
        self._netns, address = place or (None, "127.0.0.1")
        self.client_port, self.peer_port = (2379, 2380) if place else (free_port(), free_port())
        self.tls = tls
        self._scheme = "https" if tls else "http"
        self.url = f"{self._scheme}://{address}:{self.client_port}"
        self.name = name
        self.peer_url = f"{self._scheme}://{address}:{self.peer_port}"
        self.members = f"{name}={self.peer_url}"
        self._quota = quota_bytes
        self._process: subprocess.Popen[bytes] | None = None
        issue(str(directory / "pki"), "member", ["127.0.0.1"])

    @property
    def access(self) -> Access:
        """How clients reach this member."""
        if not self.tls:
            return Access(endpoints=(self.url,), timeout=3.0)
        pki = self.directory / "pki"
        return Access(
            endpoints=(self.url,),
            ca_cert=str(pki / "etcd/ca.crt"),
            client_cert=str(pki / "apiserver-etcd-client.crt"),
            client_key=str(pki / "apiserver-etcd-client.key"),
            timeout=3.0,
        )

    def start(self) -> EtcdServer:
        """Start the process, and wait until the member answers."""
        self.launch()
        self.await_answer()
        return self

    def launch(self) -> None:
        """Start the process. A member of a cluster answers only when a majority of the members runs."""
        arguments = {
            "name": self.name,
            "data-dir": str(self.directory / "data"),
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": self.members,
            **(self._certificates() if self.tls else {}),
        }
        if self._quota is not None:
            arguments["quota-backend-bytes"] = str(self._quota)
        command = ["etcd", *(f"--{name}={value}" for name, value in arguments.items())]
        if self._netns is not None:
            command = ["nsenter", f"--net=/run/netns/{self._netns}", *command]
        with (self.directory / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)

    def _certificates(self) -> dict[str, str]:
        pki = self.directory / "pki/etcd"
        return {
            "client-cert-auth": "true",
            "trusted-ca-file": str(pki / "ca.crt"),
            "cert-file": str(pki / "server.crt"),
            "key-file": str(pki / "server.key"),
            "peer-client-cert-auth": "true",
            "peer-trusted-ca-file": str(pki / "ca.crt"),
            "peer-cert-file": str(pki / "peer.crt"),
            "peer-key-file": str(pki / "peer.key"),
        }

    def stop(self) -> None:
        """End the process with SIGTERM."""
        if self._process is not None:
            self._process.terminate()
            self._reap()

    def kill(self) -> None:
        """End the process with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def pause(self) -> None:
        """Stop the process with SIGSTOP: requests wait in its sockets until ``resume``."""
        if self._process is not None:
            paused_process.pause(self._process)

    def resume(self) -> None:
        """Continue the process after ``pause``."""
        if self._process is not None:
            paused_process.resume(self._process)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(timeout=10)
            self._process = None

    def await_answer(self) -> None:
        """Wait until the member answers; raise EtcdError after 20 s."""
        deadline = time.monotonic() + 20
        while True:
            try:
                with Etcd(self.access) as etcd:
                    etcd.txn([], [Get("ready")])
                return
            except EtcdError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


class EtcdCluster:
    """Several members without TLS. A test may kill any of them and start it again."""

    def __init__(self, directory: Path, places: Sequence[tuple[str, str] | None]) -> None:
        """Make a member for each of the places (see EtcdServer)."""
        self.members = [
            self._member(directory / f"member{number}", f"member{number}", place) for number, place in enumerate(places)
        ]
        for member in self.members:
            member.members = ",".join(f"{other.name}={other.peer_url}" for other in self.members)

    @property
    def access(self) -> Access:
        """How clients reach all members."""
        return Access(endpoints=tuple(member.url for member in self.members), timeout=3.0)

    def launch(self) -> EtcdCluster:
        """Start all processes."""
        for member in self.members:
            member.launch()
        return self

    def start(self) -> EtcdCluster:
        """Start all processes, and wait until every member answers."""
        self.launch()
        for member in self.members:
            member.await_answer()
        return self

    def stop(self) -> None:
        """Kill all processes."""
        for member in self.members:
            member.kill()

    @staticmethod
    def _member(directory: Path, name: str, place: tuple[str, str] | None) -> EtcdServer:
        directory.mkdir()
        return EtcdServer(directory, tls=False, name=name, place=place)


def free_port() -> int:
    """Return a TCP port of the loopback that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
