# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All that a node can tell of itself: ``evio status --json``, and what the status page shows. Nothing is changed.

Each part that cannot be read says so and does not keep the others from being read. The shape is described by
docs/node-status.schema.json; SCHEMA counts its versions.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from .. import paths
from ..cni import cri
from ..cni.netconf import NetConf
from ..cni.spec import SUPPORTED_VERSIONS
from ..errors import EvioError
from ..firewall.network_rules import FAMILY, TABLE
from ..kernel import nft
from ..kernel.rtnetlink import Netlink
from ..overlay.path_mtu import known_path_mtus
from ..overlay.state import DIRECT, OverlayState, read_state
from ..overlay.wireguard.agent_files import AgentFiles
from ..overlay.wireguard.config import OverlayConfig, OverlayPeer
from ..overlay.wireguard.device import DeviceState, PeerState, read_device
from ..ovs.jsonrpc import OvsdbClient
from ..programs.installation import installed_collection, installed_version
from ..state.fence import read_fence
from .certificates import read_certificates
from .claim import read_local_claim
from .identity import read_identity, read_site_certificates
from .model import IDLE, NONE, RELAYED, Claim, NodeStatus, Overlay, Peer, Versions
from .networks import read_networks
from .problems import problems_of
from .report import network_status
from .services import read_errors, read_services

SCHEMA = 1
"""Version of the shape. Keys may be added within a version; none is removed or gets another meaning."""

_MOST_PEERS = 5000
_LONGEST_TEXT = 1000
"""Peers and characters of a message that are told."""

T = TypeVar("T")


def read_status(
    *,
    conf_dir: str = paths.CNI_CONF_DIR,
    bin_dir: str = paths.CNI_BIN_DIR,
    state_dir: str = paths.STATE_DIR,
    cri_socket: str = cri.CONTAINERD,
    ovsdb: str = paths.OVSDB,
    files: AgentFiles | None = None,
    has_pods: bool | None = None,
    with_errors: bool = True,
) -> NodeStatus:
    """Look at the whole node. Takes about a second.

    ``cri_socket`` may be empty, or belong to no runtime: then pods have no names. ``has_pods`` says whether the node is
    to have a pod network; None leaves that to what is found. Without ``with_errors`` the journal is not searched.
    """
    now = time.time()
    faults: list[str] = []
    identity = _attempt(read_identity, faults)
    networks_fault: str | None = None
    try:
        confs = read_networks(conf_dir, warn=lambda fault: faults.append(_cut(fault)))
    except EvioError as error:
        confs, networks_fault = [], _cut(str(error))
    names, runtime_fault = _pod_names(cri_socket, confs)
    networks = [_attempt(lambda conf=conf: network_status(conf, names), faults) for conf in confs]  # type: ignore[misc]
    overlay, overlay_fault = _overlay(files or AgentFiles(), now)
    is_set_up = bool(identity and identity.node) or overlay is not None
    return NodeStatus(
        time=now,
        hostname=os.uname().nodename,
        node=identity.node if identity else "",
        cluster=identity.cluster if identity else "",
        versions=Versions(
            installed_version(bin_dir),
            platform.python_version(),
            os.uname().release,
            _openvswitch_version(confs[0].ovsdb if confs else ovsdb),
            SUPPORTED_VERSIONS,
            installed_collection(bin_dir),
        ),
        services=tuple(read_services()),
        overlay=overlay,
        overlay_fault=overlay_fault,
        claim=_claim(conf_dir, confs[0].state_dir if confs else state_dir, faults),
        has_rules=_has_rules(),
        networks=tuple(network for network in networks if network is not None),
        networks_fault=networks_fault if has_pods or (has_pods is None and is_set_up) else None,
        runtime_fault=runtime_fault,
        certificates=tuple(read_certificates(_attempt(read_site_certificates, faults) or ())),
        errors=tuple(read_errors()) if with_errors else (),
        faults=tuple(faults),
    )


def to_json(status: NodeStatus) -> dict[str, Any]:
    """Return what docs/node-status.schema.json describes."""
    return {"schema": SCHEMA, **asdict(status), "problems": [asdict(problem) for problem in problems_of(status)]}


def _attempt(read: Callable[[], T], faults: list[str]) -> T | None:
    """Return what is read; None, and a fault more, where it cannot be."""
    try:
        return read()
    except (EvioError, OSError) as error:
        faults.append(_cut(str(error)))
        return None


