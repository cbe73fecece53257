# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Report on a network for ``evio status``: the answer of STATUS, and each pod with the state of its port.

Why one pod is not reachable: explain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .. import paths
from ..cni.attachment import Attachment
from ..cni.cri import PodName
from ..cni.netconf import HOST_LOCAL, NetConf
from ..deadline import STATUS_SECONDS, begin_call, end_call
from ..errors import EvioError
from ..firewall.network_rules import rules_of_pods
from ..ipam.host_local import Reservations
from ..kernel.links import Link
from ..kernel.netns import has_interface
from ..kernel.rtnetlink import Netlink
from ..overlay.state import read_state
from ..ovs.flows import ports_without_security
from ..ovs.jsonrpc import OvsdbClient
from ..ovs.port_state import Port, is_plugged, ports_of, resolve_datapath
from ..ovs.ports import Segment, has_daemon, segment_of
from ..paths import DEFAULT_CNI_PATH
from ..plugin.findings import bridge_findings, rules_findings
from ..plugin.reclaim import lost_reservations
from ..plugin.status import check_ready
from ..state.attachments import JournalEntry, addresses_of_pods, journal_entries
from ..state.journal import Journal

_MOST_PODS_SHOWN = 10
_MOST_NAMES = 5

_REPAIR = "evio repair"

PLUGGED_IN = "plugged in"

NOT_RESERVED = "not reserved"
"""State of a pod whose address host-local may give to another one."""

INSTALLED, MISSING, NO_PODS, NOT_NEEDED = "installed", "missing", "no pods", "not needed"

RULES = {
    INSTALLED: "the rules for pods are installed",
    MISSING: "rules for pods are missing",
    NO_PODS: "no rules for pods yet, the first pod brings them",
    NOT_NEEDED: "pods need no rules",
    None: "not known, because nftables cannot be asked",
}
"""All states of a network's nftables rules, in words."""

POD_STATES = (PLUGGED_IN, "not plugged in", "not served", "gone", NOT_RESERVED)
"""All states of a pod; PodStatus.state explains them."""


_ATTACHED = (PLUGGED_IN, NOT_RESERVED)
"""States of pods that have a port which Open vSwitch serves."""


@dataclass(frozen=True)
class PodStatus:
    """One attachment of the journal. The fields are keys of ``evio status --json``, as those of NetworkStatus."""

    container_id: str
    ifname: str
    addresses: tuple[str, ...]
    """In CIDR notation."""
    state: str
    """``plugged in``; ``not plugged in``: repair adds the port; ``not served``: Open vSwitch does not run; ``gone``:
    the pod's namespace does not exist any more, and gc removes the rest; ``not reserved``: plugged in, but host-local
    has lost the reservation of its address, and repair brings it back."""
    mtu: int | None
    """Bytes, of the pod's interface on the host; None where it is gone."""
    namespace: str = ""
    name: str = ""
    """What Kubernetes calls the pod; empty where the runtime does not tell it."""

    @property
    def label(self) -> str:
        """The pod as people call it: namespace and name, or the start of its container id."""
        return f"{self.namespace}/{self.name}" if self.name else self.container_id[:13]


@dataclass(frozen=True)
class Room:
    """How full a range of pod addresses is."""

    subnet: str
    """In CIDR notation."""
    size: int
    """How many addresses pods can get."""
    reserved: int
    """How many of them are taken."""


@dataclass(frozen=True)
class NetworkFault:
    """What running pods of a network lack on this node. The fields are keys of ``evio status --json``."""

    what: str
    """One sentence."""
    remedy: str
    """The command that mends it."""


@dataclass(frozen=True)
class NetworkStatus:
    """One network on this node."""

    network: str
    bridge: str
    gateways: tuple[str, ...]
    """In CIDR notation."""
    epoch: int
    """The fencing epoch of the node's claim; 0 where the configuration has none."""
    verdict: str | None
    """Why a new pod would not get its network; None if it would."""
    reserved: int
    """How many addresses host-local has reserved; 0 with another IPAM plugin."""
    pods: tuple[PodStatus, ...]
    mtu: int | None
    """Bytes, that new pods get; None where the configuration leaves it to the bridge."""
    overlay: str = ""
    """One line of the overlay's agent; empty where it has nothing to say."""
    room: tuple[Room, ...] = ()
    """Of each range; empty with another IPAM plugin."""
    rules: str | None = None
    """The state of the network's rules in nftables, one of RULES; None where nftables cannot be asked."""
    faults: tuple[NetworkFault, ...] = ()
    """What its running pods lack of the node's rules, the bridge and the flows."""

    @property
    def mtu_warning(self) -> str | None:
        """Which pods have another MTU than new pods get, and what to do; None if there is no such pod."""
        return mtu_warning(self.mtu, {f"{pod.container_id[:13]} {pod.ifname}": pod.mtu for pod in self.pods})


