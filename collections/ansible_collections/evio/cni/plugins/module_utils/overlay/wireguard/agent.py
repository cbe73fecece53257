# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""``evio overlay``: the loop on each node that keeps the WireGuard overlay as its two files say, and a look at it.

It only carries out: what to do about a peer is overlay_paths' decision, how it is done wireguard's and overlay_links'.
The data plane outlives the agent: stopped or killed, it leaves the interface as it is, and the next one takes it over.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import selectors
import signal
import site
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ... import paths
from ...errors import EvioError
from ...firewall.forwarding import accept_forwarding
from ..endpoint import OverlayError, endpoint_host, join_endpoint
from .config import PROBE_PORT, OverlayConfig, PodRoutes, parse_overlay, parse_pod_routes, probe_address
from .device import (
    KERNEL,
    USERSPACE,
    DeviceState,
    PeerChange,
    change_peers,
    create_device,
    end_replaced_userspace,
    read_device,
    read_public_key,
    set_device,
    userspace_is_slow,
    userspace_pid,
)
from .interface import ensure_link, link_exists, remove_link
from .messages import MessageError, decode, encode
from .path_selection import Actions, OverlayPaths
from .state import OverlayState, PeerPath, read_state, write_state

TICK = 0.5
"""Seconds between two looks at the files and the clock."""
DEVICE_CHECK = 5.0
RELAY_DEVICE_CHECK = 1.0
"""Seconds between two looks at the device; a relay's tells where the peers are now."""
LINK_CHECK = 10.0
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_DO = 2
"""include/uapi/linux/in.h: set Don't Fragment."""
_IP_AND_UDP_HEADERS = 28
_log = logging.getLogger("evio-overlay")


@dataclass(frozen=True)
class AgentFiles:
    """Where the agent reads and writes."""

    config: str = paths.OVERLAY_CONFIG
    pod_routes: str = paths.POD_ROUTES_CONFIG
    key: str = paths.WIREGUARD_KEY
    state: str = paths.OVERLAY_STATE


def main(argv: list[str]) -> int:
    """The command line below ``evio overlay``; the exit status."""
    arguments = _parser().parse_args(argv)
    files = AgentFiles(arguments.config, arguments.pod_routes, arguments.key, arguments.state)
    if sys.flags.no_site:
        # The launcher leaves the distribution's packages out, for the plugin's speed; pyroute2 is one of them.
        site.main()
    try:
        status: int = arguments.command(files, arguments)
        return status
    except EvioError as error:
        sys.stderr.write(f"evio overlay: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evio overlay", description="This node's overlay: the WireGuard backend.")
    parser.add_argument("--config", default=paths.OVERLAY_CONFIG, help="default: %(default)s")
    parser.add_argument("--pod-routes", default=paths.POD_ROUTES_CONFIG, help="default: %(default)s")
    parser.add_argument("--key", default=paths.WIREGUARD_KEY, help="default: %(default)s")
    parser.add_argument("--state", default=paths.OVERLAY_STATE, help="default: %(default)s")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="keep the overlay up (what evio-overlay.service does)")
    run.set_defaults(command=_run)
    status = commands.add_parser("status", help="say which way leads to each node")
    status.add_argument("--json", action="store_true", help="for machines")
    status.set_defaults(command=_status)
    down = commands.add_parser("down", help="remove the overlay's interface (stop the service first)")
    down.set_defaults(command=_down)
    return parser


def _run(files: AgentFiles, _arguments: argparse.Namespace) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    OverlayAgent(files).run()
    return 0


