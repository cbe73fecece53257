# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Messages of a service to systemd: that it is ready, that it is alive, and its status line."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*assignments: str) -> None:
    """Send assignments such as ``READY=1`` to systemd (sd_notify(3)); do nothing if systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
            # A leading @ stands for a socket in the abstract namespace (unix(7)).
            sender.connect(address.replace("@", "\0", 1))
            sender.send("\n".join(assignments).encode())
