"""A stand-in for one of EdgeVPN.io's tunnels: a process with one TAP device, which carries its frames in UDP.

Like the real one it is a process of its own, asks a STUN server for its address, takes the other end for dead after 5 s
of silence, and goes on feeding its TAP whatever becomes of the bridge's port. Unlike the real one it does not encrypt,
and has no relay for pairs of symmetric NATs. Commands come by standard input: ``peer ADDRESS PORT``. Standard output
tells ``at ADDRESS PORT``, ``connected`` and ``lost``.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

from evio_controller_model import LOSS_SECONDS
from stun import mapped_address

HELLO_SECONDS = 1.0
"""Interval of the packets that keep the NAT's mapping open, and tell the other end that this one lives."""

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
"""linux/if_tun.h"""


def main() -> None:
    """Carry frames until SIGTERM, or until the other end is lost: tincan.py TAP MTU TUNNEL ADDRESS [STUN_SERVER]."""
    name, mtu, tunnel, address = sys.argv[1], sys.argv[2], sys.argv[3].encode(), sys.argv[4]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "mtu", mtu, "up"], check=True, timeout=10)
    packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets.bind(("", 0))
    port = packets.getsockname()[1]
    for server in sys.argv[5:]:
        address, port = mapped_address(packets, server) or (address, port)
    say(f"at {address} {port}")
    Tunnel(tap, packets, tunnel).run()


def say(words: str) -> None:
    """Tell the controller."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


class Tunnel:
    """The frames between one TAP and one other end. Each packet begins with the tunnel's id."""

    def __init__(self, tap: int, packets: socket.socket, tunnel: bytes) -> None:
        self.tap, self.packets, self.tunnel = tap, packets, tunnel
        self.remote: tuple[str, int] | None = None
        self.last_hello = 0.0
        self.last_heard: float | None = None

    def run(self) -> None:
        """Carry frames; end when the other end has been silent for too long, or the controller has ended."""
        while not self._is_lost():
            self._hello()
            ready, _, _ = select.select([sys.stdin, self.packets, self.tap], [], [], HELLO_SECONDS / 2)
            if sys.stdin in ready and not self._command(sys.stdin.readline()):
                return
            if self.packets in ready:
                self._receive(*self.packets.recvfrom(65535))
            if self.tap in ready:
                self._send(os.read(self.tap, 65535))
        say("lost")

    def _command(self, line: str) -> bool:
        if line:
            address, port = line.split()[1:]
            self.remote = (address, int(port))
        return bool(line)

    def _is_lost(self) -> bool:
        return self.last_heard is not None and time.monotonic() - self.last_heard > LOSS_SECONDS

    def _hello(self) -> None:
        if time.monotonic() - self.last_hello > HELLO_SECONDS:
            self.last_hello = time.monotonic()
            self._send(b"")

    def _send(self, frame: bytes) -> None:
        if self.remote is not None:
            try:
                self.packets.sendto(self.tunnel + frame, self.remote)
            except OSError:
                # The underlay is down for a moment.
                return

    def _receive(self, packet: bytes, sender: tuple[str, int]) -> None:
        if not packet.startswith(self.tunnel):
            # The answer to a STUN request that was sent twice, or a packet of a former tunnel.
            return
        if self.last_heard is None:
            say("connected")
        # Behind a NAT the other end's address is known from its packets alone.
        self.remote, self.last_heard = sender, time.monotonic()
        frame = packet[len(self.tunnel) :]
        if frame:
            os.write(self.tap, frame)


if __name__ == "__main__":
    main()
