# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What host-local has reserved for a network, read off its own files: for STATUS and GC, which older versions lack.

A file for each address, named by it, that holds the container's id and the interface's name; a lock and the last
address given out lie beside them. They are only read here: giving back is host-local's own work.
"""

from __future__ import annotations

import posix

from .rtnetlink import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .netconf import NetConf

HOST_LOCAL = "host-local"
_DATA_DIR = "/var/lib/cni/networks"


class Reservations:
    """The reservations of one network."""

    def __init__(self, conf: NetConf) -> None:
        self._ipam: dict[str, Any] = conf.raw["ipam"]
        self._directory = f"{self._ipam.get('dataDir') or _DATA_DIR}/{conf.name}"

    def holders(self) -> set[tuple[str, str]]:
        """Container id and interface of every reservation; an empty interface in files of before CNI 0.7."""
        found = set()
        for address in self._addresses():
            lines = self._read(address).split()
            if lines:
                found.add((lines[0], lines[1] if len(lines) > 1 else ""))
        return found

    def count(self) -> int:
        return len(self._addresses())

    def exhausted(self) -> str | None:
        """The first set of ranges with no address left; an ADD needs one of each set."""
        taken = [packed(address) for address in self._addresses()]
        for ranges in self._ipam.get("ranges") or [[self._ipam]]:
            bounds = [_bounds(one) for one in ranges]
            room = sum(last - first + 1 for first, last, _, _ in bounds)
            # The gateway is never given out, be it within the range or not.
            room -= sum(first <= gateway <= last for first, last, gateway, _ in bounds)
            used = sum(
                any(first <= number <= last and size == len(address) for first, last, _, size in bounds)
                for address in taken
                for number in (int.from_bytes(address, "big"),)
            )
            if used >= room:
                return ", ".join(str(one.get("subnet")) for one in ranges)
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


def _bounds(one: dict[str, Any]) -> tuple[int, int, int, int]:
    """First and last address of a range as host-local counts them, the gateway, and the family's bytes."""
    network, _, length = one["subnet"].partition("/")
    size = len(packed(network))
    base, hosts = int.from_bytes(packed(network), "big"), (1 << (size * 8 - int(length))) - 1
    # host-local leaves out the network's own address, and IPv4's broadcast.
    first, last = base + 1, base + hosts - (1 if size == 4 else 0)
    if one.get("rangeStart"):
        first = int.from_bytes(packed(one["rangeStart"]), "big")
    if one.get("rangeEnd"):
        last = int.from_bytes(packed(one["rangeEnd"]), "big")
    gateway = int.from_bytes(packed(one["gateway"]), "big") if one.get("gateway") else base + 1
    return first, last, gateway, size
