# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bringing running pods back without starting them anew, from the journal alone.

A bridge made again (an Evio that restarts does that), an OVSDB begun from nothing, rules flushed, a gateway address
lost: whatever of an attachment is not there is put there again. Pods of before a boot are given up for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..cni.netconf import NetConf
from ..errors import EvioError
from ..firewall.network_rules import rules_of
from ..ipam.host_local import HOST_LOCAL, Reservations
from ..kernel.boot import boot_id
from ..kernel.rtnetlink import Netlink
from ..ovs.bridge import ensure_bridge
from ..ovs.external_ids import address_ids, external_ids
from ..ovs.flows import PortSecurity, clear_port_security, delete_stale_flows, ensure_normal_flow, has_port_security
from ..ovs.jsonrpc import OvsdbClient
from ..ovs.ports import NewPort, Port, forget_removed_ports, is_plugged, ports_of, unplug
from ..paths import DEFAULT_CNI_PATH
from ..plugin.delete import delete_attachment
from ..plugin.setup_bridge import bridge_of
from ..state.attachments import JournalEntry, journal_entries
from ..state.journal import Journal


class RepairError(EvioError):
    """A pod cannot be brought back."""


@dataclass
class Repair:
    """What was done for one network; nothing of it in a run that finds all in order."""

    network: str
    bridge: list[str] = field(default_factory=list)
    """Names of the properties that were put right; ``flow`` is the one that the bridge switches by."""
    rules: bool = False
    """Whether the node's rules for the network had to be put there."""
    plugged: list[str] = field(default_factory=list)
    """Pods that were plugged in again, as container id and interface."""
    raised: list[str] = field(default_factory=list)
    """Pods whose end on the host was down."""
    guarded: list[str] = field(default_factory=list)
    """Pods whose port got its flows again: a vswitchd that is started anew has forgotten them."""
    removed: list[str] = field(default_factory=list)
    """Attachments of which nothing lives any more."""
    failures: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.bridge or self.rules or self.plugged or self.raised or self.guarded or self.removed)


def repair_network(conf: NetConf) -> Repair:
    """Mend all of one network; what cannot be mended is among the failures, and the rest is mended all the same."""
    repair = Repair(conf.name)
    for mend in (_remove_dead, _mend_switch, _put_rules):
        try:
            mend(conf, repair)
        except EvioError as error:
            repair.failures.append(str(error))
    return repair


def _remove_dead(conf: NetConf, repair: Repair) -> None:
    """Attachments of before this boot, and DELs that an Open vSwitch that was down has left unfinished.

    One without a veth may be an ADD at work this very moment: it is left to DEL and GC, unless its boot is over.
    """
    this_boot = boot_id()
    for pod in _noted(conf):
        if pod.is_alive or (pod.boot == this_boot and not pod.is_deleted):
            continue
        try:
            delete_attachment(pod.attachment, conf, pod.path or DEFAULT_CNI_PATH)
            repair.removed.append(str(pod.attachment))
        except EvioError as error:
            repair.failures.append(f"{pod.attachment}: {error}")


def _mend_switch(conf: NetConf, repair: Repair) -> None:
    repair.bridge += [difference.name for difference in ensure_bridge(bridge_of(conf), ovsdb=conf.ovsdb)]
    with OvsdbClient(conf.ovsdb) as ovsdb:
        if ensure_normal_flow(conf, ovsdb):
            repair.bridge.append("flow")
        _plug_in(conf, ovsdb, repair)
    delete_stale_flows(conf)


def _plug_in(conf: NetConf, ovsdb: OvsdbClient, repair: Repair) -> None:
    reservations = Reservations(conf) if conf.ipam_type == HOST_LOCAL else None
    ports = {port.name: port for port in ports_of(ovsdb, conf.bridge)}
    with Netlink() as host:
        for pod in _noted(conf):
            if pod.is_begun or not pod.is_alive:
                continue
            try:
                if not pod.is_whole:
                    raise RepairError("its entry in the journal is damaged; start it anew")
                if reservations is not None:
                    _refuse_address_of_another(reservations, pod)
                _bring_back(host, ovsdb, conf, pod, ports.get(pod.host_end), repair)
            except EvioError as error:
                repair.failures.append(f"{pod.attachment}: {error}")


def _put_rules(conf: NetConf, repair: Repair) -> None:
    """The network's own rules, or without a gateway those of its pods' subnets."""
    subnets: list[list[str]] = (
        [[]] if conf.gateways else [list(pod.ips) for pod in _noted(conf) if pod.is_alive and pod.ips]
    )
    for ips in subnets:
        repair.rules = rules_of(conf, ips).ensure() or repair.rules


def _noted(conf: NetConf) -> list[JournalEntry]:
    return journal_entries(Journal(conf.state_dir), conf.name)


def _bring_back(
    host: Netlink, ovsdb: OvsdbClient, conf: NetConf, pod: JournalEntry, port: Port | None, repair: Repair
) -> None:
    link = host.link(pod.host_end)
    if link is not None and not link.is_up:
        host.raise_link(pod.host_end)
        repair.raised.append(str(pod.attachment))
    if port is None or not is_plugged(port):
        _plug(ovsdb, conf, pod)
        repair.plugged.append(str(pod.attachment))
    elif not has_port_security(conf, pod.host_end, port.ofport, pod.mac, list(pod.ips)):
        _guard(conf, pod, port.ofport, {})
        repair.guarded.append(str(pod.attachment))


def _refuse_address_of_another(reservations: Reservations, pod: JournalEntry) -> None:
    """A DEL that was cut off has given the address back, and another pod may have it by now."""
    for address in (ip.partition("/")[0] for ip in pod.ips):
        holder = reservations.holder(address)
        if holder is not None and holder.container_id != pod.attachment.container_id:
            raise RepairError(f"its address {address} has been given to {holder.container_id}; remove this pod")


def _plug(ovsdb: OvsdbClient, conf: NetConf, pod: JournalEntry) -> None:
    """Away with what is left of the port, then anew: two transactions, or vswitchd does not open the device again."""
    name, ips = pod.host_end, list(pod.ips)
    unplug(ovsdb, name, guarded=conf.port_security)
    ids = external_ids(pod.attachment, pod.mac) | address_ids(ips)
    with NewPort(ovsdb, conf.bridge, name, ids) as port:
        gone = _guard(conf, pod, port.wait_ofport(), port.switch.removed_ports)
    if gone:
        # Now, or the flows of a port that has its old number again would go with the next ADD.
        forget_removed_ports(ovsdb, conf.bridge, gone)


def _guard(conf: NetConf, pod: JournalEntry, ofport: int, removed_ports: dict[int, str]) -> list[int]:
    """Which of the removed_ports ports may be forgotten."""
    if not conf.port_security:
        clear_port_security(conf, pod.host_end)
        return []
    with PortSecurity(conf) as guard:
        return guard.install_port_security(ofport, pod.host_end, pod.mac, list(pod.ips), removed_ports)
