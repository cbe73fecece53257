# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Repair what running pods have lost, without restarting them: bridge, ports, flows, and the node's rules.

The configuration and the journal say what there should be; plugin/findings says what a pod lacks. Attachments whose pod
is gone since a reboot are removed.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from ..cni.attachment import Attachment
from ..cni.netconf import NetConf
from ..errors import EvioError
from ..firewall.network_rules import delete_unused_chains, rules_of_pods
from ..kernel.boot import boot_id
from ..kernel.rtnetlink import Netlink
from ..ovs.external_ids import MAC_ID, address_ids, external_ids
from ..ovs.flows import clear_port_security, delete_stale_flows, is_closed
from ..ovs.jsonrpc import OvsdbClient
from ..ovs.port_flows import PortFlows
from ..ovs.port_state import Port, forget_removed_ports, ports_of, resolve_datapath, set_external_ids
from ..ovs.ports import NewPort, random_ofport, segment_of, unplug
from ..paths import DEFAULT_CNI_PATH
from ..plugin.delete import delete_attachment
from ..plugin.expected import Expected, expected_by_entry
from ..plugin.findings import (
    INSTALL_PORT_SECURITY,
    LEAVE_ALONE,
    PLUG_IN,
    SET_UP,
    Finding,
    entry_findings,
    host_end_findings,
    port_findings,
    reservation_findings,
)
from ..plugin.reclaim import restore_reservations
from ..plugin.repair_bridge import bridge_of
from ..state.attachments import JournalEntry, addresses_of_pods, journal_entries
from ..state.event_log import note_event
from ..state.journal import Journal
from ..state.lock import AttachmentLock
from .guard import guard_bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


_EVERY_ATTACHMENT = Attachment("", "every", "")
"""The name whose lock a repair holds. No attachment has it: a network and an interface have names."""


REPAIRS = ("bridge", "rules", "plugged", "raised", "guarded", "reserved", "removed")
"""What a repair mends: names of fields of Repair, and the kinds under which the event log counts them."""


class RepairError(EvioError):
    """A pod cannot be repaired."""


@dataclass
class Repair:
    """What was done for one network. The fields are the keys of ``evio repair --json``.

    Pods are named by container id and interface. All lists are empty where nothing was wrong.
    """

    network: str
    bridge: list[str] = field(default_factory=list)
    """Names of the bridge's properties that were corrected; ``flow`` is its NORMAL flow, and ``steering`` are the flows
    that send packets between pods by the node's kernel."""
    rules: bool = False
    """Whether the node's nftables rules for the network were installed."""
    plugged: list[str] = field(default_factory=list)
    """Pods whose port was added to the bridge again."""
    raised: list[str] = field(default_factory=list)
    """Pods whose host end was down and was set up."""
    guarded: list[str] = field(default_factory=list)
    """Pods whose port got its port-security flows again; vswitchd loses flows when it is restarted."""
    reserved: list[str] = field(default_factory=list)
    """Addresses of running pods that were reserved with host-local again."""
    removed: list[str] = field(default_factory=list)
    """Attachments that were removed because their pod is gone."""
    failures: list[str] = field(default_factory=list)
    """One sentence for each thing that could not be repaired."""


def repair_networks(networks: list[NetConf]) -> list[Repair]:
    """Repair networks, step by step. What cannot be repaired is told in ``failures``; all else is repaired.

    The flows of all bridges come first, because pods stand still without them. One repair runs at a time: a unit, a
    timer and an operator can start it at once, and two would plug in the same ports. Raises AttachmentBusyError.
    """
    with ExitStack() as locks:
        for state_dir in sorted({conf.state_dir for conf in networks}):
            # Without a lock file, as on a disk that is full, repair is still better than none.
            locks.enter_context(AttachmentLock(state_dir, _EVERY_ATTACHMENT, is_required=False))
        repairs = _repair_networks(networks)
        for conf, repair in zip(networks, repairs, strict=True):
            _note(conf.state_dir, repair)
        return repairs


