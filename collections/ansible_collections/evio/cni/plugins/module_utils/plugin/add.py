# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ADD: IPAM's process first, which takes longest to come to life, and the rest of the code while it does.

One attempt of ADD: what is written down first, what is made then, and how all of it is undone when a part fails.

The journal is written before the kernel is touched; what the kernel and Open vSwitch have to do is wiring, which is
read only then. Everything that an ADD has made, DEL finds by the container's id and the interface's name alone, so what
a killed ADD left behind goes with the next DEL.
"""

from __future__ import annotations

import posix

from ..cni.netconf import NetConf
from ..cni.spec import FAILED, TRY_AGAIN, Call, CniError
from ..errors import EvioError, NothingBegunError
from ..ipam.delegate import IpamCall, prepare_ipam
from ..kernel.boot import boot_id
from ..kernel.netns import has_interface, open_netns
from ..state.fence import refuse_if_fenced
from ..state.journal import Journal
from ..state.lock import AttachmentLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.netconf import NetConf
    from ..cni.spec import Call


def cmd_add(call: Call, conf: NetConf) -> dict[str, Any]:
    """Attach the pod and return the result in its newest shape. Raises CniError with nothing left behind."""
    lock = AttachmentLock(conf, call)
    try:
        # Before IPAM is started, which inherits it.
        lock.open()
        ipam = prepare_ipam("ADD", call, conf)
        try:
            return attach(call, conf, lock, ipam)
        finally:
            ipam.close()
    finally:
        lock.close()


def attach(call: Call, conf: NetConf, lock: AttachmentLock, ipam: IpamCall) -> dict[str, Any]:
    """Attach the pod, with what an IPAM plugin answers that was not told its configuration yet. The result in its
    newest shape; raises CniError with nothing left behind.
    """
    refuse_if_fenced(conf.state_dir)
    netns = open_netns(call.netns)
    try:
        with lock:
            return _attach(call, conf, netns, ipam)
    finally:
        posix.close(netns)


def _attach(call: Call, conf: NetConf, netns: int, ipam: IpamCall) -> dict[str, Any]:
    journal, attachment = Journal(conf.state_dir, conf.name), (call.container_id, call.ifname)
    before = journal.read(*attachment)
    host = journal.host_end_in(before, *attachment)
    if before is not None and (before.get("deleted") or not has_interface(host)):
        # It speaks of what is over: a DEL or an ADD that could not finish, or another boot of the host.
        failure = _undo(call, conf, journal)
        if journal.read(*attachment) is not None:
            reason = failure or f"the OVSDB at {conf.ovsdb} does not answer"
            raise CniError(TRY_AGAIN, f"what is left of an earlier {call.ifname} cannot be taken away: {reason}")
        host = journal.host_end_in(None, *attachment)
    if has_interface(host):
        # Whether or not the journal knows of it: nothing of a living pod is undone by an ADD that comes twice.
        raise CniError(FAILED, f"{call.container_id} has {call.ifname} already; DEL it before it is added again")
    entry = {
        "netns": call.netns,
        "host": host,
        "bridge": conf.bridge,
        "ovsdb": conf.ovsdb,
        "config": {key: value for key, value in conf.raw.items() if key != "prevResult"},
        "path": call.path,
        "boot": boot_id(),
    }
    try:
        ipam.send_config()
        try:
            journal.begin(*attachment, entry)
            from .add_host_side import setup_host_side

            result, made = setup_host_side(call, conf, host, netns, ipam)
        finally:
            ipam.close()
        journal.add(*attachment, made)
    except BaseException as error:
        _undo(call, conf, journal, is_plugged=not isinstance(error, NothingBegunError))
        raise
    return result


def _undo(call: Call, conf: NetConf, journal: Journal, *, is_plugged: bool = True) -> EvioError | None:
    """What it cannot undo is left to the next DEL: the journal's entry stays. What went wrong."""
    from .delete import detach

    return detach(call, conf, journal, is_plugged=is_plugged)
