# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Send an entry with fields to systemd's journal (systemd.io, "Native Journal Protocol"), or a line with a priority.

Programs that units run write to standard error, which the journal reads; a prefix tells it the line's priority. The CNI
plugin is run by the container runtime, and has no unit: it sends entries.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

SOCKET = "/run/systemd/journal/socket"

ERROR, WARNING, INFO = 3, 4, 6
"""Priorities: LOG_ERR, LOG_WARNING and LOG_INFO (syslog(3))."""

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


def with_priority(text: str, priority: int, stream: TextIO) -> str:
    """Return the text as it is to be written to the stream: if the journal reads that, each line has its priority.

    The prefix is that of sd-daemon(3). For a stream that goes elsewhere, such as a terminal, the text stays as it is.
    """
    if not _is_journal(stream):
        return text
    return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))


def _is_journal(stream: TextIO) -> bool:
    """Return whether systemd has connected the stream with the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _field(name: str, value: str) -> bytes:
    """Return one field with the length of its value, so that a newline in it does not begin another field."""
    data = value.encode("utf-8", "surrogateescape")[:_LONGEST_VALUE]
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
