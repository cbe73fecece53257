# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bringing running pods back without starting them anew, from the journal alone.

A bridge made again (an Evio that restarts does that), an OVSDB begun from nothing, rules flushed, a gateway address
lost: whatever of an attachment is not there is put there again. Pods of before a boot are given up for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import paths
from .bridge import ensure_bridge
from .cni_protocol import Call
from .collection import collect_except, is_alive
from .detachment import delete
from .errors import EvioError
from .journal import Journal, boot_id
from .netconf import NetConf
from .node_rules import rules_of
from .ovsdb_rpc import Ovsdb, Port
from .ownership import address_ids, external_ids
from .port_guard import guard, is_guarded, sweep
from .ready_bridge import bridge_of
from .reservations import HOST_LOCAL, Reservations
from .rtnetlink import Netlink

DEFAULT_PATH = f"{paths.CNI_BIN_DIR}:/usr/lib/cni"
"""CNI_PATH of attachments whose journal entry has been lost."""

_ADD_SECONDS = 60.0
"""Longer than any ADD takes: IPAM has 30 s, Open vSwitch 5."""


class RepairError(EvioError):
    """A pod cannot be brought back."""


@dataclass
class Repair:
    """What was done for one network; nothing of it in a run that finds all in order."""

    network: str
    bridge: list[str] = field(default_factory=list)
    """Names of the properties that were put right."""
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
    journal = Journal(conf.state_dir, conf.name)
    _remove_dead(conf, journal, repair)
    try:
        repair.bridge = [difference.name for difference in ensure_bridge(bridge_of(conf), ovsdb=conf.ovsdb)]
        _plug_in(conf, journal, repair)
        sweep(conf)
    except EvioError as error:
        repair.failures.append(str(error))
    try:
        repair.rules = _put_rules(conf, journal)
    except EvioError as error:
        repair.failures.append(str(error))
    return repair


def collect_network(conf: NetConf) -> list[str]:
    """GC without a runtime's list: what lives is all that is valid. What could not be done, in words.

    An ADD that is at work is not disturbed: entries of the last minute are left alone.
    """
    journal = Journal(conf.state_dir, conf.name)
    call = Call("GC", "", "", "", DEFAULT_PATH, {})
    return collect_except(call, conf, journal.younger_than(_ADD_SECONDS))[1]


def _remove_dead(conf: NetConf, journal: Journal, repair: Repair) -> None:
    """Attachments of before this boot, and DELs that an Open vSwitch that was down has left unfinished.

    One without a veth may be an ADD at work this very moment: it is left to DEL and GC, unless its boot is over.
    """
    this_boot = boot_id()
    for container_id, ifname in journal.attachments():
        entry = journal.read(container_id, ifname) or {}
        if entry.get("boot") == this_boot and not entry.get("deleted"):
            continue
        if is_alive(journal, container_id, ifname):
            continue
        call = Call("DEL", container_id, "", ifname, entry.get("path") or DEFAULT_PATH, {})
        try:
            delete(call, conf)
            repair.removed.append(f"{container_id} {ifname}")
        except EvioError as error:
            repair.failures.append(f"{container_id} {ifname}: {error}")


def _put_rules(conf: NetConf, journal: Journal) -> bool:
    """Whether rules had to be put there: the network's own, or without a gateway those of its pods' subnets."""
    if conf.gateways:
        return rules_of(conf, []).ensure()
    living = [attachment for attachment in journal.attachments() if is_alive(journal, *attachment)]
    entries = [journal.read(*attachment) or {} for attachment in living]
    return True in {rules_of(conf, entry["ips"]).ensure() for entry in entries if entry.get("ips")}


def _plug_in(conf: NetConf, journal: Journal, repair: Repair) -> None:
    reservations = Reservations(conf) if conf.ipam_type == HOST_LOCAL else None
    host, ovsdb = Netlink(), Ovsdb(conf.ovsdb)
    try:
        ports = {port.name: port for port in ovsdb.ports(conf.bridge)}
        for container_id, ifname in journal.attachments():
            entry = journal.read(container_id, ifname) or {}
            if not entry.get("ips") or not is_alive(journal, container_id, ifname):
                continue
            name, pod = journal.host_end(container_id, ifname), f"{container_id} {ifname}"
            try:
                if reservations is not None:
                    _refuse_address_of_another(reservations, container_id, entry["ips"])
                _bring_back(host, ovsdb, conf, (container_id, ifname), entry, name, ports.get(name), repair)
            except EvioError as error:
                repair.failures.append(f"{pod}: {error}")
    finally:
        ovsdb.close()
        host.close()


def _bring_back(
    host: Netlink,
    ovsdb: Ovsdb,
    conf: NetConf,
    attachment: tuple[str, str],
    entry: dict[str, Any],
    name: str,
    port: Port | None,
    repair: Repair,
) -> None:
    pod = " ".join(attachment)
    link = host.link(name)
    if link is not None and not link.is_up:
        host.raise_link(name)
        repair.raised.append(pod)
    if port is None or not is_plugged(port):
        _plug(ovsdb, conf, attachment, entry, name)
        repair.plugged.append(pod)
    elif not is_guarded(conf, name, port.ofport, entry["mac"], entry["ips"]):
        guard(conf, name, port.ofport, entry["mac"], entry["ips"])
        repair.guarded.append(pod)


def _refuse_address_of_another(reservations: Reservations, container_id: str, ips: list[str]) -> None:
    """A DEL that was cut off has given the address back, and another pod may have it by now."""
    for address in (ip.partition("/")[0] for ip in ips):
        holder = reservations.holder(address)
        if holder is not None and holder[0] != container_id:
            raise RepairError(f"its address {address} has been given to {holder[0]}; remove this pod")


def _plug(ovsdb: Ovsdb, conf: NetConf, attachment: tuple[str, str], entry: dict[str, Any], name: str) -> None:
    """Away with what is left of the port, then anew: two transactions, or vswitchd does not open the device again."""
    ovsdb.delete_ports([name], guarded=conf.port_security)
    ids = external_ids(*attachment, conf.name, entry["mac"]) | address_ids(entry["ips"])
    guard(conf, name, ovsdb.add_port(conf.bridge, name, ids), entry["mac"], entry["ips"])


def is_plugged(port: Port | None) -> bool:
    """Whether Open vSwitch has the port on the bridge, and open."""
    return port is not None and port.bridged and port.ofport > 0 and not port.error
