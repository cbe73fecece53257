# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One call at a time for each attachment: a DEL waits for the ADD that its runtime has given up.

A lock on one byte of one file, which byte the attachment's name says, so that nothing is left behind for each. It
belongs to the open file (OFD, fcntl(2)), which the IPAM plugin inherits: an orphan of a killed ADD holds it as well.
"""

from __future__ import annotations

import posix
from _struct import pack
from time import monotonic, sleep

from ..cni.spec import IO_FAILURE, TRY_AGAIN, CniError
from ..names import short_hash
from .directory import make_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.attachment import Attachment

_FILE = ".lock"
_LONGEST_WAIT = 60.0
"""Seconds; longer than any ADD takes: IPAM has 20, and as many when it is undone, Open vSwitch 5."""
_PAUSE = 0.005


class AttachmentLock:
    """Held from ``with`` to its end, or to that of the last process that has inherited it; awaited so many seconds."""

    def __init__(
        self, state_dir: str, attachment: Attachment, longest_wait: float = _LONGEST_WAIT, *, is_needed: bool = True
    ) -> None:
        """``is_needed``: an error where the state directory takes no lock; else it is done without."""
        self._directory = state_dir
        self._attachment = attachment
        self._longest_wait = longest_wait
        self._is_needed = is_needed
        self._descriptor = -1

    def open(self) -> None:
        """Without holding it yet: processes that are started from now on inherit it. Raises CniError."""
        try:
            self._descriptor = self._open()
            posix.set_inheritable(self._descriptor, True)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Let go of it, at least here."""
        if self._descriptor >= 0:
            posix.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> None:
        """Raises CniError."""
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

    def __exit__(self, *_what: object) -> None:
        self.close()

    def _fail(self, error: OSError) -> None:
        self.close()
        if self._is_needed:
            raise CniError(IO_FAILURE, f"cannot lock {self._directory}/{_FILE}: {error.strerror}") from None

    def _open(self) -> int:
        path, flags = f"{self._directory}/{_FILE}", posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW
        try:
            return posix.open(path, flags, 0o600)
        except FileNotFoundError:
            make_directories(self._directory)
            return posix.open(path, flags, 0o600)

    def _lock(self, deadline: float) -> None:
        # Not before IPAM's process is under way.
        import fcntl

        wanted = pack("hhqqi", fcntl.F_WRLCK, 0, int(short_hash(self._attachment.path), 16), 1, 0)
        while True:
            try:
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, wanted)
                return
            except BlockingIOError:
                if monotonic() > deadline:
                    raise CniError(
                        TRY_AGAIN, f"another call for {self._attachment} has been at work for {self._longest_wait:g} s"
                    ) from None
                sleep(_PAUSE)
