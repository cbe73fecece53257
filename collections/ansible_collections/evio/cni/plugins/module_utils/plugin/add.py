# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ADD: attach a pod to the network; of an ADD that fails, nothing is left.

IPAM's process is started first, because it takes longest; the code of the later steps is read while it starts. The
journal's entry is written before the kernel is touched, so that the next DEL finds what a killed ADD has left.
The veth pair and its port: add_host_side. What is set up inside the pod: add_pod_side.
"""

from __future__ import annotations

import posix

from ..cni.attachment import Attachment
from ..cni.spec import FAILED, TRY_AGAIN, CniError
from ..cni.unsupported import refuse_unsupported
from ..deadline import ADD_SECONDS, LOCK_SECONDS, UNDO_SECONDS, begin_call
from ..errors import NothingBegunError
from ..ipam.delegate import IpamRefusedError, prepare_ipam
from ..state.lock import AttachmentLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.netconf import NetConf
    from ..cni.spec import Call
    from ..errors import EvioError
    from ..ipam.delegate import IpamCall
    from ..state.journal import Journal


def cmd_add(call: Call, conf: NetConf) -> dict[str, Any]:
    """Attach the pod and return the result in the shape of the newest specification.

    Raises EvioError. What could not be undone then stays in the journal, for the next DEL.
    """
    refuse_unsupported(conf)
    begin_call(ADD_SECONDS)
    attachment = Attachment(conf.name, call.container_id, call.ifname)
    lock = AttachmentLock(conf.state_dir, attachment, LOCK_SECONDS)
    try:
        # Before IPAM's process is started, so that the process inherits it.
        lock.open()
        ipam = prepare_ipam("ADD", attachment, conf, call.path, call.netns)
        try:
            return attach(call, conf, attachment, lock, ipam)
        finally:
            ipam.close()
    finally:
        lock.close()


def attach(call: Call, conf: NetConf, attachment: Attachment, lock: AttachmentLock, ipam: IpamCall) -> dict[str, Any]:
    """Attach the pod, with an IPAM plugin that has not been sent its configuration yet. As ``cmd_add``."""
    # stage: read while IPAM's process starts.
    from ..kernel.netns import open_netns
    from ..state.fence import refuse_if_fenced

    refuse_if_fenced(conf.state_dir)
    netns = open_netns(call.netns)
    try:
        with lock:
            return _attach(call, conf, attachment, netns, ipam)
    finally:
        posix.close(netns)


def _attach(call: Call, conf: NetConf, attachment: Attachment, netns: int, ipam: IpamCall) -> dict[str, Any]:
    # stage: the same.
    from ..kernel.boot import boot_id
    from ..state.journal import Journal

    journal = Journal(conf.state_dir)
    host_end = _free_host_end(call, conf, attachment, journal)
    entry = {
        "netns": call.netns,
        "host": host_end,
        "bridge": conf.bridge,
        "ovsdb": conf.ovsdb,
        "config": {key: value for key, value in conf.raw.items() if key != "prevResult"},
        "path": call.path,
        "boot": boot_id(),
    }
    try:
        ipam.send_config()
        try:
            journal.begin(attachment, entry)
            # stage: read while IPAM works.
            from .add_host_side import setup_host_side

            result, noted = setup_host_side(call, conf, attachment, host_end, netns, ipam)
        finally:
            ipam.close()
        journal.add(attachment, noted)
    except BaseException as error:
        begin_call(UNDO_SECONDS)
        _undo(
            call,
            conf,
            attachment,
            is_plugged=not isinstance(error, NothingBegunError),
            is_reserved=not isinstance(error, IpamRefusedError),
        )
        raise
    return result


def _free_host_end(call: Call, conf: NetConf, attachment: Attachment, journal: Journal) -> str:
    """Return the name for the host's end, after what an unfinished DEL or ADD has left was removed.

    Raises CniError where the pod has the interface already: a second ADD must not undo a running pod's first.
    """
    from ..kernel.netns import has_interface

    entry = journal.read(attachment)
    host_end = journal.host_end_in(entry, attachment)
    if entry is not None and (entry.get("deleted") or not has_interface(host_end)):
        failure = _undo(call, conf, attachment)
        if journal.read(attachment) is not None:
            reason = failure or f"the OVSDB at {conf.ovsdb} does not answer"
            raise CniError(TRY_AGAIN, f"an earlier attachment of {call.ifname} cannot be removed completely: {reason}")
        host_end = journal.host_end_in(None, attachment)
    if has_interface(host_end):
        raise CniError(FAILED, f"{call.container_id} has {call.ifname} already; DEL it before it is added again")
    return host_end


def _undo(
    call: Call, conf: NetConf, attachment: Attachment, *, is_plugged: bool = True, is_reserved: bool = True
) -> EvioError | None:
    """Remove what ADD has made; return what failed. The journal's entry stays then, for the next DEL."""
    # Only a failed ADD needs it.
    from .delete import detach

    return detach(attachment, conf, call.path, call.netns, is_plugged=is_plugged, is_reserved=is_reserved)
