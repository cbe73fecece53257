# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How many bytes the ways to other nodes carry: what the kernel knows of them, and what routers on them say to packets.

Path MTU discovery (RFC 1191, RFC 8201) with the kernel's own memory of it; what the overlay makes of it is
overlay_config's subject.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable
from ipaddress import ip_address

from .endpoint import endpoint_host

PATIENCE = 0.8
"""Seconds without news until a way counts as known: a router's word comes back within a round trip."""
_PROBE_INTERVAL = 0.2
_POLL_INTERVAL = 0.02
_SOMEWHERE = {4: "192.0.2.1", 6: "2001:db8:ffff:ffff::1"}
"""Documentation addresses (RFC 5737, RFC 3849): for a look at the default route, nothing is sent there."""
_IP_MTU_DISCOVER, _IP_MTU = 10, 14
_IPV6_MTU_DISCOVER, _IPV6_MTU = 23, 24
_PMTUDISC_DO = 2
"""include/uapi/linux/in.h, in6.h: Don't Fragment, and what the kernel knows of a connected socket's path."""
_IP_AND_UDP_HEADERS = {4: 28, 6: 48}


def path_mtus(endpoints: Iterable[str]) -> dict[str, int]:
    """Bytes of an IP packet that get to each ``address:port`` in one piece; those to which no way leads are left out.

    Datagrams of zeros are sent there, which WireGuard drops without a word. A router that drops what is too long
    without a word (a "black hole") goes unnoticed.
    """
    with contextlib.ExitStack() as stack:
        ways = {}
        for endpoint in dict.fromkeys(endpoints):
            host, _colon, port = endpoint.rpartition(":")
            with contextlib.suppress(OSError):
                ways[endpoint] = stack.enter_context(_Way(host.strip("[]"), int(port)))
        started = last_news = time.monotonic()
        next_probe = 0.0
        while (now := time.monotonic()) - last_news < PATIENCE and now - started < 5 * PATIENCE:
            news = [way.has_news() for way in ways.values()]
            if any(news):
                last_news = next_probe = now
            if now >= next_probe:
                next_probe = now + _PROBE_INTERVAL
                for way in ways.values():
                    way.probe()
            time.sleep(_POLL_INTERVAL)
        return {endpoint: way.mtu for endpoint, way in ways.items()}


def route_mtu(endpoint: str) -> int | None:
    """What the default route carries, of the IP version of a node's own endpoint; None if there is no such route."""
    version = ip_address(endpoint_host(endpoint)).version
    with contextlib.suppress(OSError), _Way(_SOMEWHERE[version], 9) as way:
        return way.mtu
    return None


class _Way:
    """A connected UDP socket that never fragments; OSError where no route leads to the address."""

    def __init__(self, host: str, port: int) -> None:
        self._version = ip_address(host).version
        is_ipv4 = self._version == 4
        self._socket = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            if is_ipv4:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
            else:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
            self._socket.connect((host, port))
            self.mtu = self._known()
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> _Way:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def probe(self) -> None:
        # Refused by the other end, or too long meanwhile: has_news() sees the latter.
        with contextlib.suppress(OSError):
            self._socket.send(bytes(max(0, self.mtu - _IP_AND_UDP_HEADERS[self._version])))

    def has_news(self) -> bool:
        before, self.mtu = self.mtu, self._known()
        return self.mtu != before

    def _known(self) -> int:
        if self._version == 4:
            return self._socket.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        return self._socket.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