def network_status(conf: NetConf, names: Mapping[str, PodName] | None = None) -> NetworkStatus:
    """Look at one network; nothing is changed. An Open vSwitch that is down is part of the answer.

    ``names`` are what Kubernetes calls the pods, by container id. Raises EvioError where the journal cannot be read.
    """
    verdict: str | None = None
    ports: dict[str, Port] | None = None
    try:
        begin_call(STATUS_SECONDS)
        check_ready(conf, DEFAULT_CNI_PATH)
    except EvioError as error:
        verdict = str(error)
    finally:
        end_call()
    # Before the ports: a pod whose ADD ends meanwhile has its port.
    entries = journal_entries(Journal(conf.state_dir), conf.name)
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            resolve_datapath(conf, ovsdb)
            if has_daemon(ovsdb):
                ports = {port.name: port for port in ports_of(ovsdb, conf.bridge)}
    except EvioError as error:
        verdict = verdict or str(error)
    segment, lost = segment_of(conf), lost_reservations(conf)
    host_ends = _host_ends(entries)
    pods = tuple(
        PodStatus(
            entry.attachment.container_id,
            entry.attachment.ifname,
            entry.ips,
            _state(entry, ports, segment, lost),
            link.mtu if link is not None else None,
            *_name(entry, names or {}),
        )
        for entry, link in zip(entries, host_ends, strict=True)
    )
    reserved = Reservations(conf).count() if conf.ipam_type == HOST_LOCAL else 0
    overlay = read_state(paths.OVERLAY_STATE)
    summary = overlay.summary if overlay is not None and overlay.is_fresh() else ""
    gateways = tuple(conf.gateways)
    room, fault = _room(conf)
    rules, faults = _rules(conf, entries)
    faults += _host_end_faults(entries, pods, host_ends)
    if ports is not None:
        try:
            # A switch that does not answer has been waited for already.
            if verdict is not None:
                begin_call(STATUS_SECONDS)
            faults += _switch_faults(conf, entries, pods, ports)
        except EvioError as error:
            verdict = verdict or str(error)
        finally:
            end_call()
    return NetworkStatus(
        conf.name,
        conf.bridge,
        gateways,
        conf.epoch,
        verdict or fault,
        reserved,
        pods,
        conf.mtu,
        summary,
        room,
        rules,
        tuple(faults),
    )


def _rules(conf: NetConf, entries: list[JournalEntry]) -> tuple[str | None, list[NetworkFault]]:
    """Return the state of the network's nftables rules, and what running pods lack of them."""
    pods = addresses_of_pods(entries)
    rules = rules_of_pods(conf, pods)
    if not rules.chains:
        return (NO_PODS if conf.ip_masq and not pods else NOT_NEEDED), []
    try:
        missing = [NetworkFault(one.what, one.remedy) for one in rules_findings(rules) if not one.holds]
    except EvioError:
        return None, []
    if not missing:
        return INSTALLED, []
    return (MISSING, missing) if pods else (NO_PODS, [])


def _host_end_faults(
    entries: Sequence[JournalEntry], pods: Sequence[PodStatus], host_ends: Sequence[Link | None]
) -> list[NetworkFault]:
    # ADD sets the host's end up last, and DEL takes it away.
    down = [
        pod.label
        for entry, pod, link in zip(entries, pods, host_ends, strict=True)
        if not (entry.is_begun or entry.is_deleted) and pod.state in _ATTACHED and link is not None and not link.is_up
    ]
    if not down:
        return []
    what = f"the host's end of the interface of {count(len(down), 'pod')} is down: {some(down)}"
    return [NetworkFault(what, _REPAIR)]


