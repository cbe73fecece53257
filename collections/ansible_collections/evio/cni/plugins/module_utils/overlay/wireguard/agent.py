# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The overlay's agent: the event loop on each node that keeps the WireGuard overlay as the node's files describe it.

It decides nothing: path_selection says what to do about a peer, managed_device and interface do it. Packets flow
without the agent: when it stops or is killed, the interface stays as it is, and the next agent takes it over.
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import sys
import time

from ...atomic_file import write_atomic
from ...errors import EvioError
from ...firewall.forwarding import CLUSTER
from .agent_files import AgentFiles, fingerprint
from .device import USERSPACE
from .firewall import FirewallWatch, overlay_rules_of
from .interface import ensure_link, remove_link
from .lan_endpoints import lan_endpoints
from .managed_device import ManagedDevice
from .messages import MessageError, decode, encode
from .path_selection import DIRECT, Actions, OverlayPaths
from .probe_socket import ProbeSocket
from .state import STATE_INTERVAL, OverlayState, PeerPath, render_state
from .systemd import notify

TICK = 0.5
"""Seconds between two rounds."""

DEVICE_CHECK = 5.0
RELAY_DEVICE_CHECK = 1.0
"""Seconds between two looks at the device, on other nodes and on relays: other nodes wait for the endpoints that a
relay's device sees."""

LINK_CHECK = 10.0
"""Seconds between two looks at the interface, its routes and sysctls, and at the firewall."""

_SIGNAL, _PROBE, _DEVICE = "signal", "probe", "device"
"""What the selector reports."""

_IP_AND_UDP_HEADERS = 28
"""Bytes: probe addresses are IPv4."""

_log = logging.getLogger("evio-overlay")


