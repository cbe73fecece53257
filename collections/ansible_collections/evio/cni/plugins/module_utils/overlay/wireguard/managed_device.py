# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The WireGuard device that the overlay's agent keeps: created or taken over, watched, and given its peers.

How the device is asked and changed is device's subject; its addresses and routes are interface's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..endpoint import OverlayError
from .config import OverlayConfig
from .device import (
    KERNEL,
    SESSION_SECONDS,
    USERSPACE,
    DeviceState,
    PeerChange,
    WireGuardError,
    change_peers,
    create_device,
    end_userspace,
    index_with_key,
    port_holder_fault,
    read_device,
    read_handshakes,
    runs_replaced_file,
    set_device,
    slow_userspace_version,
    userspace_pid,
)
from .interface import is_link_up, link_exists, remove_link, restore_name, set_link_down
from .path_selection import Attempt

_log = logging.getLogger("evio-overlay")


class ManagedDevice:
    """One WireGuard device and what it is known to have."""

    def __init__(self, interface: str, selector: selectors.BaseSelector, data: object) -> None:
        """Touch nothing yet; ``data`` is what the selector reports when the device's wireguard-go ended."""
        self.interface = interface
        self.kind = ""
        """KERNEL or USERSPACE; empty until the device is found or created."""
        self.endpoints: dict[str, str | None] = {}
        """The ``address:port`` to which the device sends, by the peer's public key."""
        self.handshakes: dict[str, int] = {}
        """When the sessions began that the device had when it was read last, in seconds since 1970, by public key."""
        self._allowed_ips: dict[str, frozenset[str]] = {}
        self._key_and_port: tuple[str | None, int] = (None, 0)
        self._index = 0
        """The number of the interface, which it keeps under another name; 0 before it was seen."""
        self._selector = selector
        self._data = data
        self._pidfd: int | None = None
        self._pid = 0

    @property
    def is_watched(self) -> bool:
        """Whether the end of the device would be noticed: the kernel's has none, wireguard-go's is reported."""
        return self.kind == KERNEL or self._pidfd is not None

    @property
    def public_key(self) -> str | None:
        """The device's own public key; None before it was given one."""
        return self._key_and_port[0]

    @property
    def is_outdated(self) -> bool:
        """Whether the file of the wireguard-go that runs was replaced."""
        return self._pidfd is not None and runs_replaced_file(self._pid)

    def find(self, public_key: str) -> bool:
        """Return whether the device exists, and read what it has; ``public_key`` is the node's own.

        A wireguard-go that runs from a replaced file is ended, so that create() starts the new one. An interface that
        was renamed gets its name again. Raises OverlayError and WireGuardError.
        """
        if self._pidfd is not None and end_userspace(self.interface, only_replaced=True):
            _log.info("the program file of %s was replaced: ended the process that ran from it", USERSPACE)
        if not link_exists(self.interface):
            self._restore_name(public_key)
        device = read_device(self.interface)
        if device is None:
            return False
        if not link_exists(self.interface):
            # wireguard-go answers for the name that its interface had at first, and nothing tells which name it has.
            _log.warning("%s is not there, but its %s is: ending it", self.interface, USERSPACE)
            self.release()
            end_userspace(self.interface)
            return False
        if not self.kind:
            self._watch()
            self.kind = USERSPACE if self._pidfd is not None else KERNEL
        self._remember(device)
        return True

    def ensure_key_and_port(self, config: OverlayConfig, key_path: str) -> bool:
        """Give the device its key and UDP port if it has others; return whether its interface was set down for that.

        Raises WireGuardError if another program uses the port.
        """
        key, port = self._key_and_port
        is_closed = self.kind == USERSPACE and port in (0, config.listen_port) and is_link_up(self.interface)
        if port == config.listen_port:
            is_closed = is_closed and port_holder_fault(port) is None
            if key == config.public_key and not is_closed:
                return False
        elif fault := port_holder_fault(config.listen_port):
            raise WireGuardError(f"{self.interface} cannot listen: {fault}")
        found = (
            "a closed port" if is_closed else f"port {port}" if port != config.listen_port else "another private key"
        )
        _log.warning("%s has %s: giving it its key and port %d", self.interface, found, config.listen_port)
        if is_closed:
            # wireguard-go found the port in use when the interface was set up. It opens its socket at the next time.
            set_link_down(self.interface)
        set_device(self.interface, key_path, config.listen_port)
        self._key_and_port = (config.public_key, config.listen_port)
        return is_closed

    def create(self, config: OverlayConfig, key_path: str) -> None:
        """Create the device, with its key and port but without peers. Raises OverlayError and WireGuardError."""
        self.release()
        if link_exists(self.interface):
            # WireGuard's tool gets no answer for it: its wireguard-go ended, or it is another program's leftover.
            remove_link(self.interface)
        self.kind = create_device(self.interface)
        if self.kind == USERSPACE and (slow := slow_userspace_version()):
            _log.warning("%s is 5 times slower than v0.0.20230223 and newer: see evio_wireguard_go_package", slow)
        self._watch()
        set_device(self.interface, key_path, config.listen_port)
        _log.info("created %s (%s)", self.interface, self.kind)

    def read(self) -> None:
        """Read what a device that was just created has. Raises OverlayError if it is gone."""
        device = read_device(self.interface)
        if device is None:
            raise OverlayError(f"{self.interface} is gone again right after it was created")
        self._remember(device)

    def allowed_ips_in_session(self) -> dict[str, frozenset[str]]:
        """Return the AllowedIPs by public key, as they were read, of the peers with which there is a session."""
        return {key: self._allowed_ips[key] for key in self.handshakes if key in self._allowed_ips}

    def look_for_handshakes(self) -> Mapping[str, int]:
        """Read the latest handshakes alone, by public key. Raises WireGuardError."""
        return read_handshakes(self.interface)

    def release(self) -> None:
        """Stop watching the device's wireguard-go, and collect its exit status if it ended."""
        self.kind = ""
        if self._pidfd is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            self._selector.unregister(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def try_endpoints(self, attempts: Iterable[Attempt], allowed_ips: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
        """Give each peer a new WireGuard session at the endpoint of its attempt.

        Return what failed: the error by public key. Raises WireGuardError if nothing can be changed.
        """
        changes = []
        for attempt in attempts:
            key = attempt.key
            # Only a peer that is removed first forgets its session and sends a new handshake at once.
            changes.append(PeerChange(key, is_removed=True))
            changes.append(PeerChange(key, allowed_ips[key], attempt.endpoint))
        failed = self._change(changes)
        for attempt in attempts:
            key = attempt.key
            if key not in failed:
                self._allowed_ips[key] = frozenset(allowed_ips[key])
                self.endpoints[key] = attempt.endpoint
        return failed

    def set_allowed_ips(
        self, allowed_ips: Mapping[str, tuple[str, ...]], former_keys: Mapping[str, str]
    ) -> dict[str, str]:
        """Give the device exactly these peers with these AllowedIPs, by public key.

        ``former_keys`` has the key that a peer had before, by its key now: the device sends to the same endpoint.
        Return what failed: the error by public key. Raises WireGuardError if nothing can be changed.
        """
        wanted = {key: frozenset(prefixes) for key, prefixes in allowed_ips.items()}
        changes = [
            replace(change, endpoint=self._endpoint(change.public_key, former_keys))
            if change.allowed_ips and not self._allowed_ips.get(change.public_key)
            else change
            for change in _changes(wanted, self._allowed_ips)
        ]
        failed = self._change(changes)
        if changes and not failed:
            self._allowed_ips = wanted
        return failed

    def _endpoint(self, key: str, former_keys: Mapping[str, str]) -> str | None:
        """Return where the device sends to a peer that had another key; None if it had none."""
        if key not in former_keys:
            return None
        return self.endpoints.get(key) or self.endpoints.get(former_keys[key])

    def _change(self, changes: list[PeerChange]) -> dict[str, str]:
        """Change peers. After a failure, read what the device has now: some changes were made and others were not."""
        try:
            failed = change_peers(self.interface, changes)
        except WireGuardError:
            self._reread()
            raise
        if failed:
            self._reread()
        return failed

    def _reread(self) -> None:
        with contextlib.suppress(WireGuardError):
            device = read_device(self.interface)
            if device is not None:
                self._remember(device)

    def _restore_name(self, public_key: str) -> None:
        """Give the interface its name again if it has another one.

        One that was renamed before the agent started is known by its key.
        """
        for index in self._index, index_with_key(public_key):
            if index and (name := restore_name(index, self.interface)) is not None:
                _log.warning("%s was renamed to %s: it has its name again", self.interface, name)
                return

    def _watch(self) -> None:
        pid = userspace_pid(self.interface)
        if pid is None or self._pidfd is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._pidfd, self._pid = os.pidfd_open(pid), pid
            self._selector.register(self._pidfd, selectors.EVENT_READ, self._data)

    def _remember(self, device: DeviceState) -> None:
        with contextlib.suppress(OSError):
            self._index = socket.if_nametoindex(self.interface)
        self._key_and_port = (device.public_key, device.listen_port)
        self._allowed_ips = {key: peer.allowed_ips for key, peer in device.peers.items()}
        self.endpoints = {key: peer.endpoint for key, peer in device.peers.items()}
        expired = time.time() - SESSION_SECONDS
        self.handshakes = {
            key: peer.latest_handshake for key, peer in device.peers.items() if peer.latest_handshake > expired
        }


def _changes(wanted: Mapping[str, frozenset[str]], found: Mapping[str, frozenset[str]]) -> Iterator[PeerChange]:
    """Yield the changes that turn found into wanted. A peer that only loses prefixes to other peers needs none."""
    for key in found.keys() - wanted.keys():
        yield PeerChange(key, is_removed=True)
    gained: set[str] = set()
    for key, prefixes in wanted.items():
        gained |= prefixes - found.get(key, frozenset())
    for key, prefixes in wanted.items():
        had = found.get(key)
        if had is None or prefixes - had or (had - prefixes) - gained:
            yield PeerChange(key, tuple(sorted(prefixes)))
