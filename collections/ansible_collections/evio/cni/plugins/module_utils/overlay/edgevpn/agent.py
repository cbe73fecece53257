# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent beside EdgeVPN.io: it looks after a controller that tells nobody what it has lost.

It writes the overlay's state file, which STATUS and ``evio status`` read; restarts the service when its sessions are
lost for good; and keeps strangers from the controller's OpenFlow ports. watch decides, this file does.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ... import paths
from ...atomic_file import read_text, write_atomic
from ...errors import EvioError
from ...firewall.overlay_rules import openflow_rules
from ..fingerprint import fingerprint
from ..state import DIRECT, STATE_INTERVAL, OverlayState, PeerPath, render_state
from ..systemd import notify
from .config import CONFIG_PATH
from .members import EdgeVpnMembers, EdgeVpnMembersError, parse_members
from .naming import overlay_bridges, tunnel_name, tunnel_prefix
from .schema import OPENFLOW_PORTS
from .service import UNIT, count_sessions, is_answering, restart_service, service_state
from .tunnels import carried_taps
from .watch import Observation, RestartDecision, fault_of, summary_of

DEVICE = "EdgeVPN.io"
"""What the state file says of who makes the interface."""

_log = logging.getLogger("evio-edgevpn")


@dataclass(frozen=True)
class EdgeVpnFiles:
    """The paths of the files that the agent reads and writes."""

    config: str = CONFIG_PATH
    members: str = paths.EDGEVPN_MEMBERS
    state: str = paths.OVERLAY_STATE
    ovsdb: str = paths.OVSDB
    """Open vSwitch's database, as a connection method of ovsdb(7)."""

    def load(self) -> tuple[dict[str, Any], EdgeVpnMembers]:
        """Return EdgeVPN.io's configuration and the overlays' nodes. Raises EdgeVpnMembersError."""
        config_text, members_text = read_text(self.config), read_text(self.members)
        if config_text is None or members_text is None:
            missing = self.config if config_text is None else self.members
            raise EdgeVpnMembersError(f"cannot read {missing}: no such file; run the playbook")
        try:
            config = json.loads(config_text)
        except ValueError as error:
            raise EdgeVpnMembersError(f"{self.config} is damaged ({error}); run the playbook again") from error
        return config, parse_members(members_text, self.members)


class EdgeVpnAgent:
    """Looks at EdgeVPN.io every few seconds. All times are seconds of the monotonic clock."""

    def __init__(self, files: EdgeVpnFiles) -> None:
        self._files = files
        self._program = fingerprint(sys.argv[0])
        self._decision = RestartDecision()
        self._stopping = threading.Event()
        self._logged: str | None = None
        self._had_tunnels = False

    def run(self) -> None:
        """Look after EdgeVPN.io until SIGTERM or SIGINT, or until the program's file is replaced."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        self._round()
        notify("READY=1")
        while not self._stopping.wait(STATE_INTERVAL):
            self._round()
            notify("WATCHDOG=1")
            if self._program != fingerprint(sys.argv[0]):
                _log.info("the program was replaced: stopping, so that the service starts the new one")
                return

    def _round(self) -> None:
        """Look once, tell what was found, and restart the service if that is due."""
        fault: str | None = None
        summary, interface, node = "", "", ""
        peers: tuple[PeerPath, ...] = ()
        servers: list[tuple[str, int]] = []
        is_restart_due = False
        try:
            config, members = self._files.load()
            interface, node = members.interface, members.node
            seen = observe(config, members, ovsdb=self._files.ovsdb)
            self._had_tunnels = self._had_tunnels or any(seen.tunnels.values())
            seen = replace(seen, had_tunnels=self._had_tunnels)
            fault, summary, peers = fault_of(seen), summary_of(seen), _peer_paths(seen, members)
            servers, is_restart_due = signalling_servers(config), self._decision.is_due(seen, members, time.monotonic())
        except EvioError as error:
            fault = str(error)
        summary = "; ".join(filter(None, (summary, _keep_rules())))
        self._log("; ".join(filter(None, (fault, summary))))
        self._publish(OverlayState(node, interface, DEVICE, time.time(), peers, fault, summary=summary))
        if is_restart_due:
            self._restart(servers)

    def _publish(self, state: OverlayState) -> None:
        try:
            write_atomic(self._files.state, render_state(state), mode=0o644)
        except OSError as error:
            self._log(f"cannot write {self._files.state}: {error.strerror}")

    def _restart(self, servers: list[tuple[str, int]]) -> None:
        """Restart the service, unless a signalling server does not answer: then that would only cut the node off."""
        now = time.monotonic()
        if not all(is_answering(host, port) for host, port in servers):
            self._decision.note_unreachable_server(now)
            return
        _log.warning("restarting %s: it has lost its sessions, and does not sign in by itself", UNIT)
        self._decision.note_restart(now)
        try:
            restart_service()
        except EvioError as error:
            _log.warning("%s", error)

    def _log(self, line: str) -> None:
        if line != self._logged:
            self._logged = line
            _log.info("%s", line)


def observe(config: Mapping[str, Any], members: EdgeVpnMembers, *, ovsdb: str = paths.OVSDB) -> Observation:
    """Return how EdgeVPN.io is now. Raises OvsdbError, EdgeVpnServiceError and EdgeVpnMembersError."""
    try:
        host, *others = config["Broker"]["Overlays"]
        servers = signalling_servers(config)
        prefixes = [tunnel_prefix(config, overlay) for overlay in (host, *others)]
        bridges = overlay_bridges(config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EdgeVpnMembersError(
            f"EdgeVPN.io's configuration is damaged ({error!r}); run the playbook again"
        ) from error
    state = service_state()
    carried = carried_taps(bridges, ovsdb=ovsdb)
    names = {name: [tunnel_name(prefix, peer.node_id) for prefix in prefixes] for name, peer in members.peers.items()}
    return Observation(
        is_running=state.main_pid != 0,
        running_for=time.monotonic() - state.started,
        sessions=count_sessions(state, {port for _host, port in servers}),
        wanted_sessions=len(servers),
        tunnels={name: taps[0] in carried for name, taps in names.items()},
        pod_tunnels=sum(taps[1] in carried for taps in names.values()) if others else None,
    )


def signalling_servers(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return host and port of the signalling server of each overlay."""
    overlays = config["Signal"]["Overlays"].values()
    return [(str(overlay["HostAddress"]), int(overlay["Port"])) for overlay in overlays]


def _peer_paths(seen: Observation, members: EdgeVpnMembers) -> tuple[PeerPath, ...]:
    """Return how this node reaches the others. Without a tunnel of its own, a node may be reached through others."""
    return tuple(
        PeerPath(name, peer.address, DIRECT if seen.tunnels[name] else None, None, None)
        for name, peer in members.peers.items()
    )


def _keep_rules() -> str | None:
    """Put the nftables rules in place; return why that failed, or None."""
    try:
        if openflow_rules(OPENFLOW_PORTS).ensure():
            _log.info("closed the OpenFlow ports %s to all but this node", " and ".join(map(str, OPENFLOW_PORTS)))
    except EvioError as error:
        return f"the OpenFlow ports of EdgeVPN.io are open to pods and strangers: {error}"
    return None
