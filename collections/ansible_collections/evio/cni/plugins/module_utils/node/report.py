# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Report on a network for ``evio status``: the answer of STATUS, and each pod with the state of its port.

Why one pod is not reachable: explain.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cni.attachment import Attachment
from ..cni.netconf import NetConf
from ..cni.spec import Call
from ..deadline import end_call
from ..errors import EvioError
from ..ipam.host_local import HOST_LOCAL, Reservations
from ..ovs.jsonrpc import OvsdbClient
from ..ovs.ports import Port, has_daemon, is_plugged, ports_of
from ..paths import DEFAULT_CNI_PATH
from ..plugin.reclaim import lost_reservations
from ..plugin.status import cmd_status
from ..state.attachments import JournalEntry, journal_entries
from ..state.journal import Journal


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


def network_status(conf: NetConf) -> NetworkStatus:
    """Look at one network; nothing is changed. An Open vSwitch that is down is part of the answer.

    Raises EvioError where the journal cannot be read.
    """
    verdict: str | None = None
    ports: dict[str, Port] | None = None
    try:
        cmd_status(Call("STATUS", "", "", "", DEFAULT_CNI_PATH, {}), conf)
    except EvioError as error:
        verdict = str(error)
    finally:
        end_call()
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            if has_daemon(ovsdb):
                ports = {port.name: port for port in ports_of(ovsdb, conf.bridge)}
    except EvioError as error:
        verdict = verdict or str(error)
    lost = lost_reservations(conf)
    pods = tuple(
        PodStatus(entry.attachment.container_id, entry.attachment.ifname, entry.ips, _state(entry, ports, lost))
        for entry in journal_entries(Journal(conf.state_dir), conf.name)
    )
    reserved = Reservations(conf).count() if conf.ipam_type == HOST_LOCAL else 0
    return NetworkStatus(conf.name, conf.bridge, tuple(conf.gateways), conf.epoch, verdict, reserved, pods)


def _state(entry: JournalEntry, ports: dict[str, Port] | None, lost: dict[str, Attachment]) -> str:
    """``ports`` are the network's ports by name; None where Open vSwitch does not run."""
    if not entry.is_alive:
        return "gone"
    if ports is None:
        return "not served"
    if not is_plugged(ports.get(entry.host_end)):
        return "not plugged in"
    return "not reserved" if entry.attachment in lost.values() else "plugged in"
