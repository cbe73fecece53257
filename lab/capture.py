"""What can be read on the lab's public segment: a capture of every frame, and a search through it.

Whoever sits between the sites sees this much, and no more.
"""

from __future__ import annotations

import ipaddress
import signal
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import network
from commands import LabError, in_netns
from state import Lab
from topology import PUBLIC_NETWORKS

_PCAP_HEADER = struct.Struct("<IHHiIII")
_PCAP_MAGIC = 0xA1B2C3D4
_PACKET_HEADER = struct.Struct("<IIII")
_ETHERNET_BYTES, _IPV4, _IPV6 = 14, b"\x08\x00", b"\x86\xdd"
_UDP, _IPV6_FRAGMENT = 17, 44
_WIREGUARD_DATA, _WIREGUARD_HEADER_BYTES = b"\x04\x00\x00\x00", 16
"""Of WireGuard's transport data message (its whitepaper, section 5.4.6); the header has the receiver and a counter."""


_Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"


@dataclass(frozen=True)
class Secret:
    """Something that must not be readable: the bytes to look for, and what a person calls it."""

    name: str
    pattern: bytes


@dataclass(frozen=True)
class Sighting:
    """What a capture shows.

    `encrypted_bytes` counts WireGuard's data messages between two public addresses, `strangers` are addresses that are
    none of the lab's internet, `fragments` are IP packets that somebody had to take apart, `read` names the secrets
    that were found, `dropped` the frames tcpdump missed; `control_read` says whether something was found that must be
    readable, so that the search is known to work.
    """

    frames: int
    dropped: int
    encrypted_bytes: dict[tuple[str, str], int]
    strangers: tuple[str, ...]
    fragments: int
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
        encrypted: dict[tuple[str, str], dict[bytes, int]] = {}
        strangers: set[str] = set()
        content = self._path.read_bytes()
        frames = fragments = 0
        for frame in _frames(content):
            frames += 1
            packet = _packet(frame)
            if packet is None:
                continue
            strangers.update(str(address) for address in packet.addresses if not _is_public(address))
            fragments += packet.is_fragment
            if message := _wireguard_message(packet):
                # Between sites that have prefixes it crosses the segment twice: to the provider and from it.
                source, destination = map(str, packet.addresses)
                encrypted.setdefault((source, destination), {})[message[:_WIREGUARD_HEADER_BYTES]] = len(message)
        return Sighting(
            frames,
            self._dropped(),
            {pair: sum(sizes.values()) for pair, sizes in encrypted.items()},
            tuple(sorted(strangers)),
            fragments,
            tuple(secret.name for secret in secrets if secret.pattern in content),
            control in content,
        )

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


@dataclass(frozen=True)
class _Packet:
    """An IP packet: its two addresses, and what its header is followed by."""

    addresses: tuple[_Address, _Address]
    protocol: int
    payload: bytes
    is_fragment: bool


def _packet(frame: bytes) -> _Packet | None:
    """The IP packet of an Ethernet frame; None if it has none."""
    kind, packet = frame[12:14], frame[_ETHERNET_BYTES:]
    if kind == _IPV4 and len(packet) >= 20:
        addresses = ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20])
        (offset,) = struct.unpack_from(">H", packet, 6)
        # All but DF: more fragments, or an offset (RFC 791).
        return _Packet(addresses, packet[9], packet[(packet[0] & 0xF) * 4 :], bool(offset & 0x3FFF))
    if kind == _IPV6 and len(packet) >= 40:
        both = ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
        return _Packet(both, packet[6], packet[40:], packet[6] == _IPV6_FRAGMENT)
    return None


def _wireguard_message(packet: _Packet) -> bytes:
    """The WireGuard data message in a packet; empty if it is something else."""
    message = packet.payload[8:]
    return message if packet.protocol == _UDP and message.startswith(_WIREGUARD_DATA) else b""


def _is_public(address: _Address) -> bool:
    """Whether it is of the lab's internet; so count those by which neighbours on a link find each other (RFC 4861)."""
    if address.version == 6 and (address.is_link_local or address.is_multicast or address.is_unspecified):
        return True
    return address in PUBLIC_NETWORKS[address.version]