def _status(files: AgentFiles, arguments: argparse.Namespace) -> int:
    """0: every node can be reached; 1: some cannot, or nobody knows."""
    state = read_state(files.state)
    if state is None or not state.is_fresh():
        raise OverlayError(f"no agent stands behind {files.state}; look at: systemctl status evio-overlay")
    if state.fault:
        sys.stderr.write(f"evio overlay: {state.fault}\n")
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(state), indent=2) + "\n")
    else:
        rows = [("NODE", "ADDRESS", "PATH", "RTT ms", "ENDPOINT")]
        for peer in state.peers:
            path = peer.path if peer.path in ("direct", None) else f"relay {peer.path}"
            rtt = f"{peer.rtt_ms:.0f}" if peer.rtt_ms is not None else "-"
            rows.append((peer.name, peer.address, path or "none", rtt, peer.endpoint or "-"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            sys.stdout.write(
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
            )
    return 0 if not state.fault and all(peer.path for peer in state.peers) else 1


def _down(files: AgentFiles, _arguments: argparse.Namespace) -> int:
    config = parse_overlay(_read(files.config), files.config)
    remove_link(config.interface)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(files.state)
    return 0


class OverlayAgent:
    """One node's overlay, kept up until a signal ends it. Times are of the monotonic clock, in seconds."""

    def __init__(self, files: AgentFiles) -> None:
        self._files = files
        self._config, self._routes = self._load()
        self._signature = self._files_signature()
        self._program = _signature(sys.argv[0])
        self._paths = OverlayPaths(self._config, self._routes, time.monotonic())
        self._device_kind = ""
        self._applied: dict[str, frozenset[str]] = {}
        self._applied_revision = -1
        self._endpoints: dict[str, str | None] = {}
        self._known_ways: dict[str, str | None] = {}
        self._selector = selectors.DefaultSelector()
        self._socket: socket.socket | None = None
        self._socket_key: tuple[tuple[str, int], int] | None = None
        self._pidfd: int | None = None
        self._next_device_check = 0.0
        self._next_link_check = 0.0
        self._next_state = 0.0
        self._published_fault: str | None = None
        self._is_stopping = False
        self._warned: set[str] = set()

    def run(self) -> None:
        """Until SIGTERM or SIGINT. SIGHUP looks at the files at once."""
        wakeup_read, wakeup_write = socket.socketpair()
        for end in (wakeup_read, wakeup_write):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup_write.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, lambda *_: None)
        self._selector.register(wakeup_read, selectors.EVENT_READ, "signal")
        self._step()
        _tell_systemd("READY=1")
        next_tick = time.monotonic() + TICK
        while not self._is_stopping:
            events = self._selector.select(max(0.0, next_tick - time.monotonic()))
            for key, _mask in events:
                if key.data == "probe":
                    self._receive()
                elif key.data == "device":
                    _log.warning("%s of %s ended: making the interface anew", USERSPACE, self._config.interface)
                    self._unwatch_device()
                    next_tick = 0.0
                else:
                    wakeup_read.recv(64)
                    next_tick = 0.0
            if time.monotonic() >= next_tick:
                self._step()
                next_tick = time.monotonic() + TICK

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def _step(self) -> None:
        """One round: the files, the device, the link, the peers. What fails is said and tried again in the next."""
        try:
            self._reload()
            now = time.monotonic()
            self._check_device(now)
            self._check_link(now)
            self._act(self._paths.tick(now), now)
            self._apply(now, always=True)
            self._publish(now)
            self._warned.clear()
        except EvioError as error:
            self._warn(str(error))
            self._publish(time.monotonic(), str(error))
        _tell_systemd("WATCHDOG=1")

    # The files

    def _load(self) -> tuple[OverlayConfig, PodRoutes]:
        config = parse_overlay(_read(self._files.config), self._files.config)
        key = read_public_key(self._files.key)
        if key != config.public_key:
            raise OverlayError(
                f"{self._files.key} is the key of {key}, but {self._files.config} has {config.public_key}, which the "
                "other nodes know: run the playbook again"
            )
        if not Path(self._files.pod_routes).exists():
            return config, PodRoutes()
        return config, parse_pod_routes(_read(self._files.pod_routes), self._files.pod_routes)

    def _reload(self) -> None:
        signature = self._files_signature()
        if self._program != _signature(sys.argv[0]):
            _log.info("the program was replaced: making way for the new one")
            self._is_stopping = True
        if signature == self._signature:
            return
        self._signature = signature
        before = self._config
        self._config, self._routes = self._load()
        if before.interface != self._config.interface:
            self._unwatch_device()
            remove_link(before.interface)
        self._paths.configure(self._config, self._routes)
        self._next_device_check = self._next_link_check = 0.0
        self._device_kind = ""
        _log.info("read %s again: %d peers", self._files.config, len(self._config.peers))

    def _files_signature(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_signature(path) for path in (self._files.config, self._files.pod_routes, self._files.key))

    # The device

    def _check_device(self, now: float) -> None:
        """Take over the device that is there, or make it; afterwards its peers are known."""
        is_watched = self._device_kind == KERNEL or self._pidfd is not None
        if is_watched and now < self._next_device_check:
            return
        if self._pidfd is not None and end_replaced_userspace(self._config.interface):
            _log.info("%s was replaced: making way for the new one", USERSPACE)
        device = read_device(self._config.interface)
        if device is None:
            device = self._make_device(now)
        elif not self._device_kind:
            self._take_device(device)
        self._next_device_check = now + (RELAY_DEVICE_CHECK if self._config.is_relay else DEVICE_CHECK)
        self._applied = {key: peer.allowed_ips for key, peer in device.peers.items()}
        self._endpoints = {key: peer.endpoint for key, peer in device.peers.items()}
        self._paths.observe(self._endpoints)

    def _make_device(self, now: float) -> DeviceState:
        interface = self._config.interface
        self._unwatch_device()
        if link_exists(interface):
            # Nobody answers for it: a wireguard-go without its control socket, or another daemon's leftover.
            remove_link(interface)
        self._device_kind = create_device(interface)
        if self._device_kind == USERSPACE and (slow := userspace_is_slow()):
            _log.warning("%s is 5 times slower than v0.0.20230223 and newer: see evio_wireguard_go_package", slow)
        set_device(interface, self._files.key, self._config.listen_port)
        self._paths.restarted(now)
        self._next_link_check = 0.0
        self._watch_device()
        _log.info("made %s by %s", interface, self._device_kind)
        return self._device()

    def _take_device(self, device: DeviceState) -> None:
        if (device.public_key, device.listen_port) != (self._config.public_key, self._config.listen_port):
            set_device(self._config.interface, self._files.key, self._config.listen_port)
        self._watch_device()
        self._device_kind = USERSPACE if self._pidfd is not None else KERNEL

    def _device(self) -> DeviceState:
        device = read_device(self._config.interface)
        if device is None:
            raise OverlayError(f"{self._config.interface} is gone again")
        return device

    def _watch_device(self) -> None:
        pid = userspace_pid(self._config.interface)
        if pid is None or self._pidfd is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)
            self._selector.register(self._pidfd, selectors.EVENT_READ, "device")

    def _unwatch_device(self) -> None:
        self._device_kind = ""
        if self._pidfd is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            self._selector.unregister(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    # The link

    def _check_link(self, now: float) -> None:
        if now < self._next_link_check:
            return
        self._next_link_check = now + LINK_CHECK
        for difference in ensure_link(self._config, self._routes):
            _log.info(
                "%s: %s: %s, was %s", self._config.interface, difference.name, difference.wanted, difference.found
            )
        for chain in accept_forwarding(self._config.interface):
            self._warn(f"{chain} drops forwarded packets: pods and relayed nodes will not reach each other")
        self._paths.announce_lan(_lan_endpoints(self._config))
        self._open_socket()

    def _open_socket(self) -> None:
        """On the interface and its probe address only; anew when the interface is."""
        address = (probe_address(self._config.address), PROBE_PORT)
        index = socket.if_nametoindex(self._config.interface)
        if self._socket is not None:
            if self._socket_key == (address, index):
                return
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
        probes = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            probes.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._config.interface.encode())
            probes.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
            probes.bind(address)
        except OSError as error:
            probes.close()
            raise OverlayError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from error
        self._socket, self._socket_key = probes, (address, index)
        self._selector.register(probes, selectors.EVENT_READ, "probe")

    # The peers

    def _receive(self) -> None:
        while self._socket is not None:
            try:
                datagram, (source, _port) = self._socket.recvfrom(65535)
            except OSError:
                return
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
            allowed = self._paths.allowed_ips(now)
            changes = []
            for attempt in actions.attempts:
                key = attempt.peer.public_key
                changes.append(PeerChange(key, is_removed=True))
                changes.append(PeerChange(key, allowed[key], attempt.endpoint))
                self._applied[key] = frozenset(allowed[key])
                self._endpoints[key] = attempt.endpoint
            change_peers(self._config.interface, changes)
        for outgoing in actions.outgoing:
            size = self._config.mtu - _IP_AND_UDP_HEADERS if outgoing.padded else 0
            if self._socket is not None:
                # A peer without an endpoint, a full queue: the next probe comes in a second.
                with contextlib.suppress(OSError):
                    target = (probe_address(outgoing.peer.address), PROBE_PORT)
                    self._socket.sendto(encode(outgoing.message, size), target)

    def _apply(self, now: float, always: bool = False) -> None:
        """Give WireGuard the AllowedIPs that differ from what it has."""
        if not always and self._paths.revision == self._applied_revision:
            return
        if self._config.is_relay and self._paths.revision != self._applied_revision:
            # A peer is up: the others wait for the address at which the device sees it.
            self._next_device_check = 0.0
        self._applied_revision = self._paths.revision
        wanted = {key: frozenset(prefixes) for key, prefixes in self._paths.allowed_ips(now).items()}
        changes = list(_changes(wanted, self._applied))
        if changes:
            change_peers(self._config.interface, changes)
            self._applied = wanted
        self._log_ways(now)

    def _log_ways(self, now: float) -> None:
        ways = {state.peer.name: state.path for state in self._paths.states(now)}
        for name, way in ways.items():
            if name not in self._known_ways or self._known_ways[name] != way:
                words = {None: "no way", "direct": "direct"}.get(way, f"by relay {way}")
                _log.info("%s: %s", name, words)
                self._next_state = 0.0
        self._known_ways = ways

    def _publish(self, now: float, fault: str | None = None) -> None:
        if now < self._next_state and fault == self._published_fault:
            return
        self._published_fault = fault
        self._next_state = now + DEVICE_CHECK
        peers = tuple(
            PeerPath(
                state.peer.name,
                state.peer.address,
                state.path,
                state.rtt_ms,
                self._endpoints.get(state.peer.public_key),
            )
            for state in self._paths.states(now)
        )
        reached = sum(peer.path is not None for peer in peers)
        _tell_systemd(f"STATUS={fault or f'reaches {reached} of {len(peers)} nodes'}")
        state = OverlayState(self._config.node, self._config.interface, self._device_kind, time.time(), peers, fault)
        try:
            write_state(state, self._files.state)
        except OSError as error:
            self._warn(f"cannot write {self._files.state}: {error.strerror}")

    def _warn(self, words: str) -> None:
        """Once until all is well again: the loop meets the same fault twice a second."""
        if words not in self._warned:
            self._warned.add(words)
            _log.warning("%s", words)


