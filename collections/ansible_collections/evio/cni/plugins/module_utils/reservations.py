# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What host-local has reserved for a network, read off its own files: for STATUS and GC, which older versions lack.

A file for each address, named by it, that holds the container's id and the interface's name; a lock and the last
address given out lie beside them. They are only read here: giving back is host-local's own work.
"""

from __future__ import annotations

import posix

from .cni_protocol import INVALID_CONFIG, CniError
from .rtnetlink import packed, split_cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .netconf import NetConf

HOST_LOCAL = "host-local"
NO_ROOM = "no IP addresses available"
"""In what it says where a range has no address left: it has no code for that."""
_DATA_DIR = "/var/lib/cni/networks"


class Reservations:
    """The reservations of one network."""

    def __init__(self, conf: NetConf) -> None:
        self._ipam: dict[str, Any] = conf.raw["ipam"]
        self._range_sets = _range_sets(conf.raw)
        self._directory = f"{self._ipam.get('dataDir') or _DATA_DIR}/{conf.name}"

    def holders(self) -> set[tuple[str, str]]:
        """Container id and interface of every reservation; an empty interface in files of before CNI 0.7."""
        return {holder for address in self._addresses() if (holder := self.holder(address))}

    def holder(self, address: str) -> tuple[str, str] | None:
        """Whose an address is, in the form of ``holders``; None if nobody's."""
        lines = self._read(address).split()
        return (lines[0], lines[1] if len(lines) > 1 else "") if lines else None

    def count(self) -> int:
        return len(self._addresses())

    def exhausted(self) -> str | None:
        """The first set of ranges with no address left; an ADD needs one of each set. Raises CniError."""
        taken = [packed(address) for address in self._addresses()]
        try:
            for ranges in self._range_sets:
                bounds = [_Range(one) for one in ranges]
                used = sum(any(address in one for one in bounds) for address in taken)
                room = sum(one.room for one in bounds)
                if used >= room:
                    return ", ".join(str(one["subnet"]) for one in ranges)
        except (AttributeError, KeyError, OSError, TypeError, ValueError):
            raise CniError(INVALID_CONFIG, f"ipam.ranges: {self._range_sets!r} are no ranges of host-local") from None
        return None

    def _addresses(self) -> list[str]:
        try:
            names = posix.listdir(self._directory)
        except OSError:
            return []
        # On file systems that take no ':', host-local writes '_' in IPv6 addresses.
        return [name.replace("_", ":") for name in names if name[:1].isalnum() and not name.startswith("l")]

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


def _range_sets(raw: dict[str, Any]) -> list[Any]:
    """As host-local puts them together: the runtime's, the one of before there were sets, and the sets."""
    ipam, asked = raw["ipam"], (raw.get("runtimeConfig") or {}).get("ipRanges")
    return [*(asked or []), *([[ipam]] if ipam.get("subnet") else []), *(ipam.get("ranges") or [])]


class _Range:
    """One range as host-local counts it: what is between its ends, without the gateway."""

    def __init__(self, one: dict[str, Any]) -> None:
        network, length = split_cidr(one["subnet"])
        self._size = len(network)
        base, hosts = int.from_bytes(network, "big"), (1 << (self._size * 8 - length)) - 1
        # host-local leaves out the network's own address, and IPv4's broadcast.
        self._first, self._last = base + 1, base + hosts - (1 if self._size == 4 else 0)
        if one.get("rangeStart"):
            self._first = _number(one["rangeStart"])
        if one.get("rangeEnd"):
            self._last = _number(one["rangeEnd"])
        self._gateway = _number(one["gateway"]) if one.get("gateway") else base + 1

    @property
    def room(self) -> int:
        """How many addresses it can give out."""
        return self._last - self._first + 1 - (self._first <= self._gateway <= self._last)

    def __contains__(self, address: bytes) -> bool:
        return len(address) == self._size and self._first <= int.from_bytes(address, "big") <= self._last


def _number(address: str) -> int:
    return int.from_bytes(packed(address), "big")
