#!/usr/bin/python3
"""The lab's internet host: an HTTP server that logs each client's address, which shows whether masquerade works.

This file runs as a program inside the host's network namespace; its functions start it and read its log.
"""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from commands import LabError

PORT = 80
BODY_BYTES = 1 << 20
MARKER = b"evio-lab-internet"
"""Fills /body. It is readable on the wire, because what pods ask of the internet is not encrypted."""
_LARGEST_UPLOAD = 16 << 20


def body(marker: bytes, size: int = BODY_BYTES) -> bytes:
    """Return `size` bytes of numbered lines with the marker: no two lines are equal, and none appears by chance."""
    lines = b"".join(b"%b %012d\n" % (marker, number) for number in range(size // (len(marker) + 14) + 1))
    return lines[:size]


def start(netns_command: list[str], log: Path, *, version: int) -> None:
    """Start the server in its namespace, for one IP version, and return when it listens.

    Raises LabError if it does not within 10 s.
    """
    process = subprocess.Popen(
        [*netns_command, "/usr/bin/python3", __file__, str(log), str(version)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 10
    while not log.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise LabError("the lab's internet host does not listen on port 80 within 10 s")
        time.sleep(0.02)


def requests_since(log: Path, offset: int) -> list[dict[str, Any]]:
    """Return the requests logged after the first `offset` bytes: time, client (address), method, path, bytes."""
    with open(log) as lines:
        lines.seek(offset)
        return [json.loads(line) for line in lines]


class _Handler(BaseHTTPRequestHandler):
    """Answer GET /body with 1 MiB, GET of another path with the client's address, POST with its body's SHA-256."""

    protocol_version = "HTTP/1.0"
    timeout = 30
    log: Path

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self._answer(body(MARKER) if path == "/body" else f"{self.client_address[0]}\n".encode())

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", "0"))
        if size > _LARGEST_UPLOAD:
            self.send_error(413)
            return
        self._answer(f"{hashlib.sha256(self.rfile.read(size)).hexdigest()}\n".encode())

    def _answer(self, content: bytes) -> None:
        self._log_request(len(content))
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _log_request(self, size: int) -> None:
        line = {
            "time": time.time(),
            "client": self.client_address[0],
            "method": self.command,
            "path": self.path,
            "bytes": size,
        }
        with open(self.log, "a") as log:
            log.write(json.dumps(line) + "\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing: _log_request writes the log."""


def _serve(log: Path, version: int) -> None:
    _Handler.log = log
    ThreadingHTTPServer.address_family = socket.AF_INET if version == 4 else socket.AF_INET6
    with ThreadingHTTPServer(("", PORT), _Handler) as server:
        log.touch()
        server.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
