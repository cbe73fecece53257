# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""DEL: nothing of an attachment is left, whatever of it there is: a whole one, what a killed ADD has left, or nothing.

Everything is found by the container's id and the interface's name alone.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from .attachment_lock import AttachmentLock
from .cni_protocol import Call, CniError
from .errors import EvioError
from .ipam import IpamCall, start_ipam
from .journal import Journal
from .links import LinkSocket
from .netconf import NetConf
from .netlink import NetlinkError


def delete(call: Call, conf: NetConf) -> None:
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
    failure: EvioError | None = None
    ipam: IpamCall | None = None
    removal = _VethRemoval(name)
    # Read while the kernel is at work on the veth.
    from .unplugging import try_to_unplug

    unplugged = not is_plugged or try_to_unplug(conf, name)
    try:
        ipam = start_ipam("DEL", call, conf)
    except CniError as error:
        failure = error
    failure = removal.finish() or failure
    if ipam is not None:
        failure = ipam.finish_quietly() or failure
    if failure is None and unplugged:
        journal.remove(call.container_id, call.ifname)
    elif failure is None and journal.read(call.container_id, call.ifname) is not None:
        journal.add(call.container_id, call.ifname, {"deleted": True})
    return failure


class _VethRemoval:
    """The kernel's own part, which takes longer than all the rest: begun first, in a thread, and awaited last."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failure: EvioError | None = None
        self._under_way = allocate_lock()
        self._under_way.acquire()
        try:
            start_new_thread(self._run, ())
        except RuntimeError:  # No thread is to be had.
            self._run()

    def finish(self) -> EvioError | None:
        """What went wrong."""
        self._under_way.acquire()
        return self._failure

    def _run(self) -> None:
        try:
            with LinkSocket() as host:
                host.delete_link(self._name)
        except NetlinkError as error:
            self._failure = error
        except Exception as error:
            self._failure = EvioError(f"unexpected {type(error).__name__}: {error}")
        finally:
            self._under_way.release()
