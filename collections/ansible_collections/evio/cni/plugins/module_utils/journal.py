# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The journal: one file an attachment, written before the kernel is touched and removed when nothing is left of it.

So that DEL, GC and repair need neither the pod's namespace nor the runtime's cache. A file is ``<state
directory>/<network>/<container id>:<interface>``; whatever is in it, its name alone tells what DEL needs.
"""

from __future__ import annotations

import posix
from time import time

from .attachment_lock import make_directories
from .cni_protocol import IO_FAILURE, CniError, is_ifname, is_name
from .ownership import HOST_IFNAME, host_ifname
from .plain_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TEMPORARY = ".tmp-"


def boot_id() -> str:
    """What tells this boot of the host from others: no attachment outlives one."""
    descriptor = posix.open("/proc/sys/kernel/random/boot_id", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(descriptor, 64).decode().strip()
    finally:
        posix.close(descriptor)


def networks(state_dir: str) -> list[str]:
    """The networks that have a journal on this node."""
    try:
        return sorted(name for name in posix.listdir(state_dir) if is_name(name))
    except OSError:
        return []


class Journal:
    """The journal of one network."""

    def __init__(self, state_dir: str, network: str) -> None:
        self._network = network
        self._directory = f"{state_dir}/{network}"

    def write(self, container_id: str, ifname: str, entry: dict[str, Any]) -> None:
        """Put the entry in place as a whole. Raises CniError."""
        self.prepare(container_id, ifname, entry)
        self.commit(container_id, ifname)

    def prepare(self, container_id: str, ifname: str, entry: dict[str, Any]) -> None:
        """Write the entry beside the one that is in place, for ``commit``. Raises CniError."""
        temporary = self._temporary(container_id, ifname)
        try:
            try:
                descriptor = self._create(temporary)
            except FileNotFoundError:
                make_directories(self._directory)
                descriptor = self._create(temporary)
            try:
                text = dumps(entry).encode()
                while text:
                    text = text[posix.write(descriptor, text) :]
            finally:
                posix.close(descriptor)
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot write the journal {temporary}: {error.strerror}") from None

    def commit(self, container_id: str, ifname: str) -> None:
        """Put the prepared entry in place. Raises CniError."""
        try:
            posix.rename(self._temporary(container_id, ifname), self._path(container_id, ifname))
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot write the journal in {self._directory}: {error.strerror}") from None

    def read(self, container_id: str, ifname: str) -> dict[str, Any] | None:
        """The entry, or None; an empty one where a crash of the host has left no readable content."""
        try:
            descriptor = posix.open(self._path(container_id, ifname), posix.O_RDONLY | posix.O_CLOEXEC)
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
        try:
            entry = loads(text.decode())
        except ValueError:
            return {}
        return entry if isinstance(entry, dict) else {}

    def host_end(self, container_id: str, ifname: str) -> str:
        """The name of the host's end, as its ADD has noted it: an older version of ours may have named it otherwise."""
        try:
            noted = (self.read(container_id, ifname) or {}).get("host")
        except CniError:
            noted = None  # No pod stays because its entry cannot be read.
        if isinstance(noted, str) and noted.startswith(HOST_IFNAME) and is_ifname(noted):
            return noted
        return host_ifname(self._network, container_id, ifname)

    def remove(self, container_id: str, ifname: str) -> None:
        """Forget the attachment, and what a write that was killed has left of it."""
        for path in (self._temporary(container_id, ifname), self._path(container_id, ifname)):
            try:
                posix.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise CniError(IO_FAILURE, f"cannot remove from the journal: {error.strerror}") from None

    def attachments(self) -> list[tuple[str, str]]:
        """Container id and interface of every entry, and of every one whose first writing was killed."""
        try:
            names = posix.listdir(self._directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot read the journal: {error.strerror}") from None
        pairs = (name.rpartition(":") for name in {name.removeprefix(_TEMPORARY) for name in names})
        return [(container_id, ifname) for container_id, colon, ifname in pairs if colon]

    def younger_than(self, seconds: float) -> set[tuple[str, str]]:
        """Entries that were written within the last so many seconds."""
        since = time() - seconds
        found = set()
        for container_id, ifname in self.attachments():
            for path in (self._temporary(container_id, ifname), self._path(container_id, ifname)):
                try:
                    if posix.stat(path).st_mtime > since:
                        found.add((container_id, ifname))
                except FileNotFoundError:
                    continue
        return found

    def _path(self, container_id: str, ifname: str) -> str:
        return f"{self._directory}/{container_id}:{ifname}"

    def _temporary(self, container_id: str, ifname: str) -> str:
        return f"{self._directory}/{_TEMPORARY}{container_id}:{ifname}"

    @staticmethod
    def _create(path: str) -> int:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC | posix.O_NOFOLLOW
        return posix.open(path, flags, 0o600)
