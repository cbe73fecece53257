"""The search through a capture finds what is readable, and counts what is not, in captures made by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import LabError
from places import Lab
from wire import Capture, Secret, inner_header

NODE, ROUTER = "198.51.100.11", "198.51.100.22"


def _ipv4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return b"\0" * 12 + b"\x08\x00" + header + inner_header(source, destination) + payload


def _udp(source: str, destination: str, payload: bytes) -> bytes:
    return _ipv4(source, destination, 17, struct.pack(">HHHH", 51820, 51820, 8 + len(payload), 0) + payload)


@pytest.fixture
def capture_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Capture]:
    """Makes a capture of given frames, as tcpdump leaves it."""

    def make(*frames: bytes) -> Capture:
        lab = Lab(state=tmp_path)
        content = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
        for frame in frames:
            content += struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
        lab.capture.write_bytes(content)
        capture = Capture(lab)
        monkeypatch.setattr(capture, "_said", "7 packets dropped by kernel\n", raising=False)
        return capture

    return make


def test_encrypted_bytes_are_counted_for_each_way(capture_of: Callable[..., Capture]) -> None:
    data = b"\x04\0\0\0" + b"x" * 96
    handshake = _udp(NODE, ROUTER, b"\x01\0\0\0" + b"x" * 144)
    capture = capture_of(_udp(NODE, ROUTER, data), _udp(NODE, ROUTER, data), _udp(ROUTER, NODE, data + data), handshake)
    sighting = capture.search([], control=b"x")
    assert sighting.encrypted_bytes == {(NODE, ROUTER): 200, (ROUTER, NODE): 200}
    assert (sighting.frames, sighting.dropped, sighting.strangers) == (4, 7, ())


def test_a_pod_address_outside_a_tunnel_is_a_stranger(capture_of: Callable[..., Capture]) -> None:
    capture = capture_of(_ipv4("10.244.1.2", NODE, 6, b""))
    assert capture.search([], control=b"").strangers == ("10.244.1.2",)


@pytest.mark.parametrize(
    "leak",
    [
        _udp(NODE, ROUTER, b"GET / evio-lab-node2-a-1234 HTTP/1.0"),
        # Encapsulated and not encrypted: VXLAN and the like.
        _udp(NODE, ROUTER, b"\x08\0\0\0" + b"\0" * 4 + _ipv4("10.244.1.2", "10.244.2.2", 6, b"")),
    ],
)
def test_what_is_readable_is_read(capture_of: Callable[..., Capture], leak: bytes) -> None:
    secrets = [
        Secret("marker", b"evio-lab-node2-a-1234"),
        Secret("header", inner_header("10.244.1.2", "10.244.2.2")),
    ]
    assert len(capture_of(leak).search(secrets, control=b"\0").read) == 1
    assert capture_of(_udp(NODE, ROUTER, b"\x04\0\0\0secret")).search(secrets, control=b"\0").read == ()


def test_a_capture_in_which_nothing_can_be_read_shows_it(capture_of: Callable[..., Capture]) -> None:
    assert not capture_of(_udp(NODE, ROUTER, b"")).search([], control=b"evio-lab-internet").control_read


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    lab = Lab(state=tmp_path)
    lab.capture.write_bytes(b"no pcap file, but long enough to be one")
    with pytest.raises(LabError, match="no pcap"):
        Capture(lab).search([], control=b"")
