# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""DEL: nothing of an attachment is left, whatever of it there is: a whole one, what a killed ADD has left, or nothing.

Everything is found by the container's id and the interface's name alone.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from ..cni.attachment import Attachment
from ..errors import EvioError
from ..kernel.netlink import NetlinkError
from ..kernel.rtnetlink import LinkSocket
from ..state.journal import Journal
from ..state.lock import AttachmentLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf
    from ..cni.spec import Call


def cmd_del(call: Call, conf: NetConf) -> None:
    """Serve DEL. Raises EvioError where something of the attachment is left that the next DEL has to remove."""
    delete_attachment(Attachment(conf.name, call.container_id, call.ifname), conf, call.path, call.netns)


def delete_attachment(attachment: Attachment, conf: NetConf, cni_path: str, netns: str = "") -> None:
    """Remove an attachment as DEL does. Raises EvioError.

    IPAM's plugin is looked for in ``cni_path``, a list as in CNI_PATH, and is told ``netns``, which may be empty.
    """
    # A disk that is full or read-only keeps no pod from being removed; that its entry stays is told at the end.
    with AttachmentLock(conf.state_dir, attachment, is_required=False):
        failure = detach(attachment, conf, cni_path, netns)
    if failure is not None:
        raise failure


def detach(
    attachment: Attachment, conf: NetConf, cni_path: str, netns: str = "", *, is_plugged: bool = True
) -> EvioError | None:
    """Port, veth, reservation, and last the journal's entry: it goes only when all the rest has. What went wrong.

    An Open vSwitch that is down keeps its row, and the entry with it, for the next DEL, GC or repair; ``is_plugged``:
    there may be such a row.
    """
    journal = Journal(conf.state_dir)
    name = journal.host_end(attachment)
    release = _Release(attachment, conf, cni_path, netns, name, is_plugged=is_plugged)
    failure: EvioError | None = None
    try:
        with LinkSocket() as host:
            # From here until the kernel has the message nothing lets go of the interpreter, which the thread waits for.
            release.begin()
            host.delete_link(name)
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
    """Port and reservation given back in a thread, while the kernel takes the veth apart: that takes longer than all
    the rest, and is what a DEL waits for.
    """

    def __init__(
        self, attachment: Attachment, conf: NetConf, cni_path: str, netns: str, name: str, *, is_plugged: bool
    ) -> None:
        self.failure: EvioError | None = None
        self.is_unplugged = not is_plugged
        self._attachment = attachment
        self._conf = conf
        self._cni_path = cni_path
        self._netns = netns
        self._name = name
        self._is_begun = False
        self._under_way = allocate_lock()
        self._under_way.acquire()

    def begin(self) -> None:
        """Without waiting for it."""
        self._is_begun = True
        try:
            start_new_thread(self._run, ())
        except RuntimeError:  # No thread is to be had.
            self._run()

    def finish(self) -> None:
        """Return when both are given back, begun or not, or ``failure`` says why not."""
        if not self._is_begun:
            self._run()
        self._under_way.acquire()

    def _run(self) -> None:
        try:
            # Read now, and not while the kernel had nothing to do.
            from ..ipam.delegate import start_ipam
            from ..ovs.ports import try_to_unplug

            self.is_unplugged = self.is_unplugged or try_to_unplug(self._conf, self._name)
            ipam = start_ipam("DEL", self._attachment, self._conf, self._cni_path, self._netns)
            self.failure = ipam.result_or_error()
        except EvioError as error:
            self.failure = error
        except Exception as error:
            self.failure = EvioError(f"unexpected {type(error).__name__}: {error}")
        finally:
            self._under_way.release()
