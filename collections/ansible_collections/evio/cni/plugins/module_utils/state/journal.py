# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The journal: one file an attachment, written before the kernel is touched and removed when nothing is left of it.

So that DEL, GC and repair need neither the pod's namespace nor the runtime's cache. A file is ``<state
directory>/<network>/<container id>:<interface>``; whatever is in it, its name alone tells what DEL needs. Each of its
lines is a JSON object: what ADD had in mind, what it has made of that, and each key counts as it was last said.
"""

from __future__ import annotations

import posix
from time import time

from ..cni.attachment import Attachment
from ..cni.spec import IO_FAILURE, CniError, is_ifname, is_name
from ..fast_json import dumps, loads
from ..names import HOST_IFNAME, host_ifname
from .directory import make_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def networks(state_dir: str) -> list[str]:
    """The networks that have a journal on this node."""
    try:
        return sorted(name for name in posix.listdir(state_dir) if is_name(name))
    except OSError:
        return []


class Journal:
    """The journal of all networks in one state directory."""

    def __init__(self, state_dir: str) -> None:
        self._state_dir = state_dir

    def begin(self, attachment: Attachment, entry: dict[str, Any]) -> None:
        """Put an entry in place, instead of what there may be. Raises CniError."""
        path = self._path(attachment)
        try:
            try:
                self._append(path, posix.O_CREAT | posix.O_TRUNC, entry)
            except FileNotFoundError:
                make_directories(f"{self._state_dir}/{attachment.network}")
                self._append(path, posix.O_CREAT | posix.O_TRUNC, entry)
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot write the journal {path}: {error.strerror}") from None

    def add(self, attachment: Attachment, more: dict[str, Any]) -> None:
        """Say more in an entry that is there. Raises CniError."""
        path = self._path(attachment)
        try:
            self._append(path, posix.O_APPEND, more)
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot write the journal {path}: {error.strerror}") from None

    def read(self, attachment: Attachment) -> dict[str, Any] | None:
        """The entry, or None; an empty one where a crash of the host has left no readable content.

        A line that was cut off, as by the disk's end, was not said.
        """
        try:
            descriptor = posix.open(self._path(attachment), posix.O_RDONLY | posix.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot read the journal: {error.strerror}") from None
        try:
            text = b""
            while block := posix.read(descriptor, 1 << 16):
                text += block
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot read the journal: {error.strerror}") from None
        finally:
            posix.close(descriptor)
        entry: dict[str, Any] = {}
        for line in filter(None, text.splitlines()):
            try:
                entry |= loads(line.decode())
            except (TypeError, ValueError):
                continue
        return entry

    def host_end(self, attachment: Attachment) -> str:
        """The name of the host's end of the attachment."""
        try:
            entry = self.read(attachment)
        except CniError:
            entry = None  # No pod stays because its entry cannot be read.
        return self.host_end_in(entry, attachment)

    def host_end_in(self, entry: dict[str, Any] | None, attachment: Attachment) -> str:
        """The same as its ADD has noted it in the entry: an older version of ours may have named it otherwise."""
        noted = (entry or {}).get("host")
        if isinstance(noted, str) and noted.startswith(HOST_IFNAME) and is_ifname(noted):
            return noted
        return host_ifname(*attachment)

    def remove(self, attachment: Attachment) -> None:
        """Forget the attachment. Raises CniError."""
        try:
            posix.unlink(self._path(attachment))
        except FileNotFoundError:
            return
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot remove from the journal: {error.strerror}") from None

    def attachments(self, network: str) -> list[Attachment]:
        """Return the attachment of every entry of a network, in no order."""
        try:
            names = posix.listdir(f"{self._state_dir}/{network}")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot read the journal: {error.strerror}") from None
        pairs = (name.rpartition(":") for name in names)
        return [Attachment(network, container_id, ifname) for container_id, colon, ifname in pairs if colon]

    def younger_than(self, network: str, seconds: float) -> set[Attachment]:
        """Entries that were written within the last so many seconds."""
        since = time() - seconds
        found = set()
        for attachment in self.attachments(network):
            try:
                if posix.stat(self._path(attachment)).st_mtime > since:
                    found.add(attachment)
            except FileNotFoundError:
                continue
        return found

    def _path(self, attachment: Attachment) -> str:
        return f"{self._state_dir}/{attachment.path}"

    @staticmethod
    def _append(path: str, flags: int, value: dict[str, Any]) -> None:
        descriptor = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | flags, 0o600)
        try:
            # Behind a line that was cut off too, or one from before there were others.
            text = (b"\n" if flags & posix.O_APPEND else b"") + dumps(value).encode() + b"\n"
            while text:
                text = text[posix.write(descriptor, text) :]
        finally:
            posix.close(descriptor)
