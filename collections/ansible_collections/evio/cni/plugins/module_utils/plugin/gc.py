# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GC: remove the attachments that are neither listed by the runtime nor alive.

A live attachment stays although the runtime does not list it, because the list lags behind the pods that the runtime is
just starting. An attachment that ADD has finished is alive as long as the host's end of its veth pair exists: the
kernel removes it with the pod's namespace.
"""

from __future__ import annotations

from ..cni.attachment import Attachment
from ..cni.netconf import HOST_LOCAL, NetConf
from ..cni.spec import FAILED, INVALID_CONFIG, Call, CniError
from ..errors import EvioError
from ..ipam.delegate import NO_ATTACHMENT, IpamCall, is_too_old
from ..ipam.host_local import Reservations
from ..ovs.external_ids import CONTAINER_ID, IFNAME_ID, NETWORK_ID
from ..ovs.flows import delete_stale_flows
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.port_state import ports_of
from ..paths import DEFAULT_CNI_PATH
from ..state.attachments import is_alive, is_half_made
from ..state.journal import Journal
from ..state.lock import LONGEST_CALL_SECONDS
from .delete import delete_attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VALID = "cni.dev/valid-attachments"

_LEGACY = "cni.dev/attachments"
"""libcni 1.1 sends this key as well; earlier drafts of the specification have this key alone."""


def cmd_gc(call: Call, conf: NetConf) -> None:
    """Serve GC. Goes on after a failure, and raises CniError with all failures at the end."""
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


class Collected:
    """What ``collect_network`` has done for one network."""

    __slots__ = ("failures", "network", "removed")

    def __init__(self, network: str, removed: list[str], failures: list[str]) -> None:
        self.network = network
        self.removed = removed
        """The removed attachments, each as container id and interface name."""
        self.failures = failures
        """Messages."""

    def to_json(self) -> dict[str, Any]:
        """Return all three as ``evio gc --json`` prints them."""
        return {"network": self.network, "removed": self.removed, "failures": self.failures}


def collect_network(conf: NetConf) -> Collected:
    """Remove the dead attachments of a network, without a runtime's list. Raises StateError.

    An ADD may be at work on entries of the last minute: they are left alone.
    """
    young = Journal(conf.state_dir).younger_than(conf.name, LONGEST_CALL_SECONDS)
    return Collected(conf.name, *collect_garbage(conf, young, DEFAULT_CNI_PATH))


def collect_garbage(conf: NetConf, valid: set[Attachment], cni_path: str) -> tuple[list[str], list[str]]:
    """Remove the attachments that are neither valid nor alive, and flows of ports that are gone.

    An attachment whose ADD was killed counts as dead: runtimes run no ADD during a GC (SPEC.md section 2). Returns the
    removed attachments and the failures. Raises StateError where the journal cannot be read.
    """
    removed: list[str] = []
    failures: list[str] = []
    journal = Journal(conf.state_dir)
    for attachment in sorted(_known_attachments(conf, failures) - valid):
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


def _known_attachments(conf: NetConf, failures: list[str]) -> set[Attachment]:
    """Return the attachments of the network that the journal, host-local or Open vSwitch knows.

    Invalid names are left out: they are of files that somebody else has put there.
    """
    known = set(Journal(conf.state_dir).attachments(conf.name))
    if conf.ipam_type == HOST_LOCAL:
        known |= set(Reservations(conf).holders().values())
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            ports = ports_of(ovsdb, conf.bridge)
    except OvsdbError as error:
        failures.append(str(error))
        ports = []
    for port in ports:
        ids = port.external_ids
        if ids.get(NETWORK_ID) == conf.name and CONTAINER_ID in ids and IFNAME_ID in ids:
            known.add(Attachment(conf.name, ids[CONTAINER_ID], ids[IFNAME_ID]))
    return {attachment for attachment in known if attachment.is_valid}


def _valid_attachments(conf: NetConf) -> set[Attachment]:
    """Return the runtime's list. Raises CniError where it is missing; an empty list means that none is valid."""
    listed = conf.raw.get(_VALID, conf.raw.get(_LEGACY))
    if not isinstance(listed, list):
        raise CniError(INVALID_CONFIG, f"{_VALID} is not in the configuration; without it GC would collect everything")
    try:
        names = [(entry["containerID"], entry["ifname"]) for entry in listed]
    except (KeyError, TypeError):
        names = [(None, None)]
    if not all(isinstance(name, str) for pair in names for name in pair):
        raise CniError(INVALID_CONFIG, f"{_VALID}: each entry has a containerID and an ifname")
    return {Attachment(conf.name, container_id, ifname) for container_id, ifname in names}
