# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The WireGuard device: created by the kernel if it has WireGuard, else by wireguard-go; its key, peers and AllowedIPs.

``wg`` (wireguard-tools) works with both kinds. Addresses and routes of the device are interface's subject, which peer
gets which AllowedIPs is path_selection's.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ... import paths
from ...atomic_file import make_directories, write_atomic
from ...errors import EvioError
from ...kernel.iproute import open_iproute
from ...kernel.netlink import NetlinkError

KERNEL = "kernel"
USERSPACE = "wireguard-go"
"""The two kinds of device."""

KEEPALIVE = 25
"""Seconds, as wg(8) recommends: keeps a NAT's mapping open while no agent sends probes."""

SESSION_SECONDS = 180
"""Seconds after a handshake for which WireGuard uses its keys (REJECT_AFTER_TIME)."""

FAST_USERSPACE = 20230223
"""Date in the version of the first wireguard-go with segmentation offload."""

_TIMEOUT = 10.0
"""Seconds for each program that is run, and for wireguard-go to answer."""

_PEERS_IN_A_CALL = 200
"""Peers that are changed by one run of wg: its arguments stay far below what the kernel lets a program have."""

_CONTROL_DIR = "/var/run/wireguard"
"""wireguard-go's control sockets, one for each interface."""


class WireGuardError(EvioError):
    """The WireGuard device or key cannot be used; the message names the interface, program or file."""


class WireGuardTimeoutError(WireGuardError):
    """A program did not answer in time."""


@dataclass(frozen=True)
class PeerState:
    """A peer of the device."""

    public_key: str
    endpoint: str | None
    """``address:port`` to which the device sends; None if it knows no endpoint."""
    allowed_ips: frozenset[str]
    latest_handshake: int
    """Seconds since 1970; 0 if there was none."""
    received: int
    """Bytes."""
    sent: int
    """Bytes."""


@dataclass(frozen=True)
class DeviceState:
    """A device with its peers."""

    public_key: str | None
    listen_port: int
    peers: Mapping[str, PeerState]
    """By public key."""


@dataclass(frozen=True)
class PeerChange:
    """A change of one peer; None leaves a property as it is."""

    public_key: str
    allowed_ips: tuple[str, ...] | None = None
    endpoint: str | None = None
    is_removed: bool = False


def create_key(path: str = paths.WIREGUARD_KEY) -> str:
    """Create the node's private key, readable by root alone, unless it exists; return the public key in base64."""
    if not Path(path).exists():
        key = _run(["wg", "genkey"])
        try:
            make_directories(Path(path).parent, 0o700)
            # Of two runs at once, the later must not replace the key of the earlier.
            with contextlib.suppress(FileExistsError):
                write_atomic(path, key, mode=0o600, must_be_new=True)
        except OSError as error:
            raise WireGuardError(f"cannot write {path}: {error}") from error
    os.chmod(path, 0o600)
    return read_public_key(path)


def read_public_key(path: str = paths.WIREGUARD_KEY) -> str:
    """Return the public key of the private key in the file. Raises WireGuardError if it is missing or not a key."""
    try:
        private = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise WireGuardError(f"cannot read the WireGuard key {path}: {error}") from error
    return _run(["wg", "pubkey"], private).strip()


def next_key_path(path: str = paths.WIREGUARD_KEY) -> str:
    """Return the file of the key to which the node changes while keys are rotated, beside the file of its key."""
    return f"{path}.next"


def replace_key(path: str = paths.WIREGUARD_KEY) -> None:
    """Put the node's next key into the place of its key, which is gone then. Raises WireGuardError."""
    try:
        os.rename(next_key_path(path), path)
        directory = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise WireGuardError(f"cannot put {next_key_path(path)} into the place of {path}: {error.strerror}") from error


def create_device(interface: str) -> str:
    """Create the interface and return its kind, KERNEL or USERSPACE. Raises WireGuardError if neither works."""
    if _create_in_kernel(interface):
        return KERNEL
    if shutil.which(USERSPACE) is None:
        raise WireGuardError(
            f"the kernel has no WireGuard and {USERSPACE} is not installed; install the package {USERSPACE}"
        )
    _start_userspace(interface)
    return USERSPACE


