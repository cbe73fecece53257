#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measure the CPU of one real agent, as a node and as a relay of a large overlay: idle, and with pairs in use.

The agent is the program of build/bin in a network namespace. It finds evio0 as usual; a stand-in for wireguard-go has
made it: a TUN device and WireGuard's control socket, behind which all other nodes of the overlay live in one process,
with their real path selection and messages (tests/unit/overlay_network.py). So the agent meets a thousand nodes, and
wg(8) a thousand peers; packets are not encrypted. CPU is that of the agent and of the programs that it runs, in percent
of a core; what wireguard-go takes is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))

from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import (
    PROBE_PORT,
    OverlayConfig,
    PodRoutes,
    probe_address,
    render_overlay,
    render_pod_routes,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import create_key
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.messages import Message, encode
from ansible_collections.evio.cni.tests.integration.overlay_lab import PROGRAM, Namespace
from ansible_collections.evio.cni.tests.unit.overlay_network import Network

RELAYS = 2
INTERFACE = "evio0"
WARM_UP = 90.0
"""Seconds before the measurement: the first minute has checks that come once."""

TRAFFIC_INTERVAL = 1.0
"""Seconds between two packets of a pair in use."""

SLICE = 0.05
"""Seconds of the other nodes' time between two looks at what the agent asks, on a machine that is too slow for them."""

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x1, 0x1000
"""linux/if_tun.h"""


class Surroundings(Network):
    """All nodes of an overlay but one, whose packets come and go by a TUN device."""

    def __init__(self, nodes: int, outside: int, tun: int) -> None:
        """``outside`` is the number of the node that is missing here; the others know it and the relays."""
        super().__init__(
            RELAYS,
            nodes - RELAYS,
            knows=lambda index, other: min(index, other) < RELAYS or outside in (index, other),
            starts=False,
        )
        self._tun = tun
        self._outside = self.peers[outside].address
        self._by_probe = {probe_address(peer.address): peer.address for peer in self.peers}
        self.now = time.monotonic()
        for index in range(nodes):
            if index != outside:
                # The relays of a real cluster are not polled by all nodes at the same moment either.
                self.start(index, phase=self.random.random() * 10)

    def read(self) -> None:
        """Take the packets that the agent and its node have sent."""
        while True:
            try:
                packet = os.read(self._tun, 65536)
            except BlockingIOError:
                return
            is_udp = len(packet) >= 28 and packet[0] == 0x45 and packet[9] == socket.IPPROTO_UDP
            target = self._by_probe.get(socket.inet_ntoa(packet[16:20])) if is_udp else None
            if target is not None:
                self._arrive(self._outside, target, packet[28:])

    def _send(self, source: str, target: str, message: Message, size: int) -> None:
        if target != self._outside:
            super()._send(source, target, message, size)
            return
        data = encode(message, size)
        udp = struct.pack("!4H", PROBE_PORT, PROBE_PORT, 8 + len(data), 0)
        ends = [socket.inet_aton(probe_address(address)) for address in (source, target)]
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(data), 0, 0, 64, socket.IPPROTO_UDP, 0, *ends)
        words = struct.unpack("!10H", header)
        checksum = sum(words)
        checksum = ~((checksum & 0xFFFF) + (checksum >> 16)) & 0xFFFF
        # The agent has not set the interface up yet.
        with contextlib.suppress(OSError):
            os.write(self._tun, header[:10] + struct.pack("!H", checksum) + header[12:] + udp + data)

    def _passes(self, source: str, target: str) -> bool:
        return self._outside in (source, target) or super()._passes(source, target)

    def _knows(self, node: str, other: str) -> bool:
        return node == self._outside or super()._knows(node, other)


class Device:
    """What wg(8) sees of wireguard-go: its control socket (https://www.wireguard.com/xplatform/)."""

    def __init__(self) -> None:
        self._own: dict[str, str] = {}
        self._peers: dict[str, list[str]] = {}
        self._endpoints: dict[str, str] = {}
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        """Holds the port on which wireguard-go would listen: the agent looks whether it is open."""
        path = f"/var/run/wireguard/{INTERFACE}.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(path)
        self.socket.listen(8)

    def serve(self) -> None:
        """Answer one connection."""
        connection, _address = self.socket.accept()
        with connection:
            request = b""
            while not request.endswith(b"\n\n"):
                received = connection.recv(65536)
                if not received:
                    # Agent and wg(8) also connect only to learn whether somebody answers.
                    return
                request += received
            verb, *lines = request.decode("ascii").split()
            if verb == "set=1":
                self._set(lines)
            answer = [*(self._lines() if verb == "get=1" else []), "errno=0", "\n"]
            connection.sendall("\n".join(answer).encode("ascii"))

    def _lines(self) -> Iterator[str]:
        yield from (f"{key}={value}" for key, value in self._own.items())
        for key, allowed_ips in self._peers.items():
            yield f"public_key={key}"
            if key in self._endpoints:
                yield f"endpoint={self._endpoints[key]}"
            yield f"last_handshake_time_sec={int(time.time()) - 60}"
            yield "last_handshake_time_nsec=0"
            yield from (f"allowed_ip={prefix}" for prefix in allowed_ips)

    def _set(self, request: list[str]) -> None:
        key = ""
        for name, _equals, value in (line.partition("=") for line in request):
            if name == "public_key":
                key = value
                self._peers.setdefault(key, [])
            elif not key:
                self._own[name] = value
                if name == "listen_port":
                    self._udp.close()
                    self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    self._udp.bind(("0.0.0.0", int(value)))
            elif name == "remove":
                self._peers.pop(key, None)
            elif name == "replace_allowed_ips":
                self._peers.setdefault(key, []).clear()
            elif name == "allowed_ip":
                for prefixes in self._peers.values():
                    if value in prefixes:
                        prefixes.remove(value)
                self._peers.setdefault(key, []).append(value)
            elif name == "endpoint":
                self._endpoints[key] = value


