# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The attachments of this node: whether one is alive, and the journal's entries in types that readers can rely on.

An entry may lack keys or have been overwritten; then its own fields are empty, and all other entries are read as usual.
"""

from __future__ import annotations

from ..cidr import is_cidr
from ..kernel.netns import has_interface
from ..names import is_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.attachment import Attachment
    from .journal import Journal


def is_alive(journal: Journal, attachment: Attachment) -> bool:
    """Return whether the host's end of the veth pair exists: the kernel removes it with the pod's namespace."""
    return has_interface(journal.host_end(attachment))


def is_half_made(entry: dict[str, Any] | None) -> bool:
    """Return whether an ADD has begun the entry and not yet added the pod's addresses: it runs, or was killed."""
    return entry is not None and "boot" in entry and "ips" not in entry


class JournalEntry:
    """One entry of the journal; fields that are missing in the file or have another type are empty."""

    __slots__ = ("attachment", "boot", "host_end", "ips", "is_alive", "is_begun", "is_deleted", "mac", "netns", "path")

    def __init__(self, journal: Journal, attachment: Attachment) -> None:
        """Read it. Raises StateError."""
        entry = journal.read(attachment)
        noted = entry or {}
        ips, mac = noted.get("ips"), noted.get("mac")
        self.attachment = attachment
        self.host_end = journal.host_end_in(entry, attachment)
        """The name of the host's end of the veth pair."""
        self.is_alive = has_interface(self.host_end)
        """As ``is_alive``."""
        self.is_begun = entry is None or is_half_made(entry)
        """Whether an ADD works on it or was killed: what the pod was given is not written down yet."""
        self.is_deleted = bool(noted.get("deleted"))
        """Whether a DEL could not finish."""
        self.netns = _string(noted.get("netns"))
        """The path of the pod's network namespace."""
        self.mac = mac if is_mac(mac) else ""
        self.ips: tuple[str, ...] = tuple(ips) if isinstance(ips, list) and all(map(is_cidr, ips)) else ()
        """In CIDR notation."""
        self.path = _string(noted.get("path"))
        """CNI_PATH of its ADD."""
        self.boot = _string(noted.get("boot"))
        """The boot id of its ADD."""


def journal_entries(journal: Journal, network: str) -> list[JournalEntry]:
    """Return the entries of a network, sorted by container and interface. Raises StateError."""
    return [JournalEntry(journal, name) for name in sorted(journal.attachments(network)) if name.is_valid]


def addresses_of_pods(entries: list[JournalEntry]) -> list[list[str]]:
    """Return the addresses of each running pod among the entries, in CIDR notation; empty where they are not known."""
    return [list(one.ips) for one in entries if one.is_alive and not one.is_begun and not one.is_deleted]


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
