# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Answer one HTTP request for the node's metrics, on a connection that systemd has accepted (evio-metrics.socket).

Who connects from an allowed network gets the file that the timer has written, others a short refusal. Nothing that they
send is used but the first line. systemd bounds the connections, and this bounds their bytes and time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence

from ..cidr import is_in, packed, split_cidr

PATH = "/metrics"

LONGEST_REQUEST = 8192
"""Bytes that are read of a request. Prometheus sends about 300."""

REQUEST_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""For the whole request, and for the whole answer."""

LONGEST_AGE_SECONDS = 120.0
"""The timer writes the file every 30 seconds. An older file is not served: scrapes fail when it has stopped."""

_LONGEST_FILE = 16 << 20
"""Bytes. With 5000 peers, the metrics have 2 MB."""

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def answer(connection: socket.socket, file: str, allowed: Sequence[str] | None = None) -> None:
    """Read one request and answer it with the content of ``file``. Raises OSError if the connection breaks.

    ``allowed`` has the networks, in CIDR notation, from which the metrics may be read; None allows all.
    """
    if allowed is not None and not _is_allowed(connection, allowed):
        # Not a byte is waited for: a stranger takes one of the few connections for as short as can be.
        status, content = "403 Forbidden", b"the metrics are not for this address; see evio_metrics_allowed_cidrs\n"
    else:
        status, content = _reply_to(_read_request(connection), file)
    length = len(content)
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {_TEXT}", f"Content-Length: {length}", "Connection: close"]
    lines += ["Allow: GET"] if status.startswith("405") else []
    connection.settimeout(ANSWER_SECONDS)
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _is_allowed(connection: socket.socket, allowed: Sequence[str]) -> bool:
    """Return whether the other end's address is in one of the networks. A socket without addresses is not allowed."""
    name = connection.getpeername()
    if not isinstance(name, tuple):
        return False
    # A link-local address has its interface behind a percent sign.
    address = packed(name[0].partition("%")[0])
    return any(is_in(address, *split_cidr(cidr)) for cidr in allowed)


def _read_request(connection: socket.socket) -> bytes | None:
    """Return the request up to the end of its headers, or as much as may be read; None if it took too long."""
    deadline = time.monotonic() + REQUEST_SECONDS
    request = b""
    while b"\r\n\r\n" not in request and len(request) < LONGEST_REQUEST:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        connection.settimeout(left)
        try:
            piece = connection.recv(LONGEST_REQUEST - len(request))
        except TimeoutError:
            return None
        if not piece:
            break
        request += piece
    return request


def _reply_to(request: bytes | None, file: str) -> tuple[str, bytes]:
    """Return the status line's text and the content."""
    if request is None:
        return "408 Request Timeout", b"the request took too long\n"
    if b"\r\n\r\n" not in request:
        if len(request) >= LONGEST_REQUEST:
            return "431 Request Header Fields Too Large", b"the request is too long\n"
        return "400 Bad Request", b"this is no HTTP request\n"
    words = request.partition(b"\r\n")[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return "400 Bad Request", b"this is no HTTP request\n"
    if words[0] != b"GET":
        return "405 Method Not Allowed", b"only GET is answered\n"
    if words[1].partition(b"?")[0] != PATH.encode():
        return "404 Not Found", f"only {PATH} is here\n".encode()
    return _metrics(file)


def _metrics(file: str) -> tuple[str, bytes]:
    try:
        with open(file, "rb") as stream:
            age = time.time() - os.fstat(stream.fileno()).st_mtime
            content = stream.read(_LONGEST_FILE + 1)
    except OSError:
        return "503 Service Unavailable", b"no metrics have been written yet; see evio-metrics.service on the node\n"
    if age > LONGEST_AGE_SECONDS:
        return "503 Service Unavailable", b"the metrics are old; see evio-metrics.timer on the node\n"
    if len(content) > _LONGEST_FILE:
        return "503 Service Unavailable", b"the metrics are too long\n"
    return "200 OK", content
