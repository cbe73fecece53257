# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Path MTU discovery (RFC 1191, RFC 8201): how many bytes the paths to other nodes carry.

The kernel remembers what routers report; this file sends the packets that make them report. The overlay's MTU that
follows is wireguard/member's subject.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable
from ipaddress import ip_address

from ..cidr import family
from ..kernel.numbers import IP_MTU, IP_MTU_DISCOVER, IPV6_MTU, IPV6_MTU_DISCOVER, PMTUDISC_DO
from .endpoint import endpoint_host

PATIENCE = 0.8
"""Seconds without a change until all paths count as known: a router's report comes back within a round trip."""

_PROBE_INTERVAL = 0.2
_POLL_INTERVAL = 0.02
"""Seconds."""

_DOCUMENTATION_ADDRESS = {4: "192.0.2.1", 6: "2001:db8:ffff:ffff::1"}
"""By IP version (RFC 5737, RFC 3849): the kernel routes it by the default route. Nothing is sent there."""

_DISCARD_PORT = 9
"""RFC 863"""

_IP_AND_UDP_HEADERS = {4: 28, 6: 48}
"""Bytes by IP version."""


def path_mtus(endpoints: Iterable[str]) -> dict[str, int]:
    """Return the largest IP packet in bytes that reaches each ``address:port`` unfragmented.

    Endpoints without a route are left out. Datagrams of zeros are sent there, which WireGuard drops silently. A router
    that drops large packets without reporting it (a "black hole") is not noticed.
    """
    with contextlib.ExitStack() as stack:
        paths = {}
        for endpoint in dict.fromkeys(endpoints):
            port = int(endpoint.rpartition(":")[2])
            with contextlib.suppress(OSError):
                paths[endpoint] = stack.enter_context(_Path(endpoint_host(endpoint), port))
        started = last_change = time.monotonic()
        next_probe = 0.0
        while (now := time.monotonic()) - last_change < PATIENCE and now - started < 5 * PATIENCE:
            changes = [path.has_changed() for path in paths.values()]
            if any(changes):
                last_change = next_probe = now
            if now >= next_probe:
                next_probe = now + _PROBE_INTERVAL
                for path in paths.values():
                    path.probe()
            time.sleep(_POLL_INTERVAL)
        return {endpoint: path.mtu for endpoint, path in paths.items()}


def known_path_mtus(endpoints: Iterable[str]) -> dict[str, int]:
    """Return the path MTU in bytes that the kernel knows for each ``address:port``. Nothing is sent.

    Endpoints without a route are left out. Where no router has reported anything yet, it is the MTU of the route.
    """
    found = {}
    for endpoint in dict.fromkeys(endpoints):
        with (
            contextlib.suppress(OSError, ValueError),
            _Path(endpoint_host(endpoint), int(endpoint.rpartition(":")[2])) as path,
        ):
            found[endpoint] = path.mtu
    return found


def route_mtu(endpoint: str) -> int | None:
    """Return the MTU in bytes of the default route for the endpoint's IP version; None if there is no such route."""
    version = ip_address(endpoint_host(endpoint)).version
    with contextlib.suppress(OSError), _Path(_DOCUMENTATION_ADDRESS[version], _DISCARD_PORT) as path:
        return path.mtu
    return None


def forbid_fragmentation(sender: socket.socket) -> None:
    """Let the kernel send only packets with Don't Fragment, and refuse packets longer than the path MTU it knows."""
    if sender.family == socket.AF_INET:
        sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO)


class _Path:
    """A connected UDP socket that never fragments. Its creation raises OSError if no route leads to the host."""

    def __init__(self, host: str, port: int) -> None:
        self._version = ip_address(host).version
        self._socket = socket.socket(family(host), socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            forbid_fragmentation(self._socket)
            self._socket.connect((host, port))
            self.mtu = self._path_mtu()
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> _Path:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def probe(self) -> None:
        """Send a packet of the path MTU known now."""
        # The other end refuses it, or it has become too long: has_changed() notices the latter.
        with contextlib.suppress(OSError):
            self._socket.send(bytes(max(0, self.mtu - _IP_AND_UDP_HEADERS[self._version])))

    def has_changed(self) -> bool:
        """Return whether the kernel knows another path MTU than at the last call."""
        before, self.mtu = self.mtu, self._path_mtu()
        return self.mtu != before

    def _path_mtu(self) -> int:
        if self._version == 4:
            return self._socket.getsockopt(socket.IPPROTO_IP, IP_MTU)
        return self._socket.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