class OverlayAgent:
    """The overlay of one node. All times are seconds of the monotonic clock."""

    def __init__(self, files: AgentFiles) -> None:
        """Read the files. Raises OverlayError and WireGuardError if they cannot work."""
        self._files = files
        self._config, self._routes = files.load()
        self._files_read = files.fingerprint()
        self._program = fingerprint(sys.argv[0])
        self._paths = OverlayPaths(self._config, self._routes, time.monotonic())
        self._selector = selectors.DefaultSelector()
        self._device = ManagedDevice(self._config.interface, self._selector, _DEVICE)
        self._probes = ProbeSocket(self._selector, _PROBE)
        self._rules = overlay_rules_of(self._config, self._routes)
        self._rules_fault = ""
        self._firewall = FirewallWatch()
        self._logged_blocked: tuple[object, ...] = ()
        self._applied_revision = -1
        self._logged_paths: dict[str, str | None] = {}
        self._next_rules_check = 0.0
        self._next_device_check = 0.0
        self._next_link_check = 0.0
        self._next_state = 0.0
        self._published_fault: str | None = None
        self._is_stopping = False
        self._warned: set[str] = set()

    def run(self) -> None:
        """Keep the overlay until SIGTERM or SIGINT, or until the program's file is replaced. SIGHUP begins a round."""
        wakeup, wakeup_write = socket.socketpair()
        for end in (wakeup, wakeup_write):
            end.setblocking(False)
        self._selector.register(wakeup, selectors.EVENT_READ, _SIGNAL)
        self._handle_signals(wakeup_write)
        self._round()
        notify("READY=1")
        next_tick = time.monotonic() + TICK
        while not self._is_stopping:
            for key, _mask in self._selector.select(max(0.0, next_tick - time.monotonic())):
                if key.data == _PROBE:
                    self._receive()
                elif key.data == _DEVICE:
                    _log.warning("%s of %s ended: creating the interface again", USERSPACE, self._config.interface)
                    self._device.release()
                    next_tick = 0.0
                else:
                    wakeup.recv(64)
                    next_tick = 0.0
            if time.monotonic() >= next_tick:
                self._round()
                next_tick = time.monotonic() + TICK

    def _handle_signals(self, wakeup: socket.socket) -> None:
        """Let each signal end the wait of the loop by a byte into this socket."""
        signal.set_wakeup_fd(wakeup.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, lambda *_: None)

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def _round(self) -> None:
        """Check files, device, interface and peers in turn. An error is logged, and the next round tries again."""
        try:
            self._reload()
            now = time.monotonic()
            self._check_rules(now)
            self._check_device(now)
            self._check_link(now)
            self._log_blocked()
            self._act(self._paths.tick(now), now)
            self._apply(now, always=True)
            self._publish(now)
            self._warned.clear()
        except EvioError as error:
            self._warn(str(error))
            self._publish(time.monotonic(), str(error))
        notify("WATCHDOG=1")

    def _reload(self) -> None:
        if self._program != fingerprint(sys.argv[0]):
            _log.info("the program was replaced: stopping, so that the service starts the new one")
            self._is_stopping = True
        files_now = self._files.fingerprint()
        if files_now == self._files_read:
            return
        self._files_read = files_now
        before = self._config
        self._config, self._routes = self._files.load()
        if before.interface != self._config.interface:
            self._device.release()
            remove_link(before.interface)
            self._device = ManagedDevice(self._config.interface, self._selector, _DEVICE)
        self._paths.configure(self._config, self._routes)
        self._rules = overlay_rules_of(self._config, self._routes)
        self._next_rules_check = self._next_device_check = self._next_link_check = 0.0
        self._device.kind = ""
        _log.info("read %s again: %d peers", self._files.config, len(self._config.peers))

    def _check_rules(self, now: float) -> None:
        """Keep our nftables rules. Without them the overlay works, but pods reach more of it than they should."""
        if now < self._next_rules_check:
            return
        try:
            if self._rules.ensure():
                _log.info("installed the nftables rules of %s", self._config.interface)
            self._rules_fault = ""
        except EvioError as error:
            self._next_rules_check = now + LINK_CHECK
            if str(error) != self._rules_fault:
                self._rules_fault = str(error)
                _log.warning(
                    "pods are not kept from the probe addresses, nor other nodes from this node's LAN: %s", error
                )

    def _check_device(self, now: float) -> None:
        """Take over the device that exists, or create it; then tell path selection where the device sees the peers."""
        if self._device.is_watched and now < self._next_device_check:
            return
        if not self._device.find(self._config, self._files.key):
            self._device.create(self._config, self._files.key)
            self._paths.restarted(now)
            self._next_link_check = 0.0
            self._device.read()
        self._next_device_check = now + (RELAY_DEVICE_CHECK if self._config.is_relay else DEVICE_CHECK)
        self._paths.observe(self._device.endpoints)

    def _check_link(self, now: float) -> None:
        if now < self._next_link_check:
            return
        self._next_link_check = now + LINK_CHECK
        for difference in ensure_link(self._config, self._routes):
            _log.info(
                "%s: %s: %s, was %s", self._config.interface, difference.name, difference.wanted, difference.found
            )
        self._firewall.look(self._config, self._routes)
        self._paths.announce_lan(lan_endpoints(self._config))
        self._probes.ensure_open(self._config)

    def _log_blocked(self) -> None:
        """Log the chains of other firewalls that drop packets, once until they are others; publish them at once."""
        blocked = self._firewall.blocked
        if blocked == self._logged_blocked:
            return
        for chain in blocked:
            _log.warning("%s", chain)
        if not blocked:
            _log.info("no firewall of this node drops packets of pods and of the overlay any more")
        self._logged_blocked = blocked
        self._next_state = 0.0

    def _receive(self) -> None:
        for source, datagram in self._probes.receive():
            now = time.monotonic()
            try:
                actions = self._paths.receive(source, decode(datagram), now)
            except MessageError as error:
                self._warn(f"from {source}: {error}")
                continue
            try:
                self._act(actions, now)
                self._apply(now)
            except EvioError as error:
                self._warn(str(error))

    def _act(self, actions: Actions, now: float) -> None:
        if actions.attempts:
            self._device.try_endpoints(actions.attempts, self._paths.allowed_ips(now))
        for outgoing in actions.outgoing:
            size = self._config.mtu - _IP_AND_UDP_HEADERS if outgoing.padded else 0
            self._probes.send(outgoing.peer.address, encode(outgoing.message, size))

    def _apply(self, now: float, always: bool = False) -> None:
        """Give WireGuard the AllowedIPs of the paths now, if the paths may have changed."""
        if not always and self._paths.revision == self._applied_revision:
            return
        if self._config.is_relay and self._paths.revision != self._applied_revision:
            # A peer came up, and other nodes wait for the endpoint at which the device sees it.
            self._next_device_check = 0.0
        self._applied_revision = self._paths.revision
        self._device.set_allowed_ips(self._paths.allowed_ips(now))
        self._log_paths(now)

    def _log_paths(self, now: float) -> None:
        """Log each node whose path changed, and let the state file be written at once."""
        current = {state.peer.name: state.path for state in self._paths.states(now)}
        for name, path in current.items():
            if name not in self._logged_paths or self._logged_paths[name] != path:
                words = {None: "not reachable", DIRECT: "direct"}.get(path, f"through relay {path}")
                _log.info("%s: %s", name, words)
                self._next_state = 0.0
        self._logged_paths = current

    def _publish(self, now: float, fault: str | None = None) -> None:
        """Write the state file if it is due or the fault is another, and give systemd the status line."""
        if now < self._next_state and fault == self._published_fault:
            return
        self._published_fault = fault
        self._next_state = now + STATE_INTERVAL
        peers = tuple(
            PeerPath(
                state.peer.name,
                state.peer.address,
                state.path,
                state.rtt_ms,
                self._device.endpoints.get(state.peer.public_key),
            )
            for state in self._paths.states(now)
        )
        reached = sum(peer.path is not None for peer in peers)
        notify(f"STATUS={fault or f'reaches {reached} of {len(peers)} nodes'}")
        blocked = [str(chain) for chain in self._firewall.blocked if chain.reach == CLUSTER]
        state = OverlayState(
            self._config.node, self._config.interface, self._device.kind, time.time(), peers, fault, blocked
        )
        try:
            write_atomic(self._files.state, render_state(state), mode=0o644)
        except OSError as error:
            self._warn(f"cannot write {self._files.state}: {error.strerror}")

    def _warn(self, text: str) -> None:
        """Log a warning, once until a round succeeds: the same error comes back with each round."""
        if text not in self._warned:
            self._warned.add(text)
            _log.warning("%s", text)
