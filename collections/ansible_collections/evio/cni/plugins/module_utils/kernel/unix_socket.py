# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Unix stream socket with timeouts: how the plugin reaches ovsdb-server and ovs-vswitchd.

What is said over it is up to ``ovs.jsonrpc`` and ``ovs.openflow``.
"""

from __future__ import annotations

import _socket
from _struct import pack

from .numbers import AF_UNIX, SO_RCVTIMEO, SO_SNDTIMEO, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def connect_unix(path: str, timeout: int) -> Any:
    """Return a socket that is connected to the server at ``path``; ``timeout`` in seconds limits each send and receive.

    A send or receive that takes longer raises BlockingIOError. Raises OSError where nobody listens.
    """
    connection = _socket.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        # By socket option (struct timeval): Python's own timeout would poll before each call.
        limit = pack("=qq", timeout, 0)
        connection.setsockopt(SOL_SOCKET, SO_RCVTIMEO, limit)
        connection.setsockopt(SOL_SOCKET, SO_SNDTIMEO, limit)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection
