# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""DEL: nothing of an attachment is left, whatever of it there is: a whole one, what a killed ADD has left, or nothing.

Everything is found by the container's id and the interface's name alone.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from ..cni.spec import Call
from ..errors import EvioError
from ..kernel.netlink import NetlinkError
from ..kernel.rtnetlink import LinkSocket
from ..state.journal import Journal
from ..state.lock import AttachmentLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf


def cmd_del(call: Call, conf: NetConf) -> None:
    """Leave nothing of the attachment. Raises CniError where IPAM cannot release it."""
    # A disk that is full or read-only keeps no pod from being removed; that its entry stays is told at the end.
    with AttachmentLock(conf, call, is_needed=False):
        failure = detach(call, conf, Journal(conf.state_dir, conf.name))
    if failure is not None:
        raise failure


def detach(call: Call, conf: NetConf, journal: Journal, *, is_plugged: bool = True) -> EvioError | None:
    """Port, veth, reservation, and last the journal's entry: it goes only when all the rest has. What went wrong.

    An Open vSwitch that is down keeps its row, and the entry with it, for the next DEL, GC or repair; ``is_plugged``:
    there may be such a row.
    """
    name = journal.host_end(call.container_id, call.ifname)
    release = _Release(call, conf, name, is_plugged=is_plugged)
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
        journal.remove(call.container_id, call.ifname)
    elif failure is None and journal.read(call.container_id, call.ifname) is not None:
        journal.add(call.container_id, call.ifname, {"deleted": True})
    return failure


class _Release:
    """Port and reservation given back in a thread, while the kernel takes the veth apart: that takes longer than all
    the rest, and is what a DEL waits for.
    """

    def __init__(self, call: Call, conf: NetConf, name: str, *, is_plugged: bool) -> None:
        self.failure: EvioError | None = None
        self.is_unplugged = not is_plugged
        self._call = call
        self._conf = conf
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
            self.failure = start_ipam("DEL", self._call, self._conf).result_or_error()
        except EvioError as error:
            self.failure = error
        except Exception as error:
            self.failure = EvioError(f"unexpected {type(error).__name__}: {error}")
        finally:
            self._under_way.release()
