# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of a network on this node, for people: STATUS' verdict, and every pod with what is wrong with its port."""

from __future__ import annotations

from dataclasses import dataclass

from ..cni.netconf import NetConf
from ..cni.spec import Call
from ..errors import EvioError
from ..ipam.host_local import HOST_LOCAL, Reservations
from ..ovs.jsonrpc import OvsdbClient
from ..ovs.ports import Port, has_daemon, is_plugged, ports_of
from ..paths import DEFAULT_CNI_PATH
from ..plugin.status import cmd_status
from ..state.attachments import JournalEntry, journal_entries
from ..state.journal import Journal


@dataclass(frozen=True)
class PodStatus:
    """One attachment of the journal."""

    container_id: str
    ifname: str
    addresses: tuple[str, ...]
    state: str
    """``plugged in``, ``not plugged in`` (repair does it), ``not served`` (Open vSwitch does not run) or ``gone`` (gc
    removes what is left)."""


@dataclass(frozen=True)
class NetworkStatus:
    """One network."""

    network: str
    bridge: str
    gateways: tuple[str, ...]
    epoch: int
    verdict: str | None
    """Why a new pod would not get its network; None if it would."""
    reserved: int
    """Addresses that host-local has given out; 0 with another IPAM plugin."""
    pods: tuple[PodStatus, ...]


def network_status(conf: NetConf) -> NetworkStatus:
    """Look at all of it; nothing is changed, and a switch that is down is part of the answer."""
    verdict: str | None = None
    ports: dict[str, Port] | None = None
    try:
        cmd_status(Call("STATUS", "", "", "", DEFAULT_CNI_PATH, {}), conf)
    except EvioError as error:
        verdict = str(error)
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            if has_daemon(ovsdb):
                ports = {port.name: port for port in ports_of(ovsdb, conf.bridge)}
    except EvioError as error:
        verdict = verdict or str(error)
    noted = journal_entries(Journal(conf.state_dir), conf.name)
    pods = tuple(
        PodStatus(pod.attachment.container_id, pod.attachment.ifname, pod.ips, _state(pod, ports)) for pod in noted
    )
    reserved = Reservations(conf).count() if conf.ipam_type == HOST_LOCAL else 0
    return NetworkStatus(conf.name, conf.bridge, tuple(conf.gateways), conf.epoch, verdict, reserved, pods)


def _state(pod: JournalEntry, ports: dict[str, Port] | None) -> str:
    if not pod.is_alive:
        return "gone"
    if ports is None:
        return "not served"
    return "plugged in" if is_plugged(ports.get(pod.host_end)) else "not plugged in"