def _pod_names(socket: str, confs: list[NetConf]) -> tuple[Mapping[str, cri.PodName], str | None]:
    """Return the pods' names by container id, or why there are none."""
    if not socket or not confs or not os.path.exists(socket):
        return {}, None
    try:
        return cri.pod_names(socket), None
    except EvioError as error:
        return {}, _cut(str(error))


def _claim(conf_dir: str, state_dir: str, faults: list[str]) -> Claim | None:
    local = _attempt(lambda: read_local_claim(conf_dir), faults)
    return None if local is None else Claim(tuple(local.cidrs), local.epoch, read_fence(state_dir))


def _has_rules() -> bool | None:
    try:
        return any(item.get("table", {}).get("name") == TABLE for item in nft.list_objects("tables", FAMILY))
    except EvioError:
        return None


def _openvswitch_version(ovsdb: str) -> str | None:
    try:
        with OvsdbClient(ovsdb) as client:
            operation = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["ovs_version"]}
            [row] = client.transact(operation)[0]["rows"]
            version = row["ovs_version"]
    except (EvioError, KeyError, ValueError):
        return None
    return version if isinstance(version, str) else None


def _overlay(files: AgentFiles, now: float) -> tuple[Overlay | None, str | None]:
    """Return the overlay, or why there is none although it is configured."""
    config, device, fault = None, None, None
    try:
        config = files.load_config() if os.path.exists(files.config) else None
        device = read_device(config.interface) if config is not None else None
    except EvioError as error:
        fault = _cut(str(error))
    state = read_state(files.state)
    if state is None:
        if config is not None and fault is None:
            fault = f"the overlay's agent has not written {files.state} since the boot"
        return None, fault
    return _overlay_of(state, config, device, files, now), fault


def _overlay_of(
    state: OverlayState, config: OverlayConfig | None, device: DeviceState | None, files: AgentFiles, now: float
) -> Overlay:
    configured = {peer.name: peer for peer in config.peers} if config is not None else {}
    mtus = known_path_mtus(peer.endpoint for peer in state.peers if peer.endpoint is not None)
    peers = []
    for peer in state.peers[:_MOST_PEERS]:
        known = configured.get(peer.name)
        counted = _counted(device, known)
        peers.append(
            Peer(
                name=peer.name,
                address=peer.address,
                kind=_kind(peer.path, peer.in_use),
                path=peer.path,
                rtt_ms=peer.rtt_ms,
                endpoint=peer.endpoint,
                is_relay=known is not None and known.is_relay,
                handshake_age=_handshake_age(counted, now),
                received_bytes=counted.received if counted is not None else None,
                sent_bytes=counted.sent if counted is not None else None,
                underlay_mtu=mtus.get(peer.endpoint or ""),
            )
        )
    return Overlay(
        interface=state.interface,
        device=state.device,
        address=config.address if config is not None else "",
        mtu=_mtu(state.interface),
        is_relay=config is not None and config.is_relay,
        public_endpoint=config.endpoint if config is not None else None,
        listen_port=device.listen_port if device is not None else None,
        age_seconds=max(0.0, now - state.updated),
        fault=_cut(state.fault) if state.fault else None,
        blocked=tuple(_cut(chain) for chain in state.blocked),
        summary=_cut(state.summary),
        peers=tuple(peers),
        key_age_seconds=_age(files.key, now) if config is not None else None,
        is_rekeying=any(len(peer.public_keys) > 1 for peer in configured.values()),
    )


def _counted(device: DeviceState | None, peer: OverlayPeer | None) -> PeerState | None:
    """Return what the device says of a peer; of two keys of the peer, what it says of that with the last handshake."""
    keys = peer.public_keys if device is not None and peer is not None else ()
    found = [device.peers[key] for key in keys if key in device.peers]  # type: ignore[union-attr]
    return max(found, key=lambda state: state.latest_handshake, default=None)


def _kind(path: str | None, in_use: bool) -> str:
    if path is None:
        return NONE
    if path == DIRECT:
        return DIRECT
    return RELAYED if in_use else IDLE


def _handshake_age(peer: PeerState | None, now: float) -> float | None:
    return max(0.0, now - peer.latest_handshake) if peer is not None and peer.latest_handshake else None


def _mtu(interface: str) -> int | None:
    with Netlink() as host:
        link = host.link(interface)
    return None if link is None else link.mtu


def _age(path: str, now: float) -> float | None:
    try:
        return max(0.0, now - os.stat(path).st_mtime)
    except OSError:
        return None


def _cut(text: str) -> str:
    return text[:_LONGEST_TEXT]
