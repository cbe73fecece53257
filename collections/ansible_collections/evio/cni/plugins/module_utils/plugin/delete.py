# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""DEL: remove an attachment, be it complete, half made by a killed ADD, or gone already.

The attachment's name is enough to find all of it, so the pod's namespace may be gone, and the journal's entry missing.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from ..cni.attachment import Attachment
from ..errors import EvioError
from ..kernel.links import LinkSocket
from ..kernel.netlink import NetlinkError
from ..state.journal import Journal
from ..state.lock import AttachmentLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf
    from ..cni.spec import Call


def cmd_del(call: Call, conf: NetConf) -> None:
    """Serve DEL. Raises EvioError where something of the attachment is left; the next DEL removes it."""
    delete_attachment(Attachment(conf.name, call.container_id, call.ifname), conf, call.path, call.netns)


def delete_attachment(attachment: Attachment, conf: NetConf, cni_path: str, netns: str = "") -> None:
    """Remove an attachment as DEL does. Raises EvioError.

    IPAM's plugin is looked for in ``cni_path``, a list as in CNI_PATH, and is told ``netns``, which may be empty.
    """
    # A state directory that is full or read-only must not keep a pod from being removed.
    with AttachmentLock(conf.state_dir, attachment, is_required=False):
        failure = detach(attachment, conf, cni_path, netns)
    if failure is not None:
        raise failure


def detach(
    attachment: Attachment, conf: NetConf, cni_path: str, netns: str = "", *, is_plugged: bool = True
) -> EvioError | None:
    """Remove port, veth pair and reservation, and then the journal's entry. Return what failed, or None.

    The entry stays until all the rest is removed: for the next DEL, GC or repair. While Open vSwitch is down, the row
    of the port stays in its database, and so does the entry. ``is_plugged``: whether there may be such a row.
    """
    journal = Journal(conf.state_dir)
    host_end = journal.host_end(attachment)
    release = _Release(attachment, conf, cni_path, netns, host_end, is_plugged=is_plugged)
    failure: EvioError | None = None
    try:
        with LinkSocket() as host:
            # Between here and the sending of RTM_DELLINK nothing releases the GIL: the thread starts its work after it.
            release.begin()
            host.delete_link(host_end)
    except NetlinkError as error:
        failure = error
    finally:
        release.finish()
    failure = release.failure or failure
    if failure is None and release.is_unplugged:
        journal.remove(attachment)
    elif failure is None and journal.read(attachment) is not None:
        journal.add(attachment, {"deleted": True})
    return failure


class _Release:
    """Removes the port and releases the addresses in a thread, while the kernel deletes the veth pair.

    The kernel takes longer for that than all the rest of a DEL.
    """

    def __init__(
        self, attachment: Attachment, conf: NetConf, cni_path: str, netns: str, host_end: str, *, is_plugged: bool
    ) -> None:
        self.failure: EvioError | None = None
        self.is_unplugged = not is_plugged
        self._attachment = attachment
        self._conf = conf
        self._cni_path = cni_path
        self._netns = netns
        self._host_end = host_end
        self._has_begun = False
        self._under_way = allocate_lock()
        self._under_way.acquire()

    def begin(self) -> None:
        """Start the thread."""
        self._has_begun = True
        try:
            start_new_thread(self._run, ())
        except RuntimeError:  # The process may have no further thread.
            self._run()

    def finish(self) -> None:
        """Return when the thread has ended; do its work here if it was not started. ``failure`` is set then."""
        if not self._has_begun:
            self._run()
        self._under_way.acquire()

    def _run(self) -> None:
        try:
            # stage: read while the kernel deletes the veth pair.
            from ..ipam.delegate import start_ipam
            from ..ovs.ports import try_to_unplug

            self.is_unplugged = self.is_unplugged or try_to_unplug(self._conf, self._host_end)
            ipam = start_ipam("DEL", self._attachment, self._conf, self._cni_path, self._netns)
            self.failure = ipam.result_or_error()
        except EvioError as error:
            self.failure = error
        except Exception as error:
            self.failure = EvioError(f"unexpected {type(error).__name__}: {error}")
        finally:
            self._under_way.release()
