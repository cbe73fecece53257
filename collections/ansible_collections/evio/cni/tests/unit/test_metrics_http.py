# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whoever connects gets the metrics or a short refusal, and can neither keep the process nor make it read for long."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.node import metrics_http
from ansible_collections.evio.cni.plugins.module_utils.node.metrics_http import LONGEST_REQUEST, answer

GET = b"GET /metrics HTTP/1.1\r\nHost: node3\r\n\r\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "evio.prom"
    path.write_text("evio_fenced 0\n")
    return path


def ask(file: Path, client: Callable[[socket.socket], None]) -> bytes:
    """Return all that is answered to what ``client`` sends."""
    near, far = socket.socketpair()
    with near, far:
        sender = threading.Thread(target=client, args=(far,))
        sender.start()
        answer(near, str(file))
        near.close()
        sender.join(timeout=10)
        far.settimeout(5)
        text = b""
        try:
            while piece := far.recv(65536):
                text += piece
        except ConnectionResetError:
            # Something that was sent has not been read.
            pass
        return text


def status_of(file: Path, request: bytes) -> str:
    def client(far: socket.socket) -> None:
        far.sendall(request)
        far.shutdown(socket.SHUT_WR)

    return ask(file, client).split(b"\r\n")[0].decode()


def test_get_of_metrics_is_answered_with_the_file(file: Path) -> None:
    head, _end, body = ask(file, lambda far: far.sendall(GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 14" in head
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert body == b"evio_fenced 0\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET.replace(b"/metrics", b"/metrics?x=1"), "200"),
        (GET.replace(b"/metrics", b"/"), "404"),
        (GET.replace(b"/metrics", b"/metrics/../etc/passwd"), "404"),
        (GET.replace(b"GET", b"POST"), "405"),
        (GET.replace(b"GET", b"HEAD"), "405"),
        (GET.replace(b" HTTP/1.1", b""), "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200).replace(b"\r\n\r\n", b""), "400"),
        (b"\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.1\r\n", "400"),
        (b"", "400"),
        (b"GET /" + b"a" * LONGEST_REQUEST, "431"),
    ],
)
def test_other_requests_are_refused(file: Path, request_: bytes, status: str) -> None:
    assert status_of(file, request_).split(" ")[1] == status


def test_no_more_than_the_limit_is_read(file: Path) -> None:
    sent = []

    def client(far: socket.socket) -> None:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        far.settimeout(5)
        try:
            for _piece in range(100_000):
                sent.append(far.send(b"X" * 4096))
        except OSError:
            # The other end has closed.
            pass

    ask(file, client)
    assert sum(sent) < 1_000_000


def test_request_that_takes_too_long_is_given_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "REQUEST_SECONDS", 0.5)
    done = threading.Event()

    def client(far: socket.socket) -> None:
        # One byte at a time: each is in time, the whole is not.
        for byte in GET * 100:
            if done.wait(0.05):
                return
            try:
                far.send(bytes([byte]))
            except OSError:
                return

    near, far = socket.socketpair()
    with near, far:
        sender = threading.Thread(target=client, args=(far,))
        sender.start()
        begun = time.monotonic()
        answer(near, str(file))
        took = time.monotonic() - begun
        done.set()
        sender.join(timeout=10)
        assert far.recv(100).startswith(b"HTTP/1.1 408 ")
    assert 0.4 < took < 4


def test_client_that_does_not_read_is_given_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "ANSWER_SECONDS", 0.5)
    file.write_text("evio_fenced 0\n" * 500_000)
    near, far = socket.socketpair()
    with near, far:
        far.sendall(GET)
        with pytest.raises(TimeoutError):
            answer(near, str(file))


def test_missing_or_old_metrics_are_no_metrics(file: Path) -> None:
    old = time.time() - 121
    os.utime(file, (old, old))
    assert status_of(file, GET) == "HTTP/1.1 503 Service Unavailable"
    file.unlink()
    assert status_of(file, GET) == "HTTP/1.1 503 Service Unavailable"


@pytest.mark.parametrize(
    ("host", "allowed", "status"),
    [
        ("127.0.0.1", ["127.0.0.0/8"], "200"),
        ("127.0.0.1", ["10.10.0.0/16", "127.0.0.1/32"], "200"),
        ("127.0.0.1", ["10.10.0.0/16", "::/0"], "403"),
        ("127.0.0.1", [], "403"),
        ("::1", ["fd00:10::/64", "::1/128"], "200"),
        ("::1", ["0.0.0.0/0"], "403"),
    ],
)
def test_metrics_are_for_the_allowed_networks_alone(file: Path, host: str, allowed: list[str], status: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
    ):
        near, _address = server.accept()
        client.sendall(GET)
        with near:
            answer(near, str(file), allowed)
        client.settimeout(5)
        assert client.recv(100).split(b" ")[1].decode() == status


def test_stranger_is_not_waited_for(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        near, _address = server.accept()
        with near:
            begun = time.monotonic()
            answer(near, str(file), ["10.10.0.0/16"])
        assert time.monotonic() - begun < 2
        client.settimeout(5)
        assert client.recv(100).startswith(b"HTTP/1.1 403 ")


def test_socket_without_addresses_is_not_allowed(file: Path) -> None:
    near, far = socket.socketpair()
    with near, far:
        answer(near, str(file), ["0.0.0.0/0", "::/0"])
        assert far.recv(100).startswith(b"HTTP/1.1 403 ")
