# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names and numbers that are derived: interface names of pods' host ends, the bridge's MAC, short hashes. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeGuard

HOST_IFNAME = "evpod"
"""How the host's ends of all attachments begin, and no other interface of ours does."""


def bridge_mac(gateway: bytes) -> str:
    """A locally administered MAC that follows from the packed gateway: its IPv4 address, or the end of its IPv6 one."""
    prefix = b"\x0a\x58" if len(gateway) == 4 else b"\x0a\x56"
    return (prefix + gateway[-4:]).hex(":")


def host_ifname(network: str, container_id: str, ifname: str) -> str:
    """The host's end of an attachment, 15 characters: it follows from what every DEL knows."""
    return HOST_IFNAME + short_hash(f"{network}/{container_id}:{ifname}")[:10]


def short_hash(content: str) -> str:
    """44 bits of the content's SHA-1, as 11 digits: to tell names apart, not to keep anybody out."""
    try:
        from _sha1 import sha1  # type: ignore[import-not-found]  # private, and much quicker to import than hashlib
    except ImportError:
        from hashlib import sha1
    digest: str = sha1(content.encode()).hexdigest()
    return digest[:11]


def is_mac(text: object) -> TypeGuard[str]:
    """Whether it is a MAC in lower case with colons, as the kernel and Open vSwitch print it."""
    if not isinstance(text, str) or len(text) != 17:
        return False
    parts = text.split(":")
    return len(parts) == 6 and all(len(part) == 2 and not part.strip("0123456789abcdef") for part in parts)


def is_node_name(text: object) -> TypeGuard[str]:
    """Whether it can be a node's or a cluster's name: as Kubernetes has it (RFC 1123), capitals and underscores too."""
    if not isinstance(text, str) or not 1 <= len(text) <= 253 or not text.isascii():
        return False
    return text[0].isalnum() and text[-1].isalnum() and all(one.isalnum() or one in "._-" for one in text)
