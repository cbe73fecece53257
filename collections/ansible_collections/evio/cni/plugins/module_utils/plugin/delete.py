# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""DEL: remove an attachment, be it complete, half made by a killed ADD, or gone already.

The attachment's name is enough to find all of it, so the pod's namespace may be gone, and the journal's entry missing.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from ..cni.attachment import Attachment
from ..cni.spec import CniError
from ..deadline import DEL_SECONDS, begin_call
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
    attachment = Attachment(conf.name, call.container_id, call.ifname)
    conf = _as_attached(conf, attachment)
    with AttachmentLock(conf.state_dir, attachment, is_required=False):
        begin_call(DEL_SECONDS)
        failure = detach(attachment, conf, call.path, call.netns)
    if failure is not None:
        raise failure


def _as_attached(conf: NetConf, attachment: Attachment) -> NetConf:
    """Return the configuration with the values of its ADD in place of those that DEL cannot use."""
    if not conf.unusable:
        return conf
    try:
        noted = (Journal(conf.state_dir).read(attachment) or {}).get("config")
    except EvioError:
        noted = None
    if not isinstance(noted, dict):
        return conf
    # Only for a configuration that was broken since the ADD.
    from ..cni.netconf import conf_for_removal

    usable = {key: value for key, value in conf.raw.items() if key not in conf.unusable}
    return conf_for_removal({**noted, **usable}) or conf


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
    attachment: Attachment,
    conf: NetConf,
    cni_path: str,
    netns: str = "",
    *,
    is_plugged: bool = True,
    is_reserved: bool = True,
) -> EvioError | None:
    """Remove port, veth pair and reservation, and then the journal's entry. Return what failed, or None.

    The entry stays until all the rest is removed: for the next DEL, GC or repair. While Open vSwitch is down, the row
    of the port stays in its database, and so does the entry. ``is_plugged``: whether there may be such a row.
    ``is_reserved``: whether IPAM may have reserved addresses; where it has none, its failure is none of ours.
    """
    journal = Journal(conf.state_dir)
    is_known, host_end = _is_known(journal, attachment)
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
    if release.ipam_failure is not None and is_reserved and _may_hold_addresses(conf, attachment, is_known=is_known):
        failure = release.ipam_failure
    failure = release.failure or failure
    if failure is None and release.is_unplugged:
        journal.remove(attachment)
    elif failure is None and journal.read(attachment) is not None:
        journal.add(attachment, {"deleted": True})
    return failure


def _is_known(journal: Journal, attachment: Attachment) -> tuple[bool, str]:
    """Return whether there is an entry or the host's end of the veth pair, and the name of that end."""
    try:
        entry = journal.read(attachment)
    except EvioError:  # An unreadable entry must not keep a pod from being removed.
        return True, journal.host_end_in(None, attachment)
    host_end = journal.host_end_in(entry, attachment)
    if entry is not None:
        return True, host_end
    # Only for what the journal does not know.
    from ..kernel.netns import has_interface

    return has_interface(host_end), host_end


def _may_hold_addresses(conf: NetConf, attachment: Attachment, *, is_known: bool) -> bool:
    """Return whether IPAM may have addresses reserved for the attachment: only then a DEL that it refuses is a failure.

    An ADD whose configuration IPAM has refused is deleted with the same configuration, which IPAM refuses again.
    """
    # Only where IPAM refuses.
    from ..cni.netconf import HOST_LOCAL
    from ..ipam.host_local import Reservations

    if conf.ipam_type != HOST_LOCAL:
        return is_known
    return any(
        holder.container_id == attachment.container_id and holder.ifname in ("", attachment.ifname)
        for holder in Reservations(conf).holders().values()
    )


class _Release:
    """Removes the port and releases the addresses in a thread, while the kernel deletes the veth pair.

    The kernel takes longer for that than all the rest of a DEL.
    """

    def __init__(
        self, attachment: Attachment, conf: NetConf, cni_path: str, netns: str, host_end: str, *, is_plugged: bool
    ) -> None:
        self.failure: EvioError | None = None
        self.ipam_failure: CniError | None = None
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
            if self._conf.ipam_type:
                ipam = start_ipam("DEL", self._attachment, self._conf, self._cni_path, self._netns)
                self.ipam_failure = ipam.result_or_error()
        except CniError as error:
            self.ipam_failure = error
        except EvioError as error:
            self.failure = error
        except Exception as error:
            self.failure = EvioError(f"unexpected {type(error).__name__}: {error}")
        finally:
            self._under_way.release()
