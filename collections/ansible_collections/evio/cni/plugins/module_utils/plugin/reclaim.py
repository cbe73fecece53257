# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reclaim the IPAM reservations of dead attachments when an ADD finds no free address."""

from __future__ import annotations

from ..cni.spec import CniError
from ..errors import EvioError
from ..ipam.host_local import HOST_LOCAL, NO_ROOM, Reservations
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

_PATIENCE = 1.0
"""Seconds for one that looks dead while another call is at work on it: longer than a DEL takes."""


def reclaim_addresses(conf: NetConf, refusal: CniError, cni_path: str) -> bool:
    """Give back what host-local keeps for the dead, if it refused an ADD for want of room; whether there is some now.

    A node that was cut off from power, or whose runtime has lost its memory, is
    never told of the pods that held them. Nothing is taken that another call is at work on.
    """
    if conf.ipam_type != HOST_LOCAL or NO_ROOM not in refusal.msg:
        return False
    reservations = Reservations(conf)
    try:
        for holder in sorted(set(reservations.holders().values())) if reservations.exhausted() else ():
            _release_if_dead(holder, conf, cni_path)
        return reservations.exhausted() is None
    except CniError:
        return False  # The configuration is none of host-local's, as it has said itself.


def live_addresses(conf: NetConf, reservations: Reservations) -> list[str]:
    """The addresses that ``reclaim_addresses`` would not give back."""
    journal = Journal(conf.state_dir)
    dead = {address for address, holder in reservations.holders().items() if _is_dead(journal, holder)}
    return [address for address in reservations.addresses() if address not in dead]


def _release_if_dead(attachment: Attachment, conf: NetConf, cni_path: str) -> None:
    """Looked at again once nobody else is at work on it: an ADD has its address before it has written a word."""
    journal = Journal(conf.state_dir)
    try:
        if _is_dead(journal, attachment):
            with AttachmentLock(conf.state_dir, attachment, _PATIENCE):
                if _is_dead(journal, attachment):
                    detach(attachment, conf, cni_path)
    except EvioError:
        return  # One address the less; the others may do.


def _is_dead(journal: Journal, attachment: Attachment) -> bool:
    """Neither the host's end is there nor, if the journal knows of a namespace of this boot, that namespace."""
    if not attachment.is_valid or is_alive(journal, attachment):
        return False
    entry = journal.read(attachment)
    return entry is None or entry.get("boot") != boot_id() or not is_netns(str(entry.get("netns")))
