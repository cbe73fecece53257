# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of a network on this node, for people: STATUS' verdict, and every pod with what is wrong with its port."""

from __future__ import annotations

from dataclasses import dataclass

from .cni_protocol import Call, CniError
from .collection import is_alive
from .errors import EvioError
from .journal import Journal
from .netconf import NetConf
from .ovsdb_rpc import Ovsdb, Port
from .repair import DEFAULT_PATH, is_plugged
from .reservations import HOST_LOCAL, Reservations
from .status import check_status


@dataclass(frozen=True)
class PodStatus:
    """One attachment of the journal."""

    container_id: str
    ifname: str
    addresses: tuple[str, ...]
    state: str
    """``plugged in``, ``not plugged in`` (repair does it) or ``gone`` (gc removes what is left)."""


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
    ports: dict[str, Port] = {}
    try:
        check_status(Call("STATUS", "", "", "", DEFAULT_PATH, {}), conf)
    except CniError as error:
        verdict = error.msg
    try:
        ovsdb = Ovsdb(conf.ovsdb)
        try:
            ports = {port.name: port for port in ovsdb.ports(conf.bridge)}
        finally:
            ovsdb.close()
    except EvioError as error:
        verdict = verdict or str(error)
    journal = Journal(conf.state_dir, conf.name)
    pods = []
    for container_id, ifname in sorted(journal.attachments()):
        entry = journal.read(container_id, ifname) or {}
        plugged = is_plugged(ports.get(journal.host_end(container_id, ifname)))
        state = ("plugged in" if plugged else "not plugged in") if is_alive(journal, container_id, ifname) else "gone"
        pods.append(PodStatus(container_id, ifname, tuple(entry.get("ips", ())), state))
    reserved = Reservations(conf).count() if conf.ipam_type == HOST_LOCAL else 0
    return NetworkStatus(conf.name, conf.bridge, tuple(conf.gateways), conf.epoch, verdict, reserved, tuple(pods))
