"""The search through a capture finds what is readable and counts what is encrypted, in captures made by hand."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from capture import Capture, Secret, inner_header
from commands import LabError
from state import Lab

NODE, ROUTER = "198.51.100.11", "198.51.100.22"


def _ipv4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return b"\0" * 12 + b"\x08\x00" + header + inner_header(source, destination) + payload


def _udp(source: str, destination: str, payload: bytes) -> bytes:
    packet = struct.pack(">HHHH", 51820, 51820, 8 + len(payload), 0) + payload
    return _ipv6(source, destination, 17, packet) if ":" in source else _ipv4(source, destination, 17, packet)


def _ipv6(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    return b"\0" * 12 + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload


def _data(counter: int, size: int) -> bytes:
    """Return a WireGuard data message of this many bytes."""
    return b"\x04\0\0\0\0\0\0\7" + counter.to_bytes(8, "little") + b"x" * (size - 16)


@pytest.fixture
def capture_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Capture]:
    """Return a function that makes a capture of given frames, as tcpdump leaves it."""

    def make(*frames: bytes) -> Capture:
        lab = Lab(state=tmp_path)
        content = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
        for frame in frames:
            content += struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
        lab.capture.write_bytes(content)
        capture = Capture(lab)
        monkeypatch.setattr(capture, "_stderr", "7 packets dropped by kernel\n", raising=False)
        return capture

    return make


@pytest.mark.parametrize(("one", "other"), [(NODE, ROUTER), ("2001:db8:22::10", "2001:db8:23::10")])
def test_encrypted_bytes_are_counted_for_each_direction(
    capture_of: Callable[..., Capture], one: str, other: str
) -> None:
    handshake = _udp(one, other, b"\x01\0\0\0" + b"x" * 144)
    messages = [_udp(one, other, _data(1, 100)), _udp(one, other, _data(2, 100)), _udp(other, one, _data(1, 200))]
    findings = capture_of(*messages, handshake).search([], control=b"x")
    assert findings.encrypted_bytes == {(one, other): 200, (other, one): 200}
    assert (findings.frames, findings.dropped, findings.foreign_addresses) == (4, 7, ())


def test_message_that_a_router_forwards_over_the_same_segment_counts_once(
    capture_of: Callable[..., Capture],
) -> None:
    message = _udp("2001:db8:22::10", "2001:db8:23::10", _data(1, 100))
    assert capture_of(message, message).search([], control=b"").encrypted_bytes == {
        ("2001:db8:22::10", "2001:db8:23::10"): 100
    }


def test_fragments_are_counted(capture_of: Callable[..., Capture]) -> None:
    whole = _ipv4(NODE, ROUTER, 17, b"")
    do_not_fragment, first, last = (
        whole[:20] + struct.pack(">H", flags_and_offset) + whole[22:] for flags_and_offset in (0x4000, 0x2000, 0x00A0)
    )
    sixth = _ipv6("2001:db8:22::10", "2001:db8::11", 44, b"")
    assert capture_of(whole, do_not_fragment).search([], control=b"").fragments == 0
    assert capture_of(first, last, sixth).search([], control=b"").fragments == 3


def test_neighbour_discovery_is_not_foreign(capture_of: Callable[..., Capture]) -> None:
    asking = _ipv6("fe80::1", "ff02::1:ff00:11", 58, b"")
    private = _ipv6("fd00::1", "2001:db8::11", 58, b"")
    assert capture_of(asking, private).search([], control=b"").foreign_addresses == ("fd00::1",)


def test_pod_address_outside_a_tunnel_is_foreign(capture_of: Callable[..., Capture]) -> None:
    capture = capture_of(_ipv4("10.244.1.2", NODE, 6, b""))
    assert capture.search([], control=b"").foreign_addresses == ("10.244.1.2",)


@pytest.mark.parametrize(
    "leak",
    [
        _udp(NODE, ROUTER, b"GET / evio-lab-node2-a-1234 HTTP/1.0"),
        # Encapsulated but not encrypted, as VXLAN does.
        _udp(NODE, ROUTER, b"\x08\0\0\0" + b"\0" * 4 + _ipv4("10.244.1.2", "10.244.2.2", 6, b"")),
    ],
)
def test_unencrypted_secrets_are_found(capture_of: Callable[..., Capture], leak: bytes) -> None:
    secrets = [
        Secret("marker", b"evio-lab-node2-a-1234"),
        Secret("header", inner_header("10.244.1.2", "10.244.2.2")),
    ]
    assert len(capture_of(leak).search(secrets, control=b"\0").readable) == 1
    assert capture_of(_udp(NODE, ROUTER, b"\x04\0\0\0secret")).search(secrets, control=b"\0").readable == ()


def test_capture_without_the_control_bytes_says_so(capture_of: Callable[..., Capture]) -> None:
    assert not capture_of(_udp(NODE, ROUTER, b"")).search([], control=b"evio-lab-internet").is_control_found


def test_file_that_is_not_a_capture_is_refused(tmp_path: Path) -> None:
    lab = Lab(state=tmp_path)
    lab.capture.write_bytes(b"no pcap file, but long enough to be one")
    with pytest.raises(LabError, match="not a pcap"):
        Capture(lab).search([], control=b"")
