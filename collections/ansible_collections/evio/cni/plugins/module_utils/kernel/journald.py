# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Send an entry with fields to systemd's journal (systemd.io, "Native Journal Protocol").

Programs that units run write to standard error, which the journal reads, too. The CNI plugin is run by the container
runtime, and has no unit.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"

_LONGEST_VALUE = 8192
"""Bytes of a value; what is longer is cut. So all fields fit into one datagram (net.core.wmem_default is 212992)."""


def send_entry(fields: Mapping[str, str], path: str = SOCKET) -> None:
    """Send one entry. It is lost where no journal listens, or where it is too busy to take it: nobody waits for it.

    Names are upper case letters, digits and underscores. A value may be any text; an empty one is left out.
    """
    datagram = b"".join(_field(name, value) for name, value in fields.items() if value)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.setblocking(False)
            connection.sendto(datagram, path)
    except OSError:
        return


def _field(name: str, value: str) -> bytes:
    """Return one field with the length of its value, so that a newline in it does not begin another field."""
    data = value.encode("utf-8", "surrogateescape")[:_LONGEST_VALUE]
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
