# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the journal says of an attachment, for the operator's commands: read once, and of the types that they count on.

An entry that lacks something, or has been written over, is one pod's trouble and never that of the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..cidr import is_cidr
from ..kernel.netns import has_interface
from .journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.attachment import Attachment


def is_alive(journal: Journal, attachment: Attachment) -> bool:
    """Whether the host's end of the attachment is there, and so the pod's namespace."""
    return has_interface(journal.host_end(attachment))


def is_half_made(entry: dict[str, Any] | None) -> bool:
    """Whether an ADD was cut off: it has written the beginning of its entry and not yet its addresses.

    It is not at work now: runtimes let no ADD run beside a GC (SPEC.md section 2), and collect_network spares its like.
    """
    return entry is not None and "boot" in entry and "ips" not in entry


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class JournalEntry:
    """One entry of the journal."""

    attachment: Attachment
    host_end: str
    is_alive: bool
    is_begun: bool
    """An ADD is at work on it, or was killed: it has not written down yet what it has given the pod."""
    netns: str
    mac: str
    """Empty where the entry has none that is one."""
    ips: tuple[str, ...]
    """In CIDR notation; empty where the entry has none, or what are none."""
    path: str
    boot: str
    is_deleted: bool
    """A DEL could not finish."""


def journal_entries(journal: Journal, network: str) -> list[JournalEntry]:
    """All of a network's, in the order of their names. Raises CniError where the journal cannot be read at all."""
    return [_entry(journal, one) for one in sorted(journal.attachments(network)) if one.is_valid]


def _entry(journal: Journal, attachment: Attachment) -> JournalEntry:
    entry = journal.read(attachment)
    noted, host_end = entry or {}, journal.host_end_in(entry, attachment)
    ips = noted.get("ips")
    return JournalEntry(
        attachment,
        host_end,
        has_interface(host_end),
        is_begun=entry is None or is_half_made(entry),
        netns=_text(noted.get("netns")),
        mac=mac if _MAC.fullmatch(mac := _text(noted.get("mac"))) else "",
        ips=tuple(ips) if isinstance(ips, list) and all(map(is_cidr, ips)) else (),
        path=_text(noted.get("path")),
        boot=_text(noted.get("boot")),
        is_deleted=bool(noted.get("deleted")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