def userspace_pid(interface: str) -> int | None:
    """Return the process id of the wireguard-go that serves the interface; None if the kernel does, or nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(_TIMEOUT)
        try:
            control.connect(f"{_CONTROL_DIR}/{interface}.sock")
        except OSError:
            return None
        credentials = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", credentials)[0]
        return pid


def runs_replaced_file(pid: int) -> bool:
    """Return whether the file from which the process runs was replaced since it started."""
    try:
        return os.readlink(f"/proc/{pid}/exe").endswith(" (deleted)")
    except OSError:
        return False


def end_userspace(interface: str, *, only_replaced: bool = False) -> bool:
    """End the interface's wireguard-go, and with it the interface; return whether it was ended.

    With ``only_replaced``, a process stays whose file was not replaced since it started.
    """
    pid = userspace_pid(interface)
    if pid is None:
        return False
    try:
        if only_replaced and not runs_replaced_file(pid):
            return False
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        select.select([process], [], [], _TIMEOUT)
    finally:
        os.close(process)
    return True


def slow_userspace_version() -> str | None:
    """Return the version of the installed wireguard-go if it lacks segmentation offload (5 times slower), else None."""
    try:
        version = _run([USERSPACE, "--version"]).partition("\n")[0]
    except WireGuardError:
        return None
    date = re.search(r"\.(\d{8})", version)
    return version if date and int(date.group(1)) < FAST_USERSPACE else None


def read_device(interface: str) -> DeviceState | None:
    """Return the device and its peers; None if there is no such device or its wireguard-go does not answer.

    Raises WireGuardError if wg itself failed: a device that works must not be replaced for that.
    """
    result = _wg(["show", interface, "dump"])
    if result.returncode < 0:
        raise WireGuardError(f"wg show {interface} dump was ended by signal {-result.returncode}")
    if result.returncode != 0:
        return None
    try:
        return _parse_dump(result.stdout)
    except (ValueError, IndexError) as error:
        raise WireGuardError(f"wg show {interface} dump printed something else than a device: {error}") from error


def index_with_key(public_key: str) -> int:
    """Return the number of an interface of a WireGuard device with this public key of its own; 0 if there is none.

    wireguard-go tells the name that its interface had at first. One that was renamed is not found. Raises
    WireGuardError if wg cannot be run.
    """
    for line in _wg(["show", "all", "public-key"]).stdout.splitlines():
        interface, _tab, key = line.partition("\t")
        if key == public_key:
            with contextlib.suppress(OSError):
                return socket.if_nametoindex(interface)
    return 0


def read_handshakes(interface: str) -> dict[str, int]:
    """Return the latest handshake with each peer by public key, in seconds since 1970; empty if nothing answers.

    wireguard-go is asked at its socket (https://www.wireguard.com/xplatform), which takes a small part of the CPU time
    that starting ``wg`` takes.
    """
    if not Path(f"{_CONTROL_DIR}/{interface}.sock").exists():
        device = read_device(interface)
        return {key: peer.latest_handshake for key, peer in device.peers.items()} if device is not None else {}
    found: dict[str, int] = {}
    key = ""
    for line in _ask_userspace(interface).splitlines():
        name, _equals, value = line.partition("=")
        if name == "public_key":
            key = base64.b64encode(bytes.fromhex(value)).decode()
        elif name == "last_handshake_time_sec":
            found[key] = int(value)
    return found


def set_device(interface: str, key_path: str, listen_port: int) -> None:
    """Give the device its private key and UDP port. Raises WireGuardError."""
    _change(["set", interface, "listen-port", str(listen_port), "private-key", key_path])


def change_peers(interface: str, changes: Iterable[PeerChange]) -> dict[str, str]:
    """Apply the changes in order; return what failed: the error by public key.

    AllowedIPs given to a peer are taken from the peer that had them. A change that wg refuses does not keep the changes
    of the other peers from being made. Raises WireGuardTimeoutError.
    """
    failed: dict[str, str] = {}
    by_peer: dict[str, list[PeerChange]] = {}
    for change in changes:
        by_peer.setdefault(change.public_key, []).append(change)
    peers = list(by_peer.items())
    for first in range(0, len(peers), _PEERS_IN_A_CALL):
        batch = peers[first : first + _PEERS_IN_A_CALL]
        try:
            _set_peers(interface, [change for _key, of_peer in batch for change in of_peer])
        except WireGuardTimeoutError:
            raise
        except WireGuardError as error:
            if len(batch) == 1:
                failed[batch[0][0]] = str(error)
                continue
            for key, of_peer in batch:
                try:
                    _set_peers(interface, of_peer)
                except WireGuardTimeoutError:
                    raise
                except WireGuardError as single:
                    failed[key] = str(single)
    return failed


def port_holder_fault(port: int) -> str | None:
    """Return why nothing can listen on this UDP port, or None if it is free. The port is bound for a moment."""
    for address_family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(address_family, socket.SOCK_DGRAM) as trial:
                if address_family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind((address, port))
        except OSError as error:
            # A kernel without IPv6 has no such sockets.
            if error.errno == errno.EADDRINUSE:
                return f"UDP port {port} is used by another program; find it with: ss -ulpn 'sport = :{port}'"
    return None


def _set_peers(interface: str, changes: Iterable[PeerChange]) -> None:
    arguments: list[str] = []
    for change in changes:
        arguments += ["peer", change.public_key]
        if change.is_removed:
            arguments.append("remove")
            continue
        if change.endpoint is not None:
            arguments += ["endpoint", change.endpoint, "persistent-keepalive", str(KEEPALIVE)]
        if change.allowed_ips is not None:
            arguments += ["allowed-ips", ",".join(change.allowed_ips)]
    _change(["set", interface, *arguments])


def _ask_userspace(interface: str) -> str:
    """Return what wireguard-go tells of its device; an empty text if it does not answer. Raises WireGuardError."""
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(_TIMEOUT)
            control.connect(f"{_CONTROL_DIR}/{interface}.sock")
            control.sendall(b"get=1\n\n")
            while not answer.endswith(b"\n\n") and (block := control.recv(1 << 16)):
                answer += block
    except OSError as error:
        raise WireGuardError(f"{USERSPACE} of {interface} does not answer: {error.strerror or error}") from error
    return answer.decode("ascii", "replace")


def _parse_dump(text: str) -> DeviceState:
    """Return the device that ``wg show dump`` printed. Raises ValueError and IndexError."""
    first, *rest = (line.split("\t") for line in text.splitlines())
    peers = {}
    for key, _preshared, endpoint, allowed_ips, handshake, received, sent, _keepalive in rest:
        peers[key] = PeerState(
            public_key=key,
            endpoint=None if endpoint == "(none)" else endpoint,
            allowed_ips=frozenset() if allowed_ips == "(none)" else frozenset(allowed_ips.split(",")),
            latest_handshake=int(handshake),
            received=int(received),
            sent=int(sent),
        )
    return DeviceState(None if first[1] == "(none)" else first[1], int(first[2]), peers)


def _create_in_kernel(interface: str) -> bool:
    """Create the interface in the kernel; return False if the kernel has no WireGuard."""
    try:
        with open_iproute(f"cannot create {interface}") as ipr:
            ipr.link("add", ifname=interface, kind="wireguard")
    except NetlinkError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        raise WireGuardError(str(error)) from error
    return True


def _start_userspace(interface: str) -> None:
    """Start wireguard-go in a session of its own: it outlives the agent, and the next agent takes the device over."""
    process = subprocess.Popen(
        [USERSPACE, interface],
        stdin=subprocess.DEVNULL,
        stdout=2,
        start_new_session=True,
        # In the foreground it neither forks nor prints its advice to use the kernel's WireGuard.
        env={**os.environ, "LOG_LEVEL": "error", "WG_PROCESS_FOREGROUND": "1"},
    )
    deadline = time.monotonic() + _TIMEOUT
    while userspace_pid(interface) is None:
        if process.poll() is not None:
            raise WireGuardError(
                f"{USERSPACE} {interface} ended with status {process.returncode}; does /dev/net/tun exist?"
            )
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise WireGuardError(f"{USERSPACE} did not answer for {interface} within {_TIMEOUT:.0f} s")
        time.sleep(0.01)
    # The agent watches the process by userspace_pid() and collects its status; this keeps Popen from a warning.
    process.returncode = 0


def _change(arguments: list[str]) -> None:
    result = _wg(arguments)
    if result.returncode != 0:
        raise WireGuardError(f"wg {arguments[0]} {arguments[1]} failed: {result.stderr.strip()}")


def _wg(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return _execute(["wg", *arguments])


def _run(command: list[str], text: str = "") -> str:
    result = _execute(command, text)
    if result.returncode != 0:
        raise WireGuardError(f"{' '.join(command)} failed: {result.stderr.strip() or result.returncode}")
    return result.stdout


def _execute(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise WireGuardError(
            f"{command[0]} is not installed; install the packages wireguard-tools and wireguard-go"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise WireGuardTimeoutError(f"{command[0]} did not answer within {_TIMEOUT:.0f} s") from error
    except OSError as error:
        raise WireGuardError(f"{command[0]} cannot be run: {error.strerror}") from error
