# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names that are derived or checked: host ends of pods, the bridge's MAC, short hashes, MACs, node names. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeGuard

HOST_IFNAME = "evpod"
"""Prefix of the names of all host ends, and of no other interface of ours."""

DATAPATH_TYPES = ("system", "netdev")
"""Open vSwitch's names of its datapaths: ``system`` is the kernel's, ``netdev`` is vswitchd's own in userspace."""


def host_ifname(network: str, container_id: str, ifname: str) -> str:
    """Return the name of an attachment's host end, 15 characters. It depends only on what every DEL is told."""
    return HOST_IFNAME + short_hash(f"{network}/{container_id}:{ifname}")[:10]


def bridge_mac(gateway: bytes) -> str:
    """Return the bridge's MAC, locally administered, from the last 4 bytes of its packed gateway address."""
    prefix = b"\x0a\x58" if len(gateway) == 4 else b"\x0a\x56"
    return (prefix + gateway[-4:]).hex(":")


def short_hash(content: str) -> str:
    """Return the first 44 bits of the content's SHA-1 as 11 hexadecimal digits. It identifies; it protects nothing."""
    try:
        from _sha1 import sha1  # type: ignore[import-not-found]  # built in; hashlib would take longer to import
    except ImportError:
        from hashlib import sha1  # rare path: an interpreter without the private module
    digest: str = sha1(content.encode()).hexdigest()
    return digest[:11]


def is_mac(text: object) -> TypeGuard[str]:
    """Return whether this is a MAC as the kernel and Open vSwitch print it: in lower case, with colons."""
    if not isinstance(text, str) or len(text) != 17:
        return False
    parts = text.split(":")
    return len(parts) == 6 and all(len(part) == 2 and not part.strip("0123456789abcdef") for part in parts)


def is_node_name(text: object) -> TypeGuard[str]:
    """Return whether this can name a node or a cluster: as in Kubernetes (RFC 1123), also with ``_`` and capitals."""
    if not isinstance(text, str) or not 1 <= len(text) <= 253 or not text.isascii():
        return False
    return text[0].isalnum() and text[-1].isalnum() and all(each.isalnum() or each in "._-" for each in text)
