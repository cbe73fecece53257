# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GC: what is left of attachments that no one knows any more goes; those that live stay, whatever the list says.

A runtime's list lags behind the pods it is just starting. An attachment that was finished lives as long as the host's
end of its veth is there, for the kernel takes that away with the pod's namespace.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cni.attachment import Attachment
from ..cni.netconf import NetConf
from ..cni.spec import FAILED, INVALID_CONFIG, Call, CniError
from ..errors import EvioError
from ..ipam.delegate import NO_ATTACHMENT, IpamCall, is_too_old
from ..ipam.host_local import HOST_LOCAL, Reservations
from ..ovs.external_ids import CONTAINER_ID, IFNAME_ID, NETWORK_ID
from ..ovs.flows import delete_stale_flows
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.ports import ports_of
from ..paths import DEFAULT_CNI_PATH
from ..state.attachments import is_alive, is_half_made
from ..state.journal import Journal
from ..state.lock import LONGEST_CALL_SECONDS
from .delete import delete_attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf


@dataclass
class Collected:
    """What was removed of one network."""

    network: str
    removed: list[str]
    """Attachments of which nothing lived any more, as container id and interface."""
    failures: list[str]


def collect_network(conf: NetConf) -> Collected:
    """GC without a runtime's list: what lives is all that is valid.

    An ADD that is at work is not disturbed: entries of the last minute are left alone.
    """
    young = Journal(conf.state_dir).younger_than(conf.name, LONGEST_CALL_SECONDS)
    return Collected(conf.name, *collect_garbage(conf, young, DEFAULT_CNI_PATH))


_VALID = "cni.dev/valid-attachments"
_LEGACY = "cni.dev/attachments"
"""What libcni 1.1 sends besides, and earlier drafts alone."""


def cmd_gc(call: Call, conf: NetConf) -> None:
    """The verb. Goes on past failures, and raises CniError with all of them at the end."""
    _removed, failures = collect_garbage(conf, _valid_attachments(conf), call.path)
    try:
        ipam = IpamCall("GC", conf.ipam_type, call.path, conf.raw, NO_ATTACHMENT)
        ipam.send_config()
        ipam.result()
    except CniError as error:
        if not is_too_old(error):
            failures.append(error.msg)
    if failures:
        raise CniError(FAILED, "not everything could be collected", "; ".join(failures))


def collect_garbage(conf: NetConf, valid: set[Attachment], cni_path: str) -> tuple[list[str], list[str]]:
    """Leave nothing of attachments that are neither valid nor alive. Returns which have gone, and what has failed."""
    removed: list[str] = []
    failures: list[str] = []
    journal = Journal(conf.state_dir)
    for attachment in sorted(_known(conf, failures) - valid):
        try:
            if is_alive(journal, attachment) and not is_half_made(journal.read(attachment)):
                continue
            delete_attachment(attachment, conf, cni_path)
            removed.append(str(attachment))
        except EvioError as error:
            failures.append(f"{attachment}: {error}")
    try:
        delete_stale_flows(conf)
    except EvioError as error:
        if str(error) not in failures:
            failures.append(str(error))
    return removed, failures


def _known(conf: NetConf, failures: list[str]) -> set[Attachment]:
    """Every attachment that has left a trace: in the journal, at host-local, or on the switch.

    What names none, as a file that somebody has put there, is no trace of ours.
    """
    known = set(Journal(conf.state_dir).attachments(conf.name))
    if conf.ipam_type == HOST_LOCAL:
        known |= set(Reservations(conf).holders().values())
    try:
        ovsdb = OvsdbClient(conf.ovsdb)
        try:
            ports = ports_of(ovsdb, conf.bridge)
        finally:
            ovsdb.close()
    except OvsdbError as error:
        failures.append(str(error))
        ports = []
    for port in ports:
        ids = port.external_ids
        if ids.get(NETWORK_ID) == conf.name and CONTAINER_ID in ids and IFNAME_ID in ids:
            known.add(Attachment(conf.name, ids[CONTAINER_ID], ids[IFNAME_ID]))
    return {attachment for attachment in known if attachment.is_valid}


def _valid_attachments(conf: NetConf) -> set[Attachment]:
    """The runtime's list. An empty one means that nothing is valid; a missing one means nothing, and is an error."""
    listed = conf.raw.get(_VALID, conf.raw.get(_LEGACY))
    if not isinstance(listed, list):
        raise CniError(INVALID_CONFIG, f"{_VALID} is not in the configuration; without it GC would collect everything")
    try:
        names = [(one["containerID"], one["ifname"]) for one in listed]
    except (KeyError, TypeError):
        names = [(None, None)]
    if not all(isinstance(name, str) for pair in names for name in pair):
        raise CniError(INVALID_CONFIG, f"{_VALID}: each entry has a containerID and an ifname")
    return {Attachment(conf.name, container_id, ifname) for container_id, ifname in names}
