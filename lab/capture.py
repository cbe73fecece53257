"""A capture of every frame on the lab's public segment, and a search for what is readable in it.

The segment carries all that leaves a site: what an observer between the sites could read is in the capture.
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
"""First bytes and header length of a transport data message: type, receiver, counter (WireGuard paper, 5.4.6)."""

_Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"


@dataclass(frozen=True)
class Secret:
    """Bytes that must not be in a capture, and what they are in words."""

    name: str
    pattern: bytes


@dataclass(frozen=True)
class CaptureFindings:
    """What a capture shows.

    `frames` were captured, `dropped` were missed by tcpdump. `encrypted_bytes` counts WireGuard's data messages by
    source and destination address. `foreign_addresses` are those outside the lab's internet, `fragments` counts IP
    fragments, `readable` names the secrets that were found. `is_control_found` says whether bytes were found that must
    be readable, which shows that the search works.
    """

    frames: int
    dropped: int
    encrypted_bytes: dict[tuple[str, str], int]
    foreign_addresses: tuple[str, ...]
    fragments: int
    readable: tuple[str, ...]
    is_control_found: bool


class Capture:
    """Run tcpdump on the public segment for as long as the context lasts; search the capture afterwards."""

    def __init__(self, lab: Lab) -> None:
        self._path = lab.capture
        tcpdump = ["tcpdump", "-i", network.SEGMENT, "-n", "-U", "-s", "0", "-B", "65536", "-Z", "root"]
        self._command = in_netns(lab.netns(network.SEGMENT), [*tcpdump, "-w", str(self._path)])

    def __enter__(self) -> Capture:
        self._path.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 10
        # tcpdump writes the file's header when it has begun to listen.
        while not (self._path.exists() and self._path.stat().st_size >= _PCAP_HEADER.size):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise LabError(f"tcpdump does not capture on {network.SEGMENT}: {self._stderr.strip()}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        # Let tcpdump read what crossed the segment last.
        time.sleep(0.2)
        self._stop()

    def search(self, secrets: Iterable[Secret], *, control: bytes) -> CaptureFindings:
        """Search the whole capture for secrets and for the control bytes; call it when the context has ended."""
        encrypted: dict[tuple[str, str], dict[bytes, int]] = {}
        foreign: set[str] = set()
        content = self._path.read_bytes()
        frames = fragments = 0
        for frame in _frames(content):
            frames += 1
            packet = _packet(frame)
            if packet is None:
                continue
            foreign.update(str(address) for address in packet.addresses if not _is_public(address))
            fragments += packet.is_fragment
            if message := _wireguard_message(packet):
                # Between IPv6 sites a message crosses the segment twice, to the provider and from it: counted once.
                source, destination = map(str, packet.addresses)
                encrypted.setdefault((source, destination), {})[message[:_WIREGUARD_HEADER_BYTES]] = len(message)
        return CaptureFindings(
            frames,
            self._dropped(),
            {pair: sum(sizes.values()) for pair, sizes in encrypted.items()},
            tuple(sorted(foreign)),
            fragments,
            tuple(secret.name for secret in secrets if secret.pattern in content),
            control in content,
        )

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            _, self._stderr = self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, self._stderr = self._process.communicate()

    def _dropped(self) -> int:
        """Return N of tcpdump's last lines: "N packets dropped by kernel"."""
        for line in self._stderr.splitlines():
            if "dropped by kernel" in line:
                return int(line.split()[0])
        raise LabError(f"tcpdump did not say how many packets it missed: {self._stderr.strip()}")


def inner_header(source: str, destination: str) -> bytes:
    """Return the end of an IPv4 header, both addresses: eight bytes that no capture has by chance."""
    return ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed


def _frames(content: bytes) -> Iterator[bytes]:
    """Yield the Ethernet frames of a pcap file (draft-ietf-opsawg-pcap, little-endian). Raises LabError."""
    if len(content) < _PCAP_HEADER.size or _PCAP_HEADER.unpack_from(content)[0] != _PCAP_MAGIC:
        raise LabError("the capture is not a pcap file of this machine's tcpdump")
    offset = _PCAP_HEADER.size
    while offset + _PACKET_HEADER.size <= len(content):
        captured = _PACKET_HEADER.unpack_from(content, offset)[2]
        offset += _PACKET_HEADER.size
        yield content[offset : offset + captured]
        offset += captured


@dataclass(frozen=True)
class _Packet:
    """An IP packet: source and destination address, and the protocol and bytes that follow its header."""

    addresses: tuple[_Address, _Address]
    protocol: int
    payload: bytes
    is_fragment: bool


def _packet(frame: bytes) -> _Packet | None:
    """Return the IP packet in an Ethernet frame; None if the frame carries something else."""
    kind, packet = frame[12:14], frame[_ETHERNET_BYTES:]
    if kind == _IPV4 and len(packet) >= 20:
        addresses = ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20])
        (offset,) = struct.unpack_from(">H", packet, 6)
        # Every bit but DF: "more fragments", or an offset (RFC 791).
        return _Packet(addresses, packet[9], packet[(packet[0] & 0xF) * 4 :], bool(offset & 0x3FFF))
    if kind == _IPV6 and len(packet) >= 40:
        both = ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
        return _Packet(both, packet[6], packet[40:], packet[6] == _IPV6_FRAGMENT)
    return None


def _wireguard_message(packet: _Packet) -> bytes:
    """Return the WireGuard data message in a packet; b"" if the packet carries something else."""
    message = packet.payload[8:]
    return message if packet.protocol == _UDP and message.startswith(_WIREGUARD_DATA) else b""


def _is_public(address: _Address) -> bool:
    """Whether the address may be on the public segment: of the lab's internet, or neighbour discovery's (RFC 4861)."""
    if address.version == 6 and (address.is_link_local or address.is_multicast or address.is_unspecified):
        return True
    return address in PUBLIC_NETWORKS[address.version]
