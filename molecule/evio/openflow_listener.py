"""What the stand-in has of BoundedFlood's OpenFlow controller: it answers everyone, as the real one does."""

from __future__ import annotations

import socket
import struct
import threading

_HELLO, _ECHO_REQUEST, _ECHO_REPLY = 0, 2, 3
_HEADER = struct.Struct("!BBHI")
"""Version, type, length, transaction: ofp_header of the OpenFlow specifications."""


def listen(address: str, port: int) -> None:
    """Serve clients at this address in threads, for ever."""
    server = socket.create_server((address, port))
    threading.Thread(target=_accept, args=(server,), daemon=True).start()


def _accept(server: socket.socket) -> None:
    while True:
        client, _address = server.accept()
        threading.Thread(target=_serve, args=(client,), daemon=True).start()


def _serve(client: socket.socket) -> None:
    """Greet, and answer echo requests: so the switch takes the controller for connected."""
    with client:
        try:
            while header := client.recv(_HEADER.size, socket.MSG_WAITALL):
                version, kind, length, transaction = _HEADER.unpack(header)
                body = client.recv(length - _HEADER.size, socket.MSG_WAITALL) if length > _HEADER.size else b""
                if kind == _HELLO:
                    client.sendall(_HEADER.pack(version, _HELLO, _HEADER.size, transaction))
                elif kind == _ECHO_REQUEST:
                    client.sendall(_HEADER.pack(version, _ECHO_REPLY, _HEADER.size + len(body), transaction) + body)
        except (OSError, struct.error):
            return
