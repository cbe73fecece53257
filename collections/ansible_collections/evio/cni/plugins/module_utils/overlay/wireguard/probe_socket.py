# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The UDP socket with which the overlay's agents exchange messages, on the overlay interface only.

The content of the messages is messages' subject; when they are sent is path_selection's.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable, Iterator

from ...mtu import MOST_OVERLAY_MTU
from ..endpoint import OverlayError
from ..path_mtu import forbid_fragmentation
from .config import PROBE_PORT, OverlayConfig, probe_address

_SO_RCVBUFFORCE = 33
"""asm-generic/socket.h"""

_RECEIVE_BUFFER = 1 << 20
"""Bytes: more than a thousand messages, as the kernel counts them."""


class ProbeSocket:
    """A socket bound to the overlay interface and the node's probe address, registered with a selector."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        data: object,
        address_of: Callable[[str], str] = probe_address,
    ) -> None:
        """Open nothing yet; ``data`` is what the selector reports when a datagram is there.

        ``address_of`` returns the probe address of the node with a host overlay address.
        """
        self._address_of = address_of
        self._selector = selector
        self._data = data
        self._socket: socket.socket | None = None
        self._bound_to: tuple[tuple[str, int], int] | None = None

    def ensure_open(self, config: OverlayConfig) -> None:
        """Open the socket, again if the interface or the address is another. Raises OverlayError."""
        address = (self._address_of(config.address), PROBE_PORT)
        bound_to = (address, socket.if_nametoindex(config.interface))
        if self._socket is not None:
            if self._bound_to == bound_to:
                return
            self.close()
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, config.interface.encode())
            # A padded probe that had to be fragmented would not show that the path carries the overlay's MTU.
            forbid_fragmentation(opened)
            # Room for the messages of the other peers while one peer floods this node.
            with contextlib.suppress(PermissionError):
                opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            opened.bind(address)
        except OSError as error:
            opened.close()
            raise OverlayError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from error
        self._socket, self._bound_to = opened, bound_to
        self._selector.register(opened, selectors.EVENT_READ, self._data)

    def close(self) -> None:
        """Close the socket if it is open."""
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def receive(self, most: int) -> Iterator[tuple[str, int, bytes]]:
        """Yield the sender's probe address, its UDP port and the datagram, for at most so many that are there."""
        for _number in range(most):
            if self._socket is None:
                return
            try:
                datagram, (source, port) = self._socket.recvfrom(MOST_OVERLAY_MTU + 1)
            except OSError:
                return
            yield source, port, datagram

    def send(self, peer_address: str, datagram: bytes) -> None:
        """Send to the agent of the peer with this host overlay address; a datagram that cannot be sent is dropped."""
        if self._socket is not None:
            # The peer has no endpoint yet, or the queue is full: the next probe follows in a second.
            with contextlib.suppress(OSError):
                self._socket.sendto(datagram, (self._address_of(peer_address), PROBE_PORT))
