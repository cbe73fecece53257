# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GC: what is left of attachments that no one knows any more goes; those that live stay, whatever the list says.

A runtime's list lags behind the pods it is just starting. An attachment that was finished lives as long as the host's
end of its veth is there, for the kernel takes that away with the pod's namespace.
"""

from __future__ import annotations

from .attachment_lock import AttachmentLock
from .bridge_flows import sweep
from .cni_protocol import FAILED, INVALID_CONFIG, Call, CniError, check_attachment
from .detachment import delete, detach
from .errors import EvioError
from .ipam import NO_ATTACHMENT, IpamCall, is_too_old
from .journal import Journal, boot_id
from .netns import has_interface, is_netns
from .ovsdb_rpc import Ovsdb, SwitchError
from .ownership import CONTAINER_ID, IFNAME_ID, NETWORK_ID
from .reservations import HOST_LOCAL, NO_ROOM, Reservations
from .switch_ports import ports_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .netconf import NetConf

_VALID = "cni.dev/valid-attachments"
_LEGACY = "cni.dev/attachments"
"""What libcni 1.1 sends besides, and earlier drafts alone."""
_PATIENCE = 1.0
"""Seconds for one that looks dead while another call is at work on it: longer than a DEL takes."""


def collect(call: Call, conf: NetConf) -> None:
    """The verb. Goes on past failures, and raises CniError with all of them at the end."""
    valid = _valid_attachments(conf.raw)
    _removed, failures = collect_except(call, conf, valid)
    try:
        ipam = IpamCall("GC", conf.ipam_type, call.path, conf.raw, NO_ATTACHMENT)
        ipam.tell()
        ipam.finish()
    except CniError as error:
        if not is_too_old(error):
            failures.append(error.msg)
    if failures:
        raise CniError(FAILED, "not everything could be collected", "; ".join(failures))


def collect_except(call: Call, conf: NetConf, valid: set[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Leave nothing of attachments that are neither valid nor alive. Returns which have gone, and what has failed."""
    removed: list[str] = []
    failures: list[str] = []
    journal = Journal(conf.state_dir, conf.name)
    for container_id, ifname in sorted(_known(conf, failures) - valid):
        try:
            if is_alive(journal, container_id, ifname) and not is_half_made(journal.read(container_id, ifname)):
                continue
            delete(Call("DEL", container_id, "", ifname, call.path, {}), conf)
            removed.append(f"{container_id} {ifname}")
        except EvioError as error:
            failures.append(f"{container_id} {ifname}: {error}")
    try:
        sweep(conf)
    except EvioError as error:
        if str(error) not in failures:
            failures.append(str(error))
    return removed, failures


def make_room(call: Call, conf: NetConf, refusal: CniError) -> bool:
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


def living(conf: NetConf, reservations: Reservations) -> list[str]:
    """The addresses that ``make_room`` would not give back."""
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


def _known(conf: NetConf, failures: list[str]) -> set[tuple[str, str]]:
    """Every attachment that has left a trace: in the journal, at host-local, or on the switch.

    What names none, as a file that somebody has put there, is no trace of ours.
    """
    known = set(Journal(conf.state_dir, conf.name).attachments())
    if conf.ipam_type == HOST_LOCAL:
        known |= {(container_id, ifname or "eth0") for container_id, ifname in Reservations(conf).holders()}
    try:
        ovsdb = Ovsdb(conf.ovsdb)
        try:
            ports = ports_of(ovsdb, conf.bridge)
        finally:
            ovsdb.close()
    except SwitchError as error:
        failures.append(str(error))
        ports = []
    for port in ports:
        ids = port.external_ids
        if ids.get(NETWORK_ID) == conf.name and CONTAINER_ID in ids and IFNAME_ID in ids:
            known.add((ids[CONTAINER_ID], ids[IFNAME_ID]))
    return {attachment for attachment in known if is_attachment(*attachment)}


def is_attachment(container_id: str, ifname: str) -> bool:
    """Whether an ADD can have been for it."""
    try:
        check_attachment(container_id, ifname)
    except CniError:
        return False
    return True


def is_alive(journal: Journal, container_id: str, ifname: str) -> bool:
    """Whether the host's end of the attachment is there, and so the pod's namespace."""
    return has_interface(journal.host_end(container_id, ifname))


def is_half_made(entry: dict[str, Any] | None) -> bool:
    """Whether an ADD was cut off: it has written the beginning of its entry and not yet its addresses.

    It is not at work now: runtimes let no ADD run beside a GC (SPEC.md section 2), and collect_network spares its like.
    """
    return entry is not None and "boot" in entry and "ips" not in entry


def _valid_attachments(raw: dict[str, Any]) -> set[tuple[str, str]]:
    """The runtime's list. An empty one means that nothing is valid; a missing one means nothing, and is an error."""
    listed = raw.get(_VALID, raw.get(_LEGACY))
    if not isinstance(listed, list):
        raise CniError(INVALID_CONFIG, f"{_VALID} is not in the configuration; without it GC would collect everything")
    try:
        valid = {(one["containerID"], one["ifname"]) for one in listed}
    except (KeyError, TypeError):
        valid = {(None, None)}
    if not all(isinstance(name, str) for attachment in valid for name in attachment):
        raise CniError(INVALID_CONFIG, f"{_VALID}: each entry has a containerID and an ifname")
    return valid
