# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The journal: one file per attachment, written before ADD changes the kernel, removed when DEL has removed the rest.

DEL, GC and repair work from it, without the pod's namespace or the runtime's cache. An entry's path is ``<state
directory>/<network>/<container id>:<interface>``; the path alone, without the content, tells DEL what it needs.
Each line is a JSON object: first what ADD is about to do, then what was added later. For each key the last line counts.
"""

from __future__ import annotations

import posix
from time import time

from ..cni.attachment import Attachment
from ..cni.spec import is_ifname, is_name
from ..fast_json import dumps, loads
from ..names import HOST_IFNAME, host_ifname
from .directory import StateError, make_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def networks(state_dir: str) -> list[str]:
    """Return the names of the networks that have a journal on this node, sorted."""
    try:
        return sorted(name for name in posix.listdir(state_dir) if is_name(name))
    except OSError:
        return []


class Journal:
    """The journal of all networks that keep their state in one directory."""

    def __init__(self, state_dir: str) -> None:
        self._state_dir = state_dir

    def begin(self, attachment: Attachment, entry: dict[str, Any]) -> None:
        """Write a new entry, in place of any earlier entry of the attachment. Raises StateError."""
        path = self._path(attachment)
        try:
            try:
                _append(path, posix.O_CREAT | posix.O_TRUNC, entry)
            except FileNotFoundError:
                make_directories(self._directory(attachment.network))
                _append(path, posix.O_CREAT | posix.O_TRUNC, entry)
        except OSError as error:
            raise StateError(f"cannot write the journal {path}: {error.strerror}") from None

    def add(self, attachment: Attachment, more: dict[str, Any]) -> None:
        """Add keys to an entry that exists, or overwrite them. Raises StateError."""
        path = self._path(attachment)
        try:
            _append(path, posix.O_APPEND, more)
        except OSError as error:
            raise StateError(f"cannot write the journal {path}: {error.strerror}") from None

    def read(self, attachment: Attachment) -> dict[str, Any] | None:
        """Return the entry, or None if there is none. Raises StateError.

        Lines that were cut off, as by a full disk, are passed over; an entry without a readable line is ``{}``.
        """
        path = self._path(attachment)
        try:
            with open(path, "rb", 0) as file:
                text = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read the journal {path}: {error.strerror}") from None
        entry: dict[str, Any] = {}
        for line in filter(None, text.splitlines()):
            try:
                entry |= loads(line.decode())
            except (TypeError, ValueError):
                continue
        return entry

    def host_end(self, attachment: Attachment) -> str:
        """Return the name of the host's end of the veth pair, also where the entry cannot be read or is missing."""
        try:
            entry = self.read(attachment)
        except StateError:
            entry = None  # An unreadable entry must not keep a pod from being removed.
        return self.host_end_in(entry, attachment)

    def host_end_in(self, entry: dict[str, Any] | None, attachment: Attachment) -> str:
        """Return the name that the entry notes, which an older version may have chosen otherwise, or else today's."""
        noted = (entry or {}).get("host")
        if isinstance(noted, str) and noted.startswith(HOST_IFNAME) and is_ifname(noted):
            return noted
        return host_ifname(*attachment)

    def remove(self, attachment: Attachment) -> None:
        """Remove the entry, if there is one. Raises StateError."""
        path = self._path(attachment)
        try:
            posix.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateError(f"cannot remove the journal {path}: {error.strerror}") from None

    def size(self, network: str) -> int:
        """Return how many attachments have an entry; 0 where the directory cannot be read."""
        try:
            return len(posix.listdir(self._directory(network)))
        except OSError:
            return 0

    def attachments(self, network: str) -> list[Attachment]:
        """Return the attachments that have an entry, in no order; their names may be invalid. Raises StateError."""
        try:
            names = posix.listdir(self._directory(network))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateError(f"cannot read the journal {self._directory(network)}: {error.strerror}") from None
        parts = (name.rpartition(":") for name in names)
        return [Attachment(network, container_id, ifname) for container_id, colon, ifname in parts if colon]

    def younger_than(self, network: str, seconds: float) -> set[Attachment]:
        """Return the attachments whose entries were written within the last ``seconds``. Raises StateError."""
        since = time() - seconds
        found = set()
        for attachment in self.attachments(network):
            try:
                if posix.stat(self._path(attachment)).st_mtime > since:
                    found.add(attachment)
            except FileNotFoundError:
                continue
        return found

    def _directory(self, network: str) -> str:
        return f"{self._state_dir}/{network}"

    def _path(self, attachment: Attachment) -> str:
        return f"{self._state_dir}/{attachment.path}"


def _append(path: str, flags: int, value: dict[str, Any]) -> None:
    descriptor = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | flags, 0o600)
    try:
        # The line before may have been cut off, or be of a version that ended an entry without a newline.
        text = (b"\n" if flags & posix.O_APPEND else b"") + dumps(value).encode() + b"\n"
        while text:
            text = text[posix.write(descriptor, text) :]
    finally:
        posix.close(descriptor)