def _switch_faults(
    conf: NetConf, entries: list[JournalEntry], pods: Sequence[PodStatus], ports: Mapping[str, Port]
) -> list[NetworkFault]:
    """Return what running pods lack of the bridge and of their port-security flows. Raises EvioError.

    Without pods, the next ADD makes the bridge as it should be.
    """
    plugged = {
        entry.host_end: (ports[entry.host_end].ofport, entry.ips, pod.label)
        for entry, pod in zip(entries, pods, strict=True)
        if pod.state in _ATTACHED and not entry.is_begun and entry.ips
    }
    if not plugged:
        return []
    with Netlink() as host:
        found = bridge_findings(conf, host, host.link(conf.bridge))
    faults = [NetworkFault(one.what, one.remedy) for one in found if not one.holds and one.is_known]
    wrong = ports_without_security(conf, {name: (number, ips) for name, (number, ips, _label) in plugged.items()})
    # A DEL may have removed a pod meanwhile, and the next ADD its flows.
    labels = [plugged[name][2] for name in wrong if has_interface(name)]
    if labels:
        what = "missing or incomplete" if conf.port_security else "still there, and portSecurity is false"
        sentence = f"the port-security flows of {count(len(labels), 'pod')} are {what}: {some(labels)}"
        faults.append(NetworkFault(sentence, _REPAIR))
    return faults


def _room(conf: NetConf) -> tuple[tuple[Room, ...], str | None]:
    """Return the room of each range, or why it is not known."""
    if conf.ipam_type != HOST_LOCAL:
        return (), None
    try:
        return tuple(Room(room.subnet, room.size, room.reserved) for room in Reservations(conf).room()), None
    except EvioError as error:
        return (), str(error)


def _name(entry: JournalEntry, names: Mapping[str, PodName]) -> tuple[str, str]:
    pod = names.get(entry.attachment.container_id)
    return (pod.namespace, pod.name) if pod is not None else ("", "")


def old_mtu_warning(conf: NetConf) -> str | None:
    """Return which running pods of the network have another MTU than new pods get, and what to do; None if no pod has.

    An interface keeps the MTU with which ADD made it: a program in the pod may have read it already. Raises EvioError
    where the journal cannot be read.
    """
    entries = journal_entries(Journal(conf.state_dir), conf.name)
    names = [f"{entry.attachment.container_id[:13]} {entry.attachment.ifname}" for entry in entries]
    mtus = [link.mtu if link is not None else None for link in _host_ends(entries)]
    return mtu_warning(conf.mtu, dict(zip(names, mtus, strict=True)))


def mtu_warning(wanted: int | None, mtus: Mapping[str, int | None]) -> str | None:
    """Return one sentence about the pods whose MTU differs; None if none does. ``mtus`` are bytes, by pod."""
    others = {pod: mtu for pod, mtu in mtus.items() if wanted and mtu and mtu != wanted}
    if not others:
        return None
    shown = [f"{pod} ({mtu})" for pod, mtu in others.items()][:_MOST_PODS_SHOWN]
    rest = len(others) - len(shown)
    effect = "longer packets of these pods are lost" if max(others.values()) > (wanted or 0) else "nothing is lost"
    return (
        f"{len(others)} of {len(mtus)} pods keep the MTU with which they were started, new pods get {wanted} bytes: "
        f"{', '.join(shown)}{f' and {rest} more' if rest else ''}; {effect}; recreate them to give them the new MTU"
    )


def _host_ends(entries: Sequence[JournalEntry]) -> list[Link | None]:
    """Return each attachment's interface on the host; None where it is gone."""
    with Netlink() as host:
        return [host.link(entry.host_end) if entry.is_alive else None for entry in entries]


def _state(entry: JournalEntry, ports: dict[str, Port] | None, segment: Segment, lost: dict[str, Attachment]) -> str:
    """``ports`` are the network's ports by name; None where Open vSwitch does not run."""
    if not entry.is_alive:
        return "gone"
    if ports is None:
        return "not served"
    if not is_plugged(ports.get(entry.host_end), segment):
        return "not plugged in"
    return NOT_RESERVED if entry.attachment in lost.values() else PLUGGED_IN


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def count(number: int, thing: str) -> str:
    """Return ``1 pod``, ``2 pods``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
