# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reclaim the IPAM reservations of dead attachments when an ADD finds no free address."""

from __future__ import annotations

from ..cni.spec import Call, CniError
from ..errors import EvioError
from ..ipam.host_local import HOST_LOCAL, NO_ROOM, Reservations
from ..kernel.boot import boot_id
from ..kernel.netns import is_netns
from ..state.attachments import is_alive, is_attachment
from ..state.journal import Journal
from ..state.lock import AttachmentLock
from .delete import detach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf

_PATIENCE = 1.0
"""Seconds for one that looks dead while another call is at work on it: longer than a DEL takes."""


def reclaim_addresses(call: Call, conf: NetConf, refusal: CniError) -> bool:
    """Give back what host-local keeps for the dead, if it refused an ADD for want of room; whether there is some now.

    A node that was cut off from power, or whose runtime has lost its memory, is
    never told of the pods that held them. Nothing is taken that another call is at work on.
    """
    if conf.ipam_type != HOST_LOCAL or NO_ROOM not in refusal.msg:
        return False
    reservations = Reservations(conf)
    try:
        for container_id, ifname in sorted(reservations.holders()) if reservations.exhausted() else ():
            _release_if_dead(Call("DEL", container_id, "", ifname or "eth0", call.path, {}), conf)
        return reservations.exhausted() is None
    except CniError:
        return False  # The configuration is none of host-local's, as it has said itself.


def live_addresses(conf: NetConf, reservations: Reservations) -> list[str]:
    """The addresses that ``reclaim_addresses`` would not give back."""
    journal = Journal(conf.state_dir, conf.name)
    holders = {address: reservations.holder(address) for address in reservations.addresses()}
    return [address for address, holder in holders.items() if holder is None or not _is_given_back(journal, *holder)]


def _is_given_back(journal: Journal, container_id: str, ifname: str) -> bool:
    return is_attachment(container_id, ifname or "eth0") and _is_dead(journal, container_id, ifname or "eth0")


def _release_if_dead(call: Call, conf: NetConf) -> None:
    """Looked at again once nobody else is at work on it: an ADD has its address before it has written a word."""
    journal = Journal(conf.state_dir, conf.name)
    if not is_attachment(call.container_id, call.ifname):
        return
    try:
        if _is_dead(journal, call.container_id, call.ifname):
            with AttachmentLock(conf, call, _PATIENCE):
                if _is_dead(journal, call.container_id, call.ifname):
                    detach(call, conf, journal)
    except EvioError:
        return  # One address the less; the others may do.


def _is_dead(journal: Journal, container_id: str, ifname: str) -> bool:
    """Neither the host's end is there nor, if the journal knows of a namespace of this boot, that namespace."""
    if is_alive(journal, container_id, ifname):
        return False
    entry = journal.read(container_id, ifname)
    return entry is None or entry.get("boot") != boot_id() or not is_netns(str(entry.get("netns")))