def _note(state_dir: str, repair: Repair) -> None:
    """Leave in the event log how many things were mended."""
    for kind in REPAIRS:
        mended: bool | list[str] = getattr(repair, kind)
        count = len(mended) if isinstance(mended, list) else int(mended)
        if count:
            note_event(state_dir, kind, count)


def _repair_networks(networks: list[NetConf]) -> list[Repair]:
    repairs = [Repair(conf.name) for conf in networks]
    for step in (_guard_bridge, _remove_dead_attachments, _restore_reservations, _repair_switch, _ensure_rules):
        for conf, repair in zip(networks, repairs, strict=True):
            try:
                step(conf, repair)
            except EvioError as error:
                # A switch that does not answer fails more than one step.
                if str(error) not in repair.failures:
                    repair.failures.append(str(error))
    return repairs


def _guard_bridge(conf: NetConf, repair: Repair) -> None:
    guard = guard_bridge(conf)
    repair.bridge += ["steering"] if guard.has_added_steering else []
    repair.bridge += ["flow"] if guard.has_added_normal_flow else []
    repair.guarded += guard.guarded
    repair.failures += guard.closed


def _remove_dead_attachments(conf: NetConf, repair: Repair) -> None:
    """Remove attachments of an earlier boot, and those whose DEL could not finish while Open vSwitch was down.

    An attachment of this boot that has no veth may belong to an ADD that is running: it is left to DEL and GC.
    """
    this_boot = boot_id()
    for entry in _entries(conf):
        if entry.is_alive or (entry.boot == this_boot and not entry.is_deleted):
            continue
        try:
            delete_attachment(entry.attachment, conf, entry.path or DEFAULT_CNI_PATH)
            repair.removed.append(str(entry.attachment))
        except EvioError as error:
            repair.failures.append(f"{entry.attachment}: {error}")


def _restore_reservations(conf: NetConf, repair: Repair) -> None:
    """Reserve the addresses of running pods again, which host-local has lost with its files."""
    repair.reserved += sorted(restore_reservations(conf))


def _repair_switch(conf: NetConf, repair: Repair) -> None:
    # Pods stand still until their flows are in: what is not needed for that is imported afterwards.
    from ..ovs.bridge import ensure_bridge

    repair.bridge += [difference.name for difference in ensure_bridge(bridge_of(conf), ovsdb=conf.ovsdb)]
    with OvsdbClient(conf.ovsdb) as ovsdb:
        resolve_datapath(conf, ovsdb)
        _repair_pods(conf, ovsdb, repair)
    delete_stale_flows(conf)


def _repair_pods(conf: NetConf, ovsdb: OvsdbClient, repair: Repair) -> None:
    ports = {port.name: port for port in ports_of(ovsdb, conf.bridge)}
    with Netlink() as host:
        for entry in _entries(conf):
            if entry.is_begun or not entry.is_alive:
                continue
            pod = _PodRepair(conf, host, ovsdb, expected_by_entry(conf, entry), ports.get(entry.host_end))
            try:
                pod.run(repair)
            except EvioError as error:
                repair.failures.append(f"{entry.attachment}: {error}")