def _changes(wanted: Mapping[str, frozenset[str]], found: Mapping[str, frozenset[str]]) -> Iterable[PeerChange]:
    """What turns found into wanted. A peer that only loses prefixes to others needs no change of its own."""
    for key in found.keys() - wanted.keys():
        yield PeerChange(key, is_removed=True)
    gained: set[str] = set()
    for key, prefixes in wanted.items():
        gained |= prefixes - found.get(key, frozenset())
    for key, prefixes in wanted.items():
        had = found.get(key)
        if had is None or prefixes - had or (had - prefixes) - gained:
            yield PeerChange(key, tuple(sorted(prefixes)))


def _lan_endpoints(config: OverlayConfig) -> list[str]:
    """Under which addresses the node's own network knows it: those from which it reaches the relays."""
    if config.is_relay:
        return []
    found = []
    for peer in config.peers:
        if peer.endpoint is None:
            continue
        host = endpoint_host(peer.endpoint)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.connect((host, config.listen_port))
            found.append(join_endpoint(probe.getsockname()[0], config.listen_port))
    return list(dict.fromkeys(found))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OverlayError(f"cannot read {path}: {error}") from error


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def _tell_systemd(words: str) -> None:
    """sd_notify(3), where systemd started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
            notify.connect(address.replace("@", "\0", 1))
            notify.send(words.encode())
