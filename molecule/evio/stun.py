"""Ask a STUN server under which address and port a UDP socket is seen (RFC 8489)."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

_BINDING_REQUEST, _BINDING_SUCCESS = 0x0001, 0x0101
_XOR_MAPPED_ADDRESS = 0x0020
_COOKIE = 0x2112A442
_IPV4 = 1

_ATTEMPTS, _SECONDS = 3, 0.5
"""How often a request is sent, and how long each answer is awaited."""


def mapped_address(packets: socket.socket, server: str) -> tuple[str, int] | None:
    """Return IPv4 address and port of the socket as the server (``host:port``) sees them; None without an answer."""
    host, _colon, port = server.rpartition(":")
    transaction = os.urandom(12)
    request = struct.pack("!HHI", _BINDING_REQUEST, 0, _COOKIE) + transaction
    packets.settimeout(_SECONDS)
    try:
        for _attempt in range(_ATTEMPTS):
            packets.sendto(request, (host, int(port)))
            try:
                answer = packets.recv(2048)
            except TimeoutError:
                continue
            if answer[:2] == struct.pack("!H", _BINDING_SUCCESS) and answer[8:20] == transaction:
                return _attribute(answer)
    except OSError:
        return None
    finally:
        packets.settimeout(None)
    return None


def _attribute(answer: bytes) -> tuple[str, int] | None:
    """Return what the XOR-MAPPED-ADDRESS of an answer says."""
    place = 20
    while place + 4 <= len(answer):
        kind, length = struct.unpack_from("!HH", answer, place)
        if kind == _XOR_MAPPED_ADDRESS and answer[place + 5] == _IPV4:
            port, address = struct.unpack_from("!HI", answer, place + 6)
            return str(ipaddress.ip_address(address ^ _COOKIE)), port ^ (_COOKIE >> 16)
        # Attributes are padded to a multiple of 4 bytes.
        place += 4 + (length + 3) // 4 * 4
    return None