class _PodRepair:
    """The repair of one running pod."""

    def __init__(self, conf: NetConf, host: Netlink, ovsdb: OvsdbClient, expected: Expected, port: Port | None) -> None:
        self._conf = conf
        self._host = host
        self._ovsdb = ovsdb
        self._expected = expected
        self._port = port
        self._name = expected.interfaces.host.name

    def run(self, repair: Repair) -> None:
        """Mend each fault that has a mend. Raises EvioError where the pod must be left alone or cannot be looked at."""
        pod = str(self._expected.attachment)
        for finding in self._findings():
            if finding.mend == LEAVE_ALONE:
                raise RepairError(f"{finding.what}; {self._port_state()}; {finding.remedy}")
            if not finding.is_known:
                raise RepairError(finding.what)
            if finding.mend == SET_UP:
                self._host.set_link_up(self._name)
                repair.raised.append(pod)
            elif finding.mend == PLUG_IN:
                self._plug_in()
                repair.plugged.append(pod)
            elif finding.mend == INSTALL_PORT_SECURITY and self._port is not None:
                self._install_port_security(self._port.ofport, {})
                self._note_mac(self._port)
                repair.guarded.append(pod)

    def _findings(self) -> Iterator[Finding]:
        """Yield the findings of the links that have mends: first whatever forbids to mend the others."""
        yield from entry_findings(self._conf, self._expected)
        yield from reservation_findings(self._conf, self._expected)
        # The port before its device: the device is set up when the port has its flows.
        yield from port_findings(self._conf, self._expected, self._port)
        yield from host_end_findings(self._expected, self._host.link(self._name))

    def _port_state(self) -> str:
        """Return what a pod that is left alone can send by its port."""
        if self._port is None or not self._port.bridged:
            return "its port is not on the bridge"
        if not self._conf.port_security:
            return "its port stays as it is"
        if is_closed(self._conf, self._name):
            return "its port is closed"
        return "its port is guarded, from the external_ids in Open vSwitch where its flows were lost"

    def _note_mac(self, port: Port) -> None:
        """Note the MAC that the port may send from now on, if it is another than before: a plugin after ours set it."""
        mac = self._expected.interfaces.pod.mac
        if port.external_ids.get(MAC_ID, mac) != mac:
            set_external_ids(self._ovsdb, self._name, {MAC_ID: mac})
            Journal(self._conf.state_dir).add(self._expected.attachment, {"mac": mac})

    def _plug_in(self) -> None:
        """Remove what is left of the port, then add it. In one transaction, vswitchd would not reopen the device.

        The host's end of the veth pair is down meanwhile: the pod sends nothing before the port has its flows.
        """
        expected, addresses = self._expected, self._expected.addresses
        self._host.set_link_down(self._name)
        unplug(self._ovsdb, self._name, port_security=self._conf.port_security)
        ids = external_ids(expected.attachment, expected.interfaces.pod.mac) | address_ids(addresses)
        with NewPort(self._ovsdb, self._conf.bridge, self._name, ids, segment_of(self._conf)) as port:
            port.begin(random_ofport() if self._conf.port_security else None)
            while port.is_taken():
                port.begin(random_ofport())
            flowless = self._install_port_security(port.wait_ofport(), port.switch.removed_ports)
        if flowless:
            # At once: a port that has got its old number again would lose its flows with the next ADD.
            forget_removed_ports(self._ovsdb, self._conf.bridge, flowless)
        self._host.set_link_up(self._name)

    def _install_port_security(self, ofport: int, removed_ports: dict[int, str]) -> list[int]:
        """Install the port's flows and delete those of the removed ports; return which of these have none any more."""
        if not self._conf.port_security:
            clear_port_security(self._conf, self._name)
            return []
        mac, addresses = self._expected.interfaces.pod.mac, self._expected.addresses
        bridge = self._host.link(self._conf.bridge)
        with PortFlows(self._conf, self._name) as flows:
            # Not closed beforehand: ``install`` replaces the flows of a running pod in one write.
            flows.begin(bridge.mac if bridge is not None else "", None)
            flows.wait_closed()
            return flows.install(ofport, mac, addresses, removed_ports)


def _ensure_rules(conf: NetConf, repair: Repair) -> None:
    repair.rules = rules_of_pods(conf, addresses_of_pods(_entries(conf))).ensure()
    delete_unused_chains(conf, lambda: _known_addresses(conf))


def _known_addresses(conf: NetConf) -> list[list[str]] | None:
    """Return the addresses of each running pod; None while an ADD runs, which notes its own last."""
    entries = _entries(conf)
    return None if any(entry.is_begun for entry in entries) else addresses_of_pods(entries)


def _entries(conf: NetConf) -> list[JournalEntry]:
    return journal_entries(Journal(conf.state_dir), conf.name)
