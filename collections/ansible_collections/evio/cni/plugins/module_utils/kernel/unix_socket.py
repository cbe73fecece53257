# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Unix stream socket with timeouts: how the plugin reaches ovsdb-server and ovs-vswitchd.

What is said over it is up to ``ovs.jsonrpc`` and ``ovs.openflow``.
"""

from __future__ import annotations

import _socket
from _struct import pack
from time import monotonic

from .numbers import AF_UNIX, SO_RCVTIMEO, SO_SNDTIMEO, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def connect_unix(path: str, timeout: float) -> Any:
    """Return a socket that is connected to the server at ``path``; ``timeout`` in seconds limits each send.

    A send that takes longer raises BlockingIOError. Raises OSError where nobody listens.
    """
    connection = _socket.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        # By socket option (struct timeval): Python's own timeout would poll before each call.
        connection.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _timeval(timeout))
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def receive(connection: Any, deadline: float) -> bytes:
    """Return the next bytes, b"" at the end. Raises BlockingIOError after ``deadline``, a time of ``monotonic``."""
    connection.setsockopt(SOL_SOCKET, SO_RCVTIMEO, _timeval(deadline - monotonic()))
    received: bytes = connection.recv(1 << 16)
    return received


def _timeval(seconds: float) -> bytes:
    """Return a struct timeval of 1 ms at least: 0 would be no limit."""
    milliseconds = max(1, int(seconds * 1000))
    return pack("=qq", milliseconds // 1000, milliseconds % 1000 * 1000)