def surround(nodes: int, outside: int) -> None:
    """Be all nodes but one, until the process is ended."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), _IFF_TUN | _IFF_NO_PI))
    device, network = Device(), Surroundings(nodes, outside, tun)
    print("ready", flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(device.socket, selectors.EVENT_READ, device.serve)
        selector.register(tun, selectors.EVENT_READ, network.read)
        while True:
            for key, _mask in selector.select(0.0 if network.now < time.monotonic() - SLICE else 0.02):
                key.data()
            network.run(min(SLICE, max(0.0, time.monotonic() - network.now)))


def send_packets(nodes: int, outside: int, pairs: int) -> None:
    """Send a packet to each of so many nodes all the time, until the process is ended."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peers = [peer for index, peer in enumerate(Network(RELAYS, nodes - RELAYS, starts=False).peers) if index != outside]
    while True:
        for peer in peers[RELAYS : RELAYS + pairs]:
            # The interface is not up yet.
            with contextlib.suppress(OSError):
                sender.sendto(b"\0" * 64, (peer.address, 9))
        time.sleep(TRAFFIC_INTERVAL)


def measure(nodes: int, outside: int, pairs: int, seconds: float) -> float:
    """Return the CPU in percent that the agent of the node with this number takes."""
    with tempfile.TemporaryDirectory(prefix="evio-agent-bench-") as name, _namespace() as namespace:
        directory = Path(name)
        _write_files(directory, nodes, outside)
        with _running(namespace, "--surround", nodes, outside) as surroundings:
            assert surroundings.stdout is not None
            assert surroundings.stdout.readline() == "ready\n"
            options = [f"--{option}={directory / file}" for option, file in _FILES.items()]
            command = namespace.command(str(PROGRAM), "overlay", *options, "run")
            with (directory / "log").open("wb") as log:
                agent = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                with _running(namespace, "--send", nodes, outside, pairs):
                    time.sleep(WARM_UP)
                    before, start = _cpu_seconds(agent.pid), time.monotonic()
                    time.sleep(seconds)
                    cpu = 100 * (_cpu_seconds(agent.pid) - before) / (time.monotonic() - start)
                _check(directory, nodes, outside, pairs)
            finally:
                agent.kill()
                agent.wait()
    return cpu


_FILES = {
    "config": "overlay.json",
    "pod-routes": "pod-routes.json",
    "key": "wireguard.key",
    "state": "state.json",
}


def _write_files(directory: Path, nodes: int, outside: int) -> None:
    network = Network(RELAYS, nodes - RELAYS, starts=False)
    own = network.peers[outside]
    config = OverlayConfig(
        node=own.name,
        address=own.address,
        host_cidr="10.10.0.0/16",
        public_key=create_key(str(directory / _FILES["key"])),
        endpoint=own.endpoint,
        peers=tuple(peer for peer in network.peers if peer is not own),
    )
    routes = PodRoutes(network.routes.pod_cidrs, network.routes.subnets)
    (directory / _FILES["config"]).write_text(render_overlay(config))
    (directory / _FILES["pod-routes"]).write_text(render_pod_routes(routes))


def _check(directory: Path, nodes: int, outside: int, pairs: int) -> None:
    """Raise AssertionError unless the agent has the direct paths that it must have: the figure would say nothing."""
    from ansible_collections.evio.cni.plugins.module_utils.overlay.state import DIRECT, read_state

    state = read_state(str(directory / _FILES["state"]))
    log = (directory / "log").read_text()
    assert state is not None, log
    assert state.fault is None, state.fault
    direct = sum(peer.path == DIRECT for peer in state.peers)
    wanted = nodes - 1 if outside < RELAYS else RELAYS + pairs
    assert direct == wanted, f"{direct} direct paths, not {wanted}\n{log}"


def _cpu_seconds(pid: int) -> float:
    """Return the CPU of a process in s, and that of the processes that it has waited for (proc(5), to 10 ms)."""
    own = sum(int((task / "schedstat").read_text().split()[0]) / 1e9 for task in Path(f"/proc/{pid}/task").iterdir())
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _namespace() -> Iterator[Namespace]:
    namespace = Namespace()
    try:
        namespace.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        namespace.run("mkdir", "/run/wireguard")
        yield namespace
    finally:
        namespace.close()


@contextmanager
def _running(namespace: Namespace, option: str, *numbers: int) -> Iterator[subprocess.Popen[str]]:
    """Run this program in the namespace meanwhile, for another of its tasks."""
    command = namespace.command(sys.executable, __file__, option, *map(str, numbers))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000], help="nodes, 2 relays among them")
    parser.add_argument("--pairs", type=int, nargs="+", default=[0, 10], help="pairs in use at the node")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--surround", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--send", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.surround:
        surround(*arguments.surround)
    if arguments.send:
        send_packets(*arguments.send)
    print("nodes  agent of  in use at it  CPU")
    for nodes in arguments.sizes:
        for role, outside, pairs in [("relay", 0, 0), *(("node", RELAYS, pairs) for pairs in arguments.pairs)]:
            cpu = measure(nodes, outside, pairs, arguments.seconds)
            print(f"{nodes:5}  {role:8}  {f'{pairs} pairs' if pairs else 'nothing':12}  {cpu:.3f} %", flush=True)


if __name__ == "__main__":
    main()
