# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reclaim the IPAM reservations of dead attachments when an ADD finds no free address.

An attachment is dead without DEL after a power cut, or when the runtime has lost its own state. GC, which does the same
for all of them at the runtime's request: gc.
"""

from __future__ import annotations

import posix

from ..cni.attachment import Attachment
from ..cni.netconf import HOST_LOCAL, NetConf
from ..cni.spec import CniError
from ..errors import EvioError
from ..ipam.host_local import NO_FREE_ADDRESS, Reservations
from ..kernel.boot import boot_id
from ..kernel.netns import is_netns
from ..ovs.external_ids import CONTAINER_ID, IFNAME_ID, NETWORK_ID
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.port_state import ports_of
from ..state.attachments import is_alive, journal_entries
from ..state.journal import Journal
from ..state.lock import AttachmentLock
from .delete import detach


class ReservationError(EvioError):
    """The reservations of running pods cannot be restored."""


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


def lost_reservations(conf: NetConf, but: Attachment | None = None) -> dict[str, Attachment]:
    """Return the addresses of live attachments that host-local has reserved for nobody or for ``but``, with their pods.

    So it is once somebody has deleted host-local's files under running pods. Raises StateError.
    """
    if conf.ipam_type != HOST_LOCAL:
        return {}
    reservations, lost = Reservations(conf), {}
    for entry in journal_entries(Journal(conf.state_dir), conf.name):
        if entry.is_alive and not entry.is_deleted and entry.attachment != but:
            for address in (cidr.partition("/")[0] for cidr in entry.ips):
                holder = reservations.holder(address)
                if holder is None or (but is not None and holder.container_id == but.container_id):
                    lost[address] = entry.attachment
    plugged = _plugged(conf) if lost else set()
    return {address: attachment for address, attachment in lost.items() if attachment in plugged}


def _plugged(conf: NetConf) -> set[Attachment]:
    """Return the attachments that have a port: a DEL that was killed has removed the port before the reservation."""
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            ids = [port.external_ids for port in ports_of(ovsdb, conf.bridge)]
    except OvsdbError:
        return set()
    return {Attachment(one.get(NETWORK_ID, ""), one.get(CONTAINER_ID, ""), one.get(IFNAME_ID, "")) for one in ids}


def restore_reservations(conf: NetConf, but: Attachment | None = None) -> dict[str, Attachment]:
    """Reserve the addresses of ``lost_reservations`` for their pods again, and return them.

    ``but`` is the attachment of a running ADD: it loses the addresses that it was given and that belong to a live pod.
    Raises EvioError.
    """
    if not lost_reservations(conf, but):
        return {}
    reservations = Reservations(conf)
    try:
        lock = reservations.lock()
        try:
            lost = lost_reservations(conf, but)
            for address, attachment in lost.items():
                reservations.reserve(address, attachment)
        finally:
            posix.close(lock)
    except OSError as error:
        raise ReservationError(f"cannot reserve addresses in {reservations.directory}: {error.strerror}") from None
    return lost


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
