# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reclaim the IPAM reservations of dead attachments when an ADD finds no free address.

An attachment is dead without DEL after a power cut, or when the runtime has lost its own state. GC, which does the same
for all of them at the runtime's request: gc.
"""

from __future__ import annotations

from ..cni.spec import CniError
from ..errors import EvioError
from ..ipam.host_local import HOST_LOCAL, NO_FREE_ADDRESS, Reservations
from ..kernel.boot import boot_id
from ..kernel.netns import is_netns
from ..state.attachments import is_alive
from ..state.journal import Journal
from ..state.lock import AttachmentLock
from .delete import detach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.attachment import Attachment
    from ..cni.netconf import NetConf

_LOCK_SECONDS = 1.0
"""How long to wait for another call that works on an attachment which looks dead: longer than a DEL takes."""


def reclaim_addresses(conf: NetConf, refusal: CniError, cni_path: str) -> bool:
    """Release the addresses of dead attachments if host-local refused an ADD because a range is full.

    Return whether an address is free now. Attachments that another call works on are left alone.
    """
    if conf.ipam_type != HOST_LOCAL or NO_FREE_ADDRESS not in refusal.msg:
        return False
    reservations = Reservations(conf)
    try:
        if reservations.exhausted():
            for holder in sorted(set(reservations.holders().values())):
                _release_if_dead(holder, conf, cni_path)
        return reservations.exhausted() is None
    except CniError:
        return False  # The ranges are wrong, as host-local's own message says.


def live_addresses(conf: NetConf, reservations: Reservations) -> list[str]:
    """Return the reserved addresses that ``reclaim_addresses`` would not release. Raises StateError."""
    journal = Journal(conf.state_dir)
    dead = {address for address, holder in reservations.holders().items() if _is_dead(journal, holder)}
    return [address for address in reservations.addresses() if address not in dead]


def _release_if_dead(attachment: Attachment, conf: NetConf, cni_path: str) -> None:
    journal = Journal(conf.state_dir)
    try:
        if _is_dead(journal, attachment):
            with AttachmentLock(conf.state_dir, attachment, _LOCK_SECONDS):
                # Once more under the lock: an ADD has its address before it writes to the journal.
                if _is_dead(journal, attachment):
                    detach(attachment, conf, cni_path)
    except EvioError:
        return  # This address stays reserved; those of others may be enough.


def _is_dead(journal: Journal, attachment: Attachment) -> bool:
    """Return whether the host's end is gone, and the netns too if the journal names one of this boot."""
    if not attachment.is_valid or is_alive(journal, attachment):
        return False
    entry = journal.read(attachment)
    return entry is None or entry.get("boot") != boot_id() or not is_netns(str(entry.get("netns")))
