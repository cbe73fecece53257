"""What can be read on the lab's public segment: a capture of every frame, and a search through it.

Whoever sits between the sites sees this much, and no more.
"""

from __future__ import annotations

import ipaddress
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import network
from commands import LabError, in_netns
from places import Lab
from topology import PUBLIC_PREFIX

_PCAP_HEADER = struct.Struct("<IHHiIII")
_PCAP_MAGIC = 0xA1B2C3D4
_PACKET_HEADER = struct.Struct("<IIII")
_ETHERNET_BYTES, _IPV4, _UDP = 14, b"\x08\x00", 17
_WIREGUARD_DATA = b"\x04\x00\x00\x00"
"""First bytes of WireGuard's transport data message (its whitepaper, section 5.4.6)."""


@dataclass(frozen=True)
class Secret:
    """Something that must not be readable: the bytes to look for, and what a person calls it."""

    name: str
    pattern: bytes


@dataclass(frozen=True)
class Sighting:
    """What a capture shows.

    `encrypted_bytes` counts WireGuard's data messages between two public addresses, `strangers` are IPv4 addresses that
    are none of the public segment's, `read` names the secrets that were found, `dropped` the frames tcpdump missed;
    `control_read` says whether something was found that must be readable, so that the search is known to work.
    """

    frames: int
    dropped: int
    encrypted_bytes: dict[tuple[str, str], int]
    strangers: tuple[str, ...]
    read: tuple[str, ...]
    control_read: bool


class Capture:
    """tcpdump on the public segment for as long as the context lasts; then what it wrote can be searched."""

    def __init__(self, lab: Lab) -> None:
        self._path = lab.capture
        self._command = in_netns(
            lab.netns(network.SEGMENT),
            [
                "tcpdump",
                "-i",
                network.SEGMENT,
                "-n",
                "-U",
                "-s",
                "0",
                "-B",
                "65536",
                "-Z",
                "root",
                "-w",
                str(self._path),
            ],
        )

    def __enter__(self) -> Capture:
        self._path.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 10
        # It opens its file once it listens.
        while not (self._path.exists() and self._path.stat().st_size >= _PCAP_HEADER.size):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise LabError(f"tcpdump does not capture: {self._said.strip()}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        # What crossed the segment last may still be on its way to tcpdump.
        time.sleep(0.2)
        self._stop()

    def search(self, secrets: Iterable[Secret], *, control: bytes) -> Sighting:
        """Look through all that was captured; call it when the context has ended."""
        encrypted: Counter[tuple[str, str]] = Counter()
        strangers: set[str] = set()
        content = self._path.read_bytes()
        frames = 0
        for frame in _frames(content):
            frames += 1
            addresses = _ipv4_addresses(frame)
            if addresses:
                strangers.update(address for address in addresses if not _is_of_segment(address))
                encrypted[addresses] += _wireguard_bytes(frame)
        read = tuple(secret.name for secret in secrets if secret.pattern in content)
        return Sighting(frames, self._dropped(), dict(+encrypted), tuple(sorted(strangers)), read, control in content)

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            _, self._said = self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, self._said = self._process.communicate()

    def _dropped(self) -> int:
        """tcpdump's last words tell it: "N packets dropped by kernel"."""
        for line in self._said.splitlines():
            if "dropped by kernel" in line:
                return int(line.split()[0])
        raise LabError(f"tcpdump did not tell what it missed: {self._said.strip()}")


def inner_header(source: str, destination: str) -> bytes:
    """The end of an IPv4 header between two addresses: eight bytes that chance does not bring about in a capture."""
    return ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed


def _frames(content: bytes) -> Iterator[bytes]:
    """Ethernet frames of a capture file (draft-ietf-opsawg-pcap), written by a machine of this byte order."""
    if len(content) < _PCAP_HEADER.size or _PCAP_HEADER.unpack_from(content)[0] != _PCAP_MAGIC:
        raise LabError("the capture is no pcap file")
    offset = _PCAP_HEADER.size
    while offset + _PACKET_HEADER.size <= len(content):
        captured = _PACKET_HEADER.unpack_from(content, offset)[2]
        offset += _PACKET_HEADER.size
        yield content[offset : offset + captured]
        offset += captured


def _ipv4_addresses(frame: bytes) -> tuple[str, str] | None:
    if frame[12:14] != _IPV4 or len(frame) < _ETHERNET_BYTES + 20:
        return None
    source, destination = frame[_ETHERNET_BYTES + 12 : _ETHERNET_BYTES + 16], frame[_ETHERNET_BYTES + 16 :][:4]
    return str(ipaddress.IPv4Address(source)), str(ipaddress.IPv4Address(destination))


def _wireguard_bytes(frame: bytes) -> int:
    """Bytes of a WireGuard data message in an IPv4 frame; 0 if it is something else."""
    header = (frame[_ETHERNET_BYTES] & 0xF) * 4
    payload = frame[_ETHERNET_BYTES + header + 8 :]
    if frame[_ETHERNET_BYTES + 9] != _UDP or not payload.startswith(_WIREGUARD_DATA):
        return 0
    return len(payload)


def _is_of_segment(address: str) -> bool:
    return address.startswith(PUBLIC_PREFIX)
