# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kind of a NAT's mapping follows from what relays answer; the responder answers nobody but this run's nodes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.nat_mapping import (
    DEPENDENT,
    INDEPENDENT,
    NONE,
    UNKNOWN,
    ask,
    kind_of,
    respond,
)

TOKEN = "0123456789abcdefABCDEF"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Ports of two responders, which end with the test."""
    found = [free_port(), free_port()]
    threads = [threading.Thread(target=respond, args=([port], TOKEN, 3.0)) for port in found]
    for thread in threads:
        thread.start()
    # A packet that comes before a responder listens is lost.
    relays = {str(port): [f"127.0.0.1:{port}"] for port in found}
    assert any(set(ask(relays, TOKEN, 0.5)[0]) == set(relays) for _attempt in range(4))
    yield found
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("seen", "own", "kind"),
    [
        ({"a": "192.0.2.1:7"}, "192.0.2.1:7", NONE),
        ({"a": "203.0.113.1:7", "b": "203.0.113.1:7"}, "192.168.1.10:7", INDEPENDENT),
        ({"a": "203.0.113.1:7", "b": "203.0.113.1:8"}, "192.168.1.10:7", DEPENDENT),
        ({"a": "203.0.113.1:7"}, "192.168.1.10:7", UNKNOWN),
        ({}, "192.168.1.10:7", UNKNOWN),
    ],
)
def test_kind_follows_from_what_relays_see(seen: dict[str, str], own: str, kind: str) -> None:
    assert kind_of(seen, own) == kind


def test_relays_tell_from_where_packets_come(ports: list[int]) -> None:
    relays = {f"relay{port}": [f"127.0.0.1:{port}"] for port in ports}
    seen, own = ask(relays, TOKEN, 2.0)
    assert set(seen) == set(relays)
    assert kind_of(seen, own) == NONE


def test_responder_falls_back_to_another_port_and_asker_tries_both(ports: list[int]) -> None:
    seen, _own = ask({"relay": [f"127.0.0.1:{free_port()}", f"127.0.0.1:{ports[0]}"]}, TOKEN, 2.0)
    assert list(seen) == ["relay"]


@pytest.mark.parametrize("request_", [b"", TOKEN.encode(), b"x" * 120, TOKEN.encode().ljust(2000, b"\0")])
def test_strangers_get_no_answer(ports: list[int], request_: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0.5)
        sender.sendto(request_, ("127.0.0.1", ports[0]))
        with pytest.raises(TimeoutError):
            sender.recvfrom(2048)


def test_answer_is_shorter_than_the_request(ports: list[int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(2)
        sender.sendto(TOKEN.encode().ljust(120, b"\0"), ("127.0.0.1", ports[0]))
        assert len(sender.recvfrom(2048)[0]) < 120


def test_answers_of_others_are_ignored(ports: list[int]) -> None:
    assert ask({"relay": [f"127.0.0.1:{ports[0]}"]}, "another token of this length", 0.5)[0] == {}


@pytest.mark.parametrize("token", ["", "short", "x" * 65])
def test_bad_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="16 to 64"):
        respond([free_port()], token, 0.1)
