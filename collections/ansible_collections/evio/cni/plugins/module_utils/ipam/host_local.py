# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The addresses that host-local has reserved for a network, read from its files; older versions have no STATUS or GC.

One file per address, named by the address, holds the container's id and the interface's name. Beside them lie a lock
and the address given out last. The files are only read here; host-local itself releases addresses (delegate).
"""

from __future__ import annotations

import fcntl
import posix
from time import monotonic, sleep

from ..cidr import packed, split_cidr
from ..cni.attachment import Attachment
from ..cni.netconf import NetConf, range_sets
from ..cni.spec import INVALID_CONFIG, CniError
from ..deadline import seconds_left
from ..paths import HOST_LOCAL_DATA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_FREE_ADDRESS = "no IP addresses available"
"""Part of host-local's message when a range has no free address; it has no error code for that."""

_DEFAULT_IFNAME = "eth0"
"""What Kubernetes calls the interface: for files of host-local before CNI 0.7, which do not name it."""

_LOCK_SECONDS = 5.0
"""Where no call of the runtime has begun: host-local holds its lock for milliseconds."""

_LONGEST_FILE = 4096
"""Bytes."""


class RangeRoom:
    """How full a range of addresses is. IPv6 ranges have more addresses than any node has pods."""

    __slots__ = ("reserved", "size", "subnet")

    def __init__(self, subnet: str, size: int, reserved: int) -> None:
        self.subnet = subnet
        """In CIDR notation."""
        self.size = size
        """How many addresses pods can get."""
        self.reserved = reserved


class Reservations:
    """The reservations of one network."""

    def __init__(self, conf: NetConf) -> None:
        self._raw = conf.raw
        self._network = conf.name
        self._gateways = conf.gateways
        self._directory = f"{conf.raw['ipam'].get('dataDir') or HOST_LOCAL_DATA}/{conf.name}"

    @property
    def directory(self) -> str:
        """The directory of the network's reservations; it may not exist yet."""
        return self._directory

    def holders(self) -> dict[str, Attachment]:
        """Return the attachment that holds each address; ``eth0`` where the file does not name the interface."""
        found = {address: self.holder(address) for address in self.addresses()}
        return {
            address: holder if holder.ifname else Attachment(holder.network, holder.container_id, _DEFAULT_IFNAME)
            for address, holder in found.items()
            if holder is not None
        }

    def holder(self, address: str) -> Attachment | None:
        """Return the attachment that holds an address, or None. Its ``ifname`` may be empty, and its names invalid."""
        lines = self._read(address).split()
        return Attachment(self._network, lines[0], lines[1] if len(lines) > 1 else "") if lines else None

    def count(self) -> int:
        """Return how many addresses are reserved."""
        return len(self.addresses())

    def reserve(self, address: str, attachment: Attachment) -> None:
        """Reserve the address for an attachment, in place of whatever holds it. Raises OSError.

        As host-local writes it (plugins/ipam/host-local/backend/disk): a file that holds id and interface.
        """
        temporary = f"{self._directory}/.{attachment.container_id}"
        descriptor = posix.open(
            temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC, 0o600
        )
        try:
            posix.write(descriptor, f"{attachment.container_id}\r\n{attachment.ifname}".encode())
        finally:
            posix.close(descriptor)
        posix.rename(temporary, f"{self._directory}/{address}")

    def lock(self) -> int:
        """Take host-local's lock of the network, and return its descriptor, to be closed. Raises OSError.

        Makes the network's directory if it is missing, as host-local does.
        """
        flags = posix.O_RDONLY | posix.O_CREAT | posix.O_CLOEXEC
        try:
            descriptor = posix.open(f"{self._directory}/lock", flags, 0o600)
        except FileNotFoundError:
            # Rare: /var/lib/cni was deleted.
            import os

            os.makedirs(self._directory, 0o755, exist_ok=True)
            descriptor = posix.open(f"{self._directory}/lock", flags, 0o600)
        deadline = monotonic() + seconds_left(_LOCK_SECONDS)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() > deadline:
                    posix.close(descriptor)
                    raise
                sleep(0.005)
            else:
                return descriptor

    def exhausted(self, taken: list[str] | None = None) -> str | None:
        """Return the subnets of the first range set without a free address, or None. ADD needs an address of each set.

        ``taken`` are the addresses that count as reserved; None means all that are. Raises CniError for bad ranges.
        """
        numbers = [packed(address) for address in (self.addresses() if taken is None else taken)]
        try:
            for ranges in range_sets(self._raw):
                bounds = [_Range(conf, self._gateways) for conf in ranges]
                used = sum(any(number in bound for bound in bounds) for number in numbers)
                if used >= sum(bound.size for bound in bounds):
                    return ", ".join(str(conf["subnet"]) for conf in ranges)
        except (AttributeError, KeyError, OSError, TypeError, ValueError):
            raise self._bad_ranges() from None
        return None

    def _bad_ranges(self) -> CniError:
        ranges = self._raw["ipam"].get("ranges")
        return CniError(INVALID_CONFIG, f"ipam.ranges: {ranges!r} are no ranges of host-local")

    def room(self) -> list[RangeRoom]:
        """Return how full each range is. Raises CniError for bad ranges."""
        numbers = [packed(address) for address in self.addresses()]
        try:
            return [
                RangeRoom(str(conf["subnet"]), bounds.size, sum(number in bounds for number in numbers))
                for ranges in range_sets(self._raw)
                for conf, bounds in ((conf, _Range(conf, self._gateways)) for conf in ranges)
            ]
        except (AttributeError, KeyError, OSError, TypeError, ValueError):
            raise self._bad_ranges() from None

    def addresses(self) -> list[str]:
        """Return all reserved addresses; files that are not named by an address are passed over."""
        try:
            names = posix.listdir(self._directory)
        except OSError:
            return []
        # On file systems that do not allow ':', host-local writes '_' in IPv6 addresses.
        return [address for name in names if _is_address(address := name.replace("_", ":"))]

    def _read(self, address: str) -> str:
        for name in (address, address.replace(":", "_")):
            try:
                with open(f"{self._directory}/{name}", "rb", 0) as file:
                    return file.read(_LONGEST_FILE).decode("utf-8", "replace")
            except OSError:
                continue
        return ""


