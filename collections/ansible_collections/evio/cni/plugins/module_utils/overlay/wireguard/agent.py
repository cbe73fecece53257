# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The overlay's agent: the event loop on each node that keeps the WireGuard overlay as the node's files describe it.

It decides nothing: path_selection says what to do about a peer, managed_device and interface do it. Packets flow
without the agent: when it stops or is killed, the interface stays as it is, and the next agent takes it over.
"""

from __future__ import annotations

import logging
import math
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Mapping

from ...atomic_file import write_atomic
from ...defaults import BRIDGE
from ...errors import EvioError
from ...firewall.forwarding import CLUSTER
from ...kernel import iptables_legacy
from ...kernel.networks_in_use import networks_in_use
from ...kernel.nft_generation import RulesetGeneration
from ..conflicts import find_conflict
from ..endpoint import OverlayError
from ..fingerprint import fingerprint
from ..name_lookup import NameLookups
from ..state import DIRECT, STATE_INTERVAL, STATE_LIFETIME, OverlayState, PeerPath, render_state
from ..systemd import notify
from .agent_files import AgentFiles
from .config import PROBE_PORT, UDP_HEADERS, OverlayConfig, digest_of_keys, former_probe_address, overlay_networks
from .device import USERSPACE
from .firewall import FirewallWatch, overlay_rules_of
from .interface import ensure_link, has_address, remove_link
from .lan_endpoints import lan_endpoints
from .limits import LogLimit, MessageLimit
from .link_events import LinkEvents
from .managed_device import ManagedDevice
from .messages import Call, Rekey, decode, encode
from .path_selection import TICK, Actions, Attempt, Outgoing, OverlayPaths
from .probe_socket import ProbeSocket
from .traffic import TrafficWatch

DEVICE_CHECK = 5.0
RELAY_DEVICE_CHECK = 1.0
"""Seconds between two looks at the device, and on relays while nodes wait for the endpoints that the device sees."""

REKEY_DEVICE_CHECK = 2.0
"""The same while peers change their keys: a handshake shows a change of which the notice was lost."""

REKEY_LOOK = 0.01
REKEY_EAGERNESS = 2.0
"""Seconds between two looks for the handshake of a peer that is changing its key in this moment, and so many times the
CPU time of a look at least. What the peer sends between its handshake and the look is lost."""

IDLE_CHECK = 60.0
"""Seconds between two looks at the device and at the interface while no path is in use, if nothing is reported."""

FIREWALL_CHECK = 60.0
"""Seconds between two looks at the firewall where iptables-legacy has tables, whose changes the kernel does not tell,
and while a chain drops packets."""

QUIET_FIREWALL_CHECK = 600.0
"""The same elsewhere, if neither a rule of nftables nor a network of the host was changed meanwhile."""

PATIENCE = 200.0
"""Between two of the same looks lies so many times the CPU time that one takes: a device with a thousand peers is read
less often than one with ten."""

EAGERNESS = 10.0
"""The same where other nodes wait for it."""

MOST_SECONDS = 60.0
"""Seconds between two such looks at most."""

TRAFFIC_TRIALS = 5
"""Trials to be told what is sent to whom, before all peers count as used."""

IDLE_STATE_INTERVAL = STATE_LIFETIME / 2
"""Seconds between two state files at most, and while no path is in use; a change of a path is written at once."""

RETRY_INTERVAL = 1.0
"""Seconds after which a step that failed is tried again."""

RESTART_INTERVAL = 1.0
"""Seconds between two starts of a wireguard-go that ends at once."""

APPLY_INTERVAL = 0.02
"""Seconds between two changes of AllowedIPs that messages cause: many changes of the paths become one. It is short,
because packets are lost while one end of a pair has changed and the other has not."""

APPLY_PATIENCE = 3.0
"""Between two of them lies at least so many times the CPU time that the last took: a relay to which a thousand nodes
come at once changes less often."""

MESSAGES_IN_A_READ = 256
"""Messages that are read before the agent looks at its other work."""

FLOOD_PAUSE = 0.005
"""Seconds without reading after messages that were ignored."""

PATH_LINES = 6
"""Lines about the path to one node in a minute."""

LINK_CHECK = 10.0
"""Seconds between two looks at the interface, its routes and sysctls. The kernel reports a change of the interface or
its routes, and the next round looks."""

NETWORKS_CHECK = 60.0
"""Seconds between two looks at the networks of the host's other interfaces, if the kernel has reported no change. After
a report the next look comes at once, but LINK_CHECK after the last."""

FIREWALL_DELAY = 2.0
"""Seconds after a change of nftables' rules until the firewall is looked at: more changes may follow."""

