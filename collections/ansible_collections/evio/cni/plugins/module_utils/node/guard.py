# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let the bridge forward again after a start of vswitchd, which knows no flows then and lets nothing pass.

First each pod's port gets its port-security flows, and then the bridge its NORMAL flow. The journal says which MAC and
addresses a pod has; where its entry is damaged, the port's external_ids say it; where they are damaged too, the port is
closed. Pods stand still until this is done, so it comes before all else that ``repair`` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic, sleep

from ..cidr import is_cidr
from ..cni.attachment import Attachment
from ..cni.netconf import NetConf
from ..cni.spec import CniError, is_name
from ..kernel.rtnetlink import Netlink
from ..names import is_mac
from ..ovs.external_ids import ADDRESS_ID, CONTAINER_ID, IFNAME_ID, MAC_ID, NETWORK_ID
from ..ovs.flows import guard_ports
from ..ovs.jsonrpc import OvsdbClient
from ..ovs.openflow import Flow, OpenFlowError
from ..ovs.pod_steering import Steering
from ..ovs.port_security import flows_of
from ..ovs.port_state import Port
from ..state.attachments import JournalEntry, is_half_made
from ..state.directory import StateError
from ..state.journal import Journal
from ..state.lock import LONGEST_CALL_SECONDS

_LONGEST_START_SECONDS = 5.0
"""A vswitchd that has just been started opens the bridge's socket within this time."""

_POLL_SECONDS = 0.01

_ANY_MAC = "02:00:00:00:00:00"


@dataclass
class Guard:
    """What was done for one bridge."""

    guarded: list[str] = field(default_factory=list)
    """Pods whose port got its port-security flows, by container id and interface."""
    closed: list[str] = field(default_factory=list)
    """One sentence for each pod whose port is closed."""
    has_added_steering: bool = False
    """Whether flows were missing that send packets between pods by the node's kernel."""
    has_added_normal_flow: bool = False
    """Whether the bridge's NORMAL flow was missing."""


def guard_bridge(conf: NetConf) -> Guard:
    """Install what is missing of the flows of the network's bridge. Raises EvioError."""
    guard = Guard()

    def wanted(port: Port, number: int) -> list[Flow]:
        flows = _flows_of_port(conf, port)
        if len(flows) == 1 and number <= 1 and not _is_being_added(conf, port):
            guard.closed.append(
                f"{_attachment_of(port)}: neither the journal nor the external_ids of the port {port.name} say which "
                "MAC and addresses the pod has; its port is closed; recreate the pod"
            )
        return flows

    with OvsdbClient(conf.ovsdb) as ovsdb:
        deadline = monotonic() + _LONGEST_START_SECONDS
        while True:
            guard.closed.clear()
            try:
                guarded = guard_ports(conf, ovsdb, lambda: _bridge_mac(conf), wanted)
                break
            except OpenFlowError:
                if monotonic() > deadline:
                    raise
                sleep(_POLL_SECONDS)
    guard.has_added_steering = guarded.has_added_steering
    guard.has_added_normal_flow = guarded.has_added_normal_flow
    guard.guarded = [str(_attachment_of(port)) for port in guarded.ports if len(_flows_of_port(conf, port)) > 1]
    return guard


def _bridge_mac(conf: NetConf) -> str:
    """Return the MAC of the bridge's device, which a vswitchd that has just started makes. Raises OpenFlowError."""
    with Netlink() as host:
        link = host.link(conf.bridge)
    if link is None:
        raise OpenFlowError(f"the bridge {conf.bridge} has no network device: is ovs-vswitchd running?")
    return link.mac


def _flows_of_port(conf: NetConf, port: Port) -> list[Flow]:
    """Return the flows that the port needs: none without port security, one that drops all where the pod is unknown."""
    entry, noted = _entry_of(conf, port)
    network = _network_of(conf, port, noted)
    if network is not None and not network.port_security:
        return []
    mac, addresses = (entry.mac, list(entry.ips)) if entry is not None else ("", [])
    if not mac or not addresses:
        mac = port.external_ids.get(MAC_ID, "")
        addresses = list(filter(None, port.external_ids.get(ADDRESS_ID, "").split(",")))
    if not is_mac(mac) or not all(is_cidr(f"{address.partition('/')[0]}/32") for address in addresses):
        mac, addresses = _ANY_MAC, []
    return flows_of(port.number, mac, addresses, Steering(network) if network is not None else None)


def _entry_of(conf: NetConf, port: Port) -> tuple[JournalEntry | None, dict[str, object]]:
    """Return the journal entry of the port's pod, and its content; None and nothing where it cannot be read."""
    journal, attachment = Journal(conf.state_dir), _attachment_of(port)
    if not attachment.is_valid or not is_name(attachment.network):
        return None, {}
    try:
        return JournalEntry(journal, attachment), journal.read(attachment) or {}
    except StateError:
        return None, {}


def _network_of(conf: NetConf, port: Port, noted: dict[str, object]) -> NetConf | None:
    """Return the configuration of the port's network, None where it is not known. Networks may share a bridge."""
    if port.external_ids.get(NETWORK_ID) == conf.name:
        return conf
    config = noted.get("config")
    try:
        return NetConf(config) if isinstance(config, dict) else None
    except (CniError, KeyError, TypeError, AttributeError):
        return None


def _is_being_added(conf: NetConf, port: Port) -> bool:
    """Return whether an ADD may be at work on the port, which then installs the flows itself."""
    attachment = _attachment_of(port)
    _entry, noted = _entry_of(conf, port)
    journal = Journal(conf.state_dir)
    return is_half_made(noted) and attachment in journal.younger_than(attachment.network, LONGEST_CALL_SECONDS)


def _attachment_of(port: Port) -> Attachment:
    ids = port.external_ids
    return Attachment(ids.get(NETWORK_ID, ""), ids.get(CONTAINER_ID, ""), ids.get(IFNAME_ID, ""))