def _is_address(name: str) -> bool:
    try:
        return bool(packed(name))
    except (OSError, ValueError):
        return False


class _Range:
    """The addresses that host-local gives out of one range: all but its gateway and the bridge's addresses."""

    def __init__(self, conf: dict[str, Any], gateways: list[str]) -> None:
        """``conf`` is an element of a range set; ``gateways`` are the bridge's. Raises what a wrong ``conf`` causes."""
        network, length = split_cidr(conf["subnet"])
        self._bytes = len(network)
        base, hosts = int.from_bytes(network, "big"), (1 << (self._bytes * 8 - length)) - 1
        # host-local leaves out the network's own address, and in IPv4 the broadcast address.
        self._first, self._last = base + 1, base + hosts - (1 if self._bytes == 4 else 0)
        if conf.get("rangeStart"):
            self._first = _number(conf["rangeStart"])
        if conf.get("rangeEnd"):
            self._last = _number(conf["rangeEnd"])
        range_gateway = _number(conf["gateway"]) if conf.get("gateway") else base + 1
        on_bridge = [address for address, _length in map(split_cidr, gateways) if len(address) == self._bytes]
        left_out = {range_gateway, *(int.from_bytes(address, "big") for address in on_bridge)}
        self._left_out = {number for number in left_out if self._first <= number <= self._last}

    @property
    def size(self) -> int:
        """How many addresses the range has."""
        return self._last - self._first + 1 - len(self._left_out)

    def __contains__(self, address: bytes) -> bool:
        number = int.from_bytes(address, "big")
        return len(address) == self._bytes and self._first <= number <= self._last and number not in self._left_out


def _number(address: str) -> int:
    return int.from_bytes(packed(address), "big")
