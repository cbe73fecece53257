# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lock of an attachment: one call at a time works on it, so a DEL waits for an ADD that its runtime has given up.

All attachments share one file and each locks one byte of it, which follows from its name: no file per attachment is
left behind. The lock belongs to the open file (OFD lock, fcntl(2)), which the IPAM plugin inherits: an IPAM process
that outlives a killed ADD still holds it.
"""

from __future__ import annotations

import posix
from time import monotonic, sleep

from ..names import short_hash
from .directory import StateError, make_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.attachment import Attachment

LONGEST_CALL_SECONDS = 120.0
"""Longer than any call works on an attachment: ``deadline`` has ADD's time, and that for undoing a failed ADD."""

_FILE = ".lock"
_POLL_SECONDS = 0.005


def lock_file(state_dir: str) -> str:
    """Return the path of the file that all attachments share."""
    return f"{state_dir}/{_FILE}"


class AttachmentBusyError(StateError):
    """Another call has been at work on the attachment for too long."""


class AttachmentLock:
    """Held from ``with`` to its end, or until the last process that has inherited it ends."""

    def __init__(
        self,
        state_dir: str,
        attachment: Attachment,
        longest_wait: float = LONGEST_CALL_SECONDS,
        *,
        is_required: bool = True,
    ) -> None:
        """Wait ``longest_wait`` seconds at most. Where no lock file can be opened, raise only if it ``is_required``."""
        self._directory = state_dir
        self._attachment = attachment
        self._longest_wait = longest_wait
        self._is_required = is_required
        self._descriptor = -1

    def open(self) -> None:
        """Open the file, without taking the lock: processes that are started from now on inherit it.

        Raises StateError.
        """
        try:
            self._descriptor = self._open()
            posix.set_inheritable(self._descriptor, True)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Close the file, which releases the lock unless another process has inherited it."""
        if self._descriptor >= 0:
            posix.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> None:
        """Take the lock. Raises AttachmentBusyError when another call holds it for too long, and StateError."""
        if self._descriptor < 0:
            self.open()
        if self._descriptor >= 0:
            try:
                self._lock(monotonic() + self._longest_wait)
            except OSError as error:
                self._fail(error)
            except BaseException:
                self.close()
                raise

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _open(self) -> int:
        path, flags = lock_file(self._directory), posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW
        try:
            return posix.open(path, flags, 0o600)
        except FileNotFoundError:
            make_directories(self._directory)
            return posix.open(path, flags, 0o600)

    def _lock(self, deadline: float) -> None:
        # stage: read while IPAM's process starts.
        import fcntl
        from _struct import pack

        # struct flock: type, whence, start, length, pid.
        lock = pack("hhqqi", fcntl.F_WRLCK, 0, int(short_hash(self._attachment.path), 16), 1, 0)
        while True:
            try:
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, lock)
                return
            except BlockingIOError:
                if monotonic() > deadline:
                    raise AttachmentBusyError(
                        f"another call for {self._attachment} has been at work for {self._longest_wait:g} s"
                    ) from None
                sleep(_POLL_SECONDS)

    def _fail(self, error: OSError) -> None:
        self.close()
        if self._is_required:
            raise StateError(f"cannot lock {lock_file(self._directory)}: {error.strerror}") from None
