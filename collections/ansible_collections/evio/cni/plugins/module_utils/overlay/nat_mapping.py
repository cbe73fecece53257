# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the NAT of a site maps UDP ports: a node sends from one port to two relays, which answer what they see.

A NAT that gives the node the same outside port for both (endpoint-independent mapping, RFC 4787 section 4.1) lets
other nodes in by that port; one that gives another port for each destination does not. The relays' responder runs for
seconds, answers only to who knows the run's token, and never sends more than it gets.
"""

from __future__ import annotations

import contextlib
import hmac
import select
import socket
import time
from collections.abc import Mapping, Sequence

from ..cidr import family
from .endpoint import endpoint_host, join_endpoint

NONE, INDEPENDENT, DEPENDENT, UNKNOWN = "none", "endpoint-independent", "endpoint-dependent", "unknown"
"""Kinds of mapping; NONE where the relays see the node's own address and port."""

RESPONDER_PORT = 51822
"""UDP port of the responder where WireGuard has its own port already."""

_REQUEST_SIZE = 120
"""Bytes: more than an answer, so that nobody can let relays send more than was sent to them."""

_LONGEST_TOKEN = 64
_RESEND = 0.3
_MOST_ANSWERS_PER_SECOND = 1000


def respond(ports: Sequence[int], token: str, seconds: float) -> int:
    """Answer requests with this token for so many seconds, on the first port that is free; return how many there were.

    Raises OSError if no port is free.
    """
    key = _checked(token)
    answered, deadline = 0, time.monotonic() + seconds
    with _listen(ports) as listener:
        while (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                request, sender = listener.recvfrom(2048)
            except TimeoutError:
                break
            if len(request) == _REQUEST_SIZE and hmac.compare_digest(request[: len(key)], key):
                endpoint = join_endpoint(sender[0].removeprefix("::ffff:"), sender[1])
                with contextlib.suppress(OSError):
                    listener.sendto(key + b" " + endpoint.encode(), sender)
                answered += 1
                time.sleep(1 / _MOST_ANSWERS_PER_SECOND)
    return answered


def ask(relays: Mapping[str, Sequence[str]], token: str, timeout: float) -> tuple[dict[str, str], str]:
    """Return the endpoint at which each relay sees this node, by the relay's name, and this node's own endpoint.

    ``relays`` has each relay's endpoints, ``address:port``, of the IP version that the first one has. Relays that do
    not answer within ``timeout`` seconds are left out.
    """
    key = _checked(token)
    targets = {endpoint: name for name, endpoints in relays.items() for endpoint in endpoints}
    if not targets:
        return {}, ""
    version = family(endpoint_host(next(iter(targets))))
    seen: dict[str, str] = {}
    own = ""
    with socket.socket(version, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.bind(("", 0))
        deadline, next_send = time.monotonic() + timeout, 0.0
        while (now := time.monotonic()) < deadline and len(seen) < len(relays):
            if now >= next_send:
                next_send = now + _RESEND
                for endpoint, name in targets.items():
                    if name not in seen:
                        with contextlib.suppress(OSError):
                            sender.sendto(key.ljust(_REQUEST_SIZE, b"\0"), _socket_address(endpoint))
            if select.select([sender], [], [], min(0.05, deadline - now))[0]:
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    answer, source = sender.recvfrom(2048)
                    sender_name = targets.get(join_endpoint(source[0], source[1]))
                    if sender_name is not None and answer.startswith(key + b" "):
                        seen.setdefault(sender_name, answer[len(key) + 1 : 100].decode("ascii"))
        own = _own_endpoint(version, next(iter(targets)), sender.getsockname()[1])
    return seen, own


def kind_of(seen: Mapping[str, str], own: str) -> str:
    """Return the kind of mapping that the relays' answers show. Two different relays are needed to tell NATs apart."""
    if own and set(seen.values()) == {own}:
        return NONE
    if len(seen) < 2:
        return UNKNOWN
    return INDEPENDENT if len(set(seen.values())) == 1 else DEPENDENT


def _listen(ports: Sequence[int]) -> socket.socket:
    fault: OSError | None = None
    for port in ports:
        for version, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
            try:
                listener = socket.socket(version, socket.SOCK_DGRAM)
            except OSError as error:
                fault = error
                continue
            try:
                if version == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                listener.bind((address, port))
            except OSError as error:
                listener.close()
                fault = error
            else:
                return listener
    raise fault or OSError("no port is given")


def _checked(token: str) -> bytes:
    key = token.encode("ascii")
    if not 16 <= len(key) <= _LONGEST_TOKEN:
        raise ValueError(f"the token has {len(key)} characters, not 16 to {_LONGEST_TOKEN}")
    return key


def _socket_address(endpoint: str) -> tuple[str, int]:
    return endpoint_host(endpoint), int(endpoint.rpartition(":")[2])


def _own_endpoint(version: int, target: str, port: int) -> str:
    """Return the address that packets to the target leave with, and the port. Nothing is sent."""
    with socket.socket(version, socket.SOCK_DGRAM) as route, contextlib.suppress(OSError):
        route.connect(_socket_address(target))
        return join_endpoint(route.getsockname()[0], port)
    return ""