_SIGNAL, _PROBE, _FORMER_PROBE, _DEVICE, _LINK = "signal", "probe", "former probe", "device", "link"
_TRAFFIC = "traffic"
"""What the selector reports."""

_LONGEST_KIND = 200
"""Characters of an error that tell it from others."""

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
        self._link_events = LinkEvents(self._selector, _LINK)
        self._probes = ProbeSocket(self._selector, _PROBE)
        self._former_probes = ProbeSocket(self._selector, _FORMER_PROBE, former_probe_address)
        # Only a node that a former version has set up has this address, and keeps it until all nodes have this version.
        self._keeps_former = has_address(self._config.interface, former_probe_address(self._config.address))
        self._traffic = TrafficWatch(self._selector, _TRAFFIC)
        self._traffic_failures = 0
        self._rules = overlay_rules_of(self._config, self._routes)
        self._firewall = FirewallWatch()
        self._logged_blocked: tuple[object, ...] = ()
        self._names = NameLookups()
        self._names.watch(_endpoints(self._config))
        self._limit = MessageLimit()
        self._applied_revision = -1
        self._earliest_apply = 0.0
        self._next_apply = math.inf
        self._logged_paths: dict[str, str | None] = {}
        self._logged_default: str | None = None
        self._next_files_check = 0.0
        self._next_rules_check = 0.0
        self._generation = RulesetGeneration()
        self._rules_seen: int | None = None
        self._next_firewall_look = 0.0
        self._firewall_looked_at = -math.inf
        self._is_firewall_changed = True
        self._next_traffic_check = 0.0
        self._next_device_check = 0.0
        self._device_checked_at = -math.inf
        self._earliest_device_check = 0.0
        self._is_resumed = False
        self._next_link_check = 0.0
        self._next_conflict_check = 0.0
        self._networks_looked_at = -math.inf
        self._next_rekey_look = math.inf
        self._next_state = 0.0
        self._device_created_at = -math.inf
        self._faults: dict[str, str] = {}
        """What the agent cannot do at present, by the step that failed. It stays until the step succeeds."""
        self._published_fault: str | None = None
        self._is_stopping = False
        self._warnings = LogLimit()
        self._path_lines = LogLimit(PATH_LINES)

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
            next_event = min(next_tick, self._next_apply, self._next_rekey_look)
            for key, _mask in self._selector.select(max(0.0, next_event - time.monotonic())):
                if key.data == _PROBE:
                    self._receive(self._probes)
                    # The messages may have put a session in a hurry.
                    next_tick = min(next_tick, time.monotonic() + self._paths.interval)
                elif key.data == _FORMER_PROBE:
                    self._receive(self._former_probes)
                elif key.data == _TRAFFIC:
                    self._step("traffic", self._note_traffic)
                elif key.data == _DEVICE:
                    _log.warning("%s of %s ended: creating the interface again", USERSPACE, self._config.interface)
                    self._device.release()
                    # A wireguard-go that ends right after each start is not started in a busy loop.
                    next_tick = self._device_created_at + RESTART_INTERVAL
                elif key.data == _LINK:
                    next_tick = min(next_tick, self._note_changes())
                else:
                    wakeup.recv(64)
                    next_tick = 0.0
            now = time.monotonic()
            if self._device.is_watched:
                # A message or a packet may have ended the rest of the paths.
                next_tick = min(next_tick, now + self._paths.interval)
            if now >= next_tick:
                self._round()
                next_tick = time.monotonic() + self._paths.interval
            elif now >= self._next_rekey_look:
                self._step("device", lambda: self._look_for_handshake(now))  # noqa: B023
            elif now >= self._next_apply:
                self._step("peers", lambda: self._apply(now))  # noqa: B023

    def _handle_signals(self, wakeup: socket.socket) -> None:
        """Let each signal end the wait of the loop by a byte into this socket."""
        signal.set_wakeup_fd(wakeup.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, lambda *_: None)

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def _note_changes(self) -> float:
        """Read what the kernel reports of interfaces, addresses and routes; return when the next round is needed."""
        changes, now = self._link_events.read(self._config.interface), time.monotonic()
        if changes.of_networks:
            self._next_conflict_check = min(self._next_conflict_check, self._networks_looked_at + LINK_CHECK)
            # A rule of the firewall may name an interface, or the default route another uplink.
            self._look_at_firewall_soon(now)
        if changes.of_interface:
            self._next_device_check = self._next_link_check = 0.0
            return now + TICK
        return math.inf

    def _round(self) -> None:
        """Check files, device, interface and peers in turn. A step that fails is tried again in a later round."""
        now = time.monotonic()
        if now >= self._next_files_check and not self._step("files", self._reload):
            self._next_files_check = now + RETRY_INTERVAL
        if now >= self._next_rules_check:
            self._step("rules", lambda: self._check_rules(now))
        is_device_due = not self._device.is_watched or self._device.is_outdated or now >= self._next_device_check
        if is_device_due and not self._step("device", lambda: self._check_device(now)):
            self._next_device_check = now + RETRY_INTERVAL
        if self._device.is_watched:
            if now >= self._next_link_check and not self._step("interface", lambda: self._check_link(now)):
                self._next_link_check = now + RETRY_INTERVAL
            if now >= self._next_conflict_check:
                self._networks_looked_at, self._next_conflict_check = now, now + LINK_CHECK
                self._step("networks", lambda: self._check_networks(time.monotonic()))
            if now >= self._next_firewall_look:
                self._look_at_firewall(now)
            if now >= self._next_traffic_check:
                self._step("traffic", lambda: self._check_traffic(now))
            self._step("names", lambda: self._check_names(now))
            self._step("peers", lambda: self._tick(now))
        self._log_blocked()
        self._publish(now)

    def _step(self, name: str, work: Callable[[], None]) -> bool:
        """Do one step of a round; return whether it succeeded. Its failure is this node's fault until it succeeds."""
        try:
            work()
        except EvioError as error:
            self._faults[name] = str(error)
        except Exception as error:
            # Nothing that one step meets may end the agent, and with it all paths.
            self._faults[name] = f"{name}: {type(error).__name__}: {error}"
            self._warn((name, type(error)), "%s", traceback.format_exc())
        else:
            if self._faults.pop(name, None) is not None:
                _log.info("%s: in order again", name)
            return True
        self._warn((name, self._faults[name][:_LONGEST_KIND]), "%s", self._faults[name])
        return False

    def _reload(self) -> None:
        if self._program != fingerprint(sys.argv[0]):
            _log.info("the program was replaced: stopping, so that the service starts the new one")
            self._is_stopping = True
        files_now = self._files.fingerprint()
        if files_now == self._files_read:
            return
        before = self._config
        self._config, self._routes = self._files.load()
        self._files_read = files_now
        self._paths.configure(self._config, self._routes, time.monotonic())
        self._rules = overlay_rules_of(self._config, self._routes)
        self._rules_seen = None
        self._is_firewall_changed = True
        self._next_firewall_look = 0.0
        self._names.watch(_endpoints(self._config))
        self._limit.forget_all()
        self._next_rules_check = self._next_device_check = self._next_link_check = self._next_traffic_check = 0.0
        self._next_state = 0.0
        _log.info("read %s again: %d peers", self._files.config, len(self._config.peers))
        if before.interface != self._config.interface:
            self._device.release()
            self._device = ManagedDevice(self._config.interface, self._selector, _DEVICE)
            remove_link(before.interface)

    def _check_rules(self, now: float) -> None:
        """Keep our nftables rules. Without them the overlay works, but pods reach more of it than they should."""
        generation = self._generation.read()
        if generation is not None and generation == self._rules_seen:
            return
        # What the check itself installs is looked at once more.
        self._rules_seen = generation
        self._next_traffic_check = min(self._next_traffic_check, now)
        self._look_at_firewall_soon(now)
        try:
            if self._rules.ensure():
                _log.info("installed the nftables rules of %s", self._config.interface)
        except EvioError as error:
            self._rules_seen = None
            self._next_rules_check = now + LINK_CHECK
            self._warn(
                "rules",
                "%s",
                f"pods are not kept from the probe addresses, nor other nodes from this node's LAN: {error}",
            )

    def _look_at_firewall_soon(self, now: float) -> None:
        """Let the firewall be looked at; where something changes all the time, as often as the interface."""
        self._is_firewall_changed = True
        due = max(now + FIREWALL_DELAY, self._firewall_looked_at + LINK_CHECK)
        self._next_firewall_look = min(self._next_firewall_look, due)

    def _look_at_firewall(self, now: float) -> None:
        """Let the firewall accept the overlay's packets, if it may have changed since the last look."""
        self._next_firewall_look = now + FIREWALL_CHECK
        is_due = now - self._firewall_looked_at >= QUIET_FIREWALL_CHECK
        if self._is_firewall_changed or self._firewall.blocked or is_due or iptables_legacy.has_tables():
            self._is_firewall_changed, self._firewall_looked_at = False, now
            self._firewall.look(self._config, self._routes)

    def _check_traffic(self, now: float) -> None:
        """Be told to which nodes packets are sent. Where that cannot be, direct paths are kept with all nodes."""
        try:
            if self._traffic.ensure(self._config, self._routes):
                _log.info("installed the nftables rules that tell the agent to whom packets are sent")
        except EvioError as error:
            self._traffic_failures += 1
            self._next_traffic_check = now + RETRY_INTERVAL
            if self._traffic_failures >= TRAFFIC_TRIALS:
                self._next_traffic_check = now + LINK_CHECK
                self._warn("traffic", "direct paths are kept with all nodes, used or not: %s", error)
                self._paths.assume_all_used(True, now)
            return
        self._next_traffic_check = now + FIREWALL_CHECK
        if self._traffic_failures:
            self._traffic_failures = 0
            self._paths.assume_all_used(False, now)

    def _note_traffic(self) -> None:
        now = time.monotonic()
        destinations = self._traffic.destinations()
        if destinations:
            self._act(self._paths.used(destinations, now))
            self._apply_soon()

    def _check_device(self, now: float) -> None:
        """Take over the device that exists, or create it; then tell path selection where the device sees the peers."""
        began = _cpu_seconds()
        is_found = self._device.find(self._config.public_key)
        if not is_found:
            self._device_created_at = now
            self._device.create(self._config, self._files.key)
            self._paths.restarted(now)
            self._keeps_former = False
            self._next_link_check = 0.0
            self._device.read()
        elif not self._is_resumed:
            self._paths.resume(self._device.allowed_ips_in_session(), now)
        self._is_resumed = True
        self._applied_revision = -1
        self._paths.note_handshakes(self._device.handshakes)
        self._paths.observe(self._device.endpoints)
        self._ensure_key_and_port(now)
        took = _cpu_seconds() - began
        is_new = now - self._device_created_at < DEVICE_CHECK
        is_eager = is_new or (self._config.is_relay and self._paths.has_wanted)
        self._device_checked_at = now
        self._earliest_device_check = now + EAGERNESS * took
        if is_eager:
            interval = max(RELAY_DEVICE_CHECK, EAGERNESS * took)
        elif self._paths.awaits_keys:
            interval = max(REKEY_DEVICE_CHECK, EAGERNESS * took)
        else:
            interval = max(IDLE_CHECK if self._paths.is_idle else DEVICE_CHECK, PATIENCE * took)
        self._next_device_check = now + min(interval, MOST_SECONDS)

    def _look_for_handshake(self, now: float) -> None:
        """Give a peer's next key its AllowedIPs once WireGuard has had a handshake with it."""
        self._next_rekey_look = math.inf
        began = _cpu_seconds()
        self._paths.note_handshakes(self._device.look_for_handshakes())
        self._apply(now)
        if self._paths.expects_handshake(now):
            took = _cpu_seconds() - began
            self._next_rekey_look = time.monotonic() + max(REKEY_LOOK, REKEY_EAGERNESS * took)

    def _ensure_key_and_port(self, now: float) -> None:
        """Give the device its key and port. The peers are told of another key in the moment of the change."""
        had = self._device.public_key
        is_rekeyed = had is not None and had != self._config.public_key
        if is_rekeyed:
            self._act(self._paths.announce_key())
        if self._device.ensure_key_and_port(self._config, self._files.key):
            self._next_link_check = 0.0
        if is_rekeyed:
            self._act(self._paths.begin_sessions(now))
            self._next_state = 0.0

    def _check_link(self, now: float) -> None:
        began = _cpu_seconds()
        self._keeps_former = self._keeps_former and self._paths.has_former_peers
        if not self._keeps_former:
            self._former_probes.close()
        for difference in ensure_link(self._config, self._routes, self._keeps_former):
            _log.info(
                "%s: %s: %s, was %s", self._config.interface, difference.name, difference.wanted, difference.found
            )
            if difference.name == "up":
                # wireguard-go opens its socket now, and fails if the port is used.
                self._next_device_check = now
        self._paths.announce_lan(lan_endpoints(self._config, self._paths.relay_endpoints()))
        self._probes.ensure_open(self._config)
        if self._keeps_former:
            self._former_probes.ensure_open(self._config)
        self._paths.use_former_probe_addresses(self._keeps_former)
        # The former addresses go soon after the last node of a former version.
        least = IDLE_CHECK if self._paths.is_idle and not self._keeps_former else LINK_CHECK
        self._next_link_check = now + min(max(least, PATIENCE * (_cpu_seconds() - began)), MOST_SECONDS)

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

    def _check_networks(self, now: float) -> None:
        """Raise OverlayError if another interface of the host has a network inside the overlay's."""
        conflict = find_conflict(
            networks_in_use(),
            overlay_networks(self._config.host_cidr, self._routes.pod_cidrs),
            (self._config.interface, BRIDGE),
            self._routes.subnets.get(self._config.node, ()),
        )
        # A fault is looked at as often as reports are, and a host with very many routes less often.
        least = NETWORKS_CHECK if conflict is None else LINK_CHECK
        self._next_conflict_check = now + max(least, 50 * (time.monotonic() - now))
        if conflict is not None:
            raise OverlayError(conflict)

    def _check_names(self, now: float) -> None:
        """Take the addresses of relays' names over, as far as they were looked up meanwhile."""
        for endpoint, found in self._names.poll(now, self._paths.unreached_endpoints()).items():
            if found:
                self._paths.set_addresses(endpoint, found, now)
                self._next_link_check = min(self._next_link_check, now + TICK)
            else:
                # The addresses that were found before stay in use.
                self._warn((endpoint, "name"), "%s has no address: does the DNS of this node know it?", endpoint)

    def _tick(self, now: float) -> None:
        self._act(self._paths.tick(now))
        self._apply(now)
        if self._config.is_relay and self._paths.has_wanted:
            due = max(self._earliest_device_check, self._device_checked_at + RELAY_DEVICE_CHECK)
            self._next_device_check = min(self._next_device_check, due)

    def _receive(self, probes: ProbeSocket) -> None:
        """Process the messages that are there. The sender is checked and counted before its message is parsed.

        What follows from them is done at once: where many pairs begin together, WireGuard is changed once for many.
        """
        is_flood = is_rekeyed = False
        attempts: dict[str, Attempt] = {}
        outgoing: list[Outgoing] = []
        for source, port, datagram in probes.receive(MESSAGES_IN_A_READ):
            now = time.monotonic()
            peer = self._paths.sender(source)
            if peer is None or port != PROBE_PORT:
                is_flood = True
                self._warn("stranger", "message from %s, port %d, which is no peer's agent: ignored", source, port)
                continue
            calls = len(self._config.peers) / 2 if peer.is_relay else 0.0
            if not self._limit.admits(peer.address, now, calls):
                is_flood = True
                self._warn((peer.name, "flood"), "%s sends more messages than its paths need: ignored", peer.name)
                continue
            try:
                message = decode(datagram)
                is_rekeyed = is_rekeyed or isinstance(message, Rekey)
                if isinstance(message, Call) and self._config.is_relay:
                    self._look_for_caller(now)
                actions = self._paths.receive(source, message, now)
                attempts.update((attempt.key, attempt) for attempt in actions.attempts)
                outgoing += actions.outgoing
            except EvioError as error:
                self._warn((peer.name, type(error)), "from %s: %s", peer.name, error)
            except Exception:
                # Nothing that one message does may end the agent, and with it all paths.
                self._warn((peer.name, "error"), "from %s: %s", peer.name, traceback.format_exc())
        if attempts or outgoing:
            self._step("messages", lambda: self._act(Actions(tuple(attempts.values()), tuple(outgoing))))
        self._apply_soon()
        if is_rekeyed and self._paths.expects_handshake(time.monotonic()):
            self._next_rekey_look = 0.0
        if is_flood:
            # The kernel keeps what comes meanwhile: one waking for many messages, not one for each.
            time.sleep(FLOOD_PAUSE)

    def _look_for_caller(self, now: float) -> None:
        """Learn where the device sees caller and called now: a relay passes it on with the call."""
        is_stale = now - self._device_checked_at >= RELAY_DEVICE_CHECK
        if is_stale and now >= self._earliest_device_check:
            self._step("device", lambda: self._check_device(now))

    def _act(self, actions: Actions) -> None:
        if actions.attempts:
            failed = self._device.try_endpoints(actions.attempts, self._paths.allowed_ips())
            self._warn_of_peers(failed)
        for outgoing in actions.outgoing:
            size = self._config.mtu - UDP_HEADERS if outgoing.padded else 0
            datagram = encode(outgoing.message, size)
            self._probes.send(outgoing.peer.address, datagram)
            if self._paths.is_former(outgoing.peer):
                self._former_probes.send(outgoing.peer.address, datagram)

    def _apply_soon(self) -> None:
        """Change AllowedIPs as soon as the last change is long enough ago, if the paths may have changed."""
        if self._paths.revision != self._applied_revision:
            self._next_apply = min(self._next_apply, self._earliest_apply)

    def _apply(self, now: float) -> None:
        """Give WireGuard the AllowedIPs of the paths now, if the paths or what WireGuard has may have changed."""
        self._next_apply = math.inf
        if self._paths.revision == self._applied_revision:
            return
        if self._config.is_relay and self._applied_revision >= 0:
            # A peer came up, and other nodes wait for the endpoint at which the device sees it.
            self._next_device_check = min(self._next_device_check, self._earliest_device_check)
        self._applied_revision = self._paths.revision
        began = _cpu_seconds()
        failed = self._device.set_allowed_ips(self._paths.allowed_ips(), self._paths.former_keys())
        self._earliest_apply = now + max(APPLY_INTERVAL, APPLY_PATIENCE * (_cpu_seconds() - began))
        if failed:
            self._applied_revision = -1
        self._warn_of_peers(failed)
        self._log_paths(now)

    def _warn_of_peers(self, failed: Mapping[str, str]) -> None:
        """Log the peers that WireGuard did not change. The next round tries again."""
        names = {key: peer.name for peer in self._config.peers for key in peer.public_keys}
        for key, error in failed.items():
            name = names.get(key, key)
            self._warn((name, "wg"), "%s: %s", name, error)

    def _log_paths(self, now: float) -> None:
        """Log each node whose path changed, and let the state file be written at once.

        Nodes with which nobody talks are not logged one by one when the relay changes that reaches them all.
        """
        default = self._paths.default_path()
        states = {state.peer.name: state for state in self._paths.kept_states(now)}
        for name, state in states.items():
            if self._logged_paths.get(name, default) != state.path:
                words = {None: "not reachable", DIRECT: "direct"}.get(state.path, f"through relay {state.path}")
                suppressed = self._path_lines.suppressed_before(name, now)
                if suppressed is not None:
                    _log.info("%s: %s%s%s", name, words, "" if state.is_wanted else ", idle", _not_logged(suppressed))
        if default != self._logged_default:
            way = f"through relay {default}" if default else "not reachable, no relay is up"
            _log.info("nodes without a path of their own: %s", way)
        paths = {name: state.path for name, state in states.items()}
        if (paths, default) != (self._logged_paths, self._logged_default):
            self._next_state = 0.0
        self._logged_paths, self._logged_default = paths, default

    def _publish(self, now: float) -> None:
        """Write the state file if it is due or the fault is another, and tell systemd the status and that we live."""
        fault = "; ".join(self._faults.values()) or None
        if now < self._next_state and fault == self._published_fault:
            return
        self._published_fault = fault
        began = _cpu_seconds()
        peers = tuple(
            PeerPath(
                state.peer.name,
                state.peer.address,
                state.path,
                state.rtt_ms,
                self._device.endpoints.get(state.key),
                state.is_wanted,
            )
            for state in self._paths.states(now)
        )
        reached = sum(peer.path is not None for peer in peers)
        notify("WATCHDOG=1", f"STATUS={fault or f'reaches {reached} of {len(peers)} nodes'}")
        blocked = [str(chain) for chain in self._firewall.blocked if chain.reach == CLUSTER]
        state = OverlayState(
            self._config.node,
            self._config.interface,
            self._device.kind,
            time.time(),
            peers,
            fault,
            blocked,
            keys=self._keys_in_use(),
        )
        try:
            write_atomic(self._files.state, render_state(state), mode=0o644)
        except OSError as error:
            self._warn("state file", "cannot write %s: %s", self._files.state, error.strerror)
        least = IDLE_STATE_INTERVAL if self._paths.is_idle else STATE_INTERVAL
        interval = max(least, PATIENCE * (_cpu_seconds() - began))
        self._next_state = now + min(interval, IDLE_STATE_INTERVAL)

    def _keys_in_use(self) -> str:
        """Return the hash of the keys that the device has; empty while it has not all keys of the configuration yet."""
        is_applied = self._applied_revision == self._paths.revision
        has_key = self._device.public_key == self._config.public_key
        return digest_of_keys(self._config) if is_applied and has_key and not self._faults else ""

    def _warn(self, kind: Hashable, text: str, *values: object) -> None:
        """Log a warning, at most one of its kind in a minute."""
        suppressed = self._warnings.suppressed_before(kind, time.monotonic())
        if suppressed is not None:
            _log.warning(text + "%s", *values, _not_logged(suppressed))


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of the programs that it has run: unlike a clock, it knows no load."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _endpoints(config: OverlayConfig) -> list[str]:
    return [peer.endpoint for peer in config.peers if peer.endpoint is not None]


def _not_logged(count: int) -> str:
    return f" ({count} more like this were not logged)" if count else ""
