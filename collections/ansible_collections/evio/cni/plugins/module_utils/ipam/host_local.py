# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What host-local has reserved for a network, read off its own files: for STATUS and GC, which older versions lack.

A file for each address, named by it, that holds the container's id and the interface's name; a lock and the last
address given out lie beside them. They are only read here: giving back is host-local's own work.
"""

from __future__ import annotations

import posix

from ..cidr import packed, split_cidr
from ..cni.attachment import Attachment
from ..cni.netconf import NetConf, range_sets
from ..cni.spec import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOST_LOCAL = "host-local"
NO_ROOM = "no IP addresses available"
"""In what it says where a range has no address left: it has no code for that."""
_DATA_DIR = "/var/lib/cni/networks"


class Reservations:
    """The reservations of one network."""

    def __init__(self, conf: NetConf) -> None:
        self._raw = conf.raw
        self._network = conf.name
        self._gateways = conf.gateways
        self._directory = f"{conf.raw['ipam'].get('dataDir') or _DATA_DIR}/{conf.name}"

    def holders(self) -> dict[str, Attachment]:
        """Return the attachment that holds each address; ``eth0`` where the file names no interface."""
        found = {address: self.holder(address) for address in self.addresses()}
        return {
            address: holder if holder.ifname else Attachment(holder.network, holder.container_id, "eth0")
            for address, holder in found.items()
            if holder is not None
        }

    def holder(self, address: str) -> Attachment | None:
        """Return the attachment that holds an address, or None; files of before CNI 0.7 leave its ``ifname`` empty."""
        lines = self._read(address).split()
        return Attachment(self._network, lines[0], lines[1] if len(lines) > 1 else "") if lines else None

    def count(self) -> int:
        return len(self.addresses())

    def exhausted(self, taken: list[str] | None = None) -> str | None:
        """The first set of ranges with no address left; an ADD needs one of each set. Raises CniError.

        ``taken`` are the addresses that count as given out: all that are, if nothing else is said.
        """
        numbers = [packed(address) for address in (self.addresses() if taken is None else taken)]
        try:
            for ranges in range_sets(self._raw):
                bounds = [_Range(one, self._gateways) for one in ranges]
                used = sum(any(number in one for one in bounds) for number in numbers)
                room = sum(one.room for one in bounds)
                if used >= room:
                    return ", ".join(str(one["subnet"]) for one in ranges)
        except (AttributeError, KeyError, OSError, TypeError, ValueError):
            ranges = self._raw["ipam"].get("ranges")
            raise CniError(INVALID_CONFIG, f"ipam.ranges: {ranges!r} are no ranges of host-local") from None
        return None

    def addresses(self) -> list[str]:
        """All that are given out; what else lies there is nobody's."""
        try:
            names = posix.listdir(self._directory)
        except OSError:
            return []
        # On file systems that take no ':', host-local writes '_' in IPv6 addresses.
        return [address for name in names if _is_address(address := name.replace("_", ":"))]

    def _read(self, address: str) -> str:
        for name in (address, address.replace(":", "_")):
            try:
                descriptor = posix.open(f"{self._directory}/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
            except OSError:
                continue
            try:
                return posix.read(descriptor, 4096).decode("utf-8", "replace")
            finally:
                posix.close(descriptor)
        return ""


def _is_address(name: str) -> bool:
    try:
        return bool(packed(name))
    except (OSError, ValueError):
        return False


class _Range:
    """One range as host-local counts it: what is between its ends, without its gateway, nor the bridge's."""

    def __init__(self, one: dict[str, Any], gateways: list[str]) -> None:
        network, length = split_cidr(one["subnet"])
        self._size = len(network)
        base, hosts = int.from_bytes(network, "big"), (1 << (self._size * 8 - length)) - 1
        # host-local leaves out the network's own address, and IPv4's broadcast.
        self._first, self._last = base + 1, base + hosts - (1 if self._size == 4 else 0)
        if one.get("rangeStart"):
            self._first = _number(one["rangeStart"])
        if one.get("rangeEnd"):
            self._last = _number(one["rangeEnd"])
        own = _number(one["gateway"]) if one.get("gateway") else base + 1
        the_bridges = [address for address, _length in map(split_cidr, gateways) if len(address) == self._size]
        kept = {own, *(int.from_bytes(address, "big") for address in the_bridges)}
        self._kept = {number for number in kept if self._first <= number <= self._last}

    @property
    def room(self) -> int:
        """How many addresses it can give out."""
        return self._last - self._first + 1 - len(self._kept)

    def __contains__(self, address: bytes) -> bool:
        number = int.from_bytes(address, "big")
        return len(address) == self._size and self._first <= number <= self._last and number not in self._kept


def _number(address: str) -> int:
    return int.from_bytes(packed(address), "big")
