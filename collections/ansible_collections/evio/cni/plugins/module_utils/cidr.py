# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses and prefixes without ``ipaddress``: parsed from text, and packed (4 or 16 bytes) as the kernel has them.

Pure, for the CNI plugin. Node subnets and their arithmetic are in ``subnets``.
"""

from __future__ import annotations

from _socket import inet_pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeGuard

AF_INET, AF_INET6 = 2, 10
"""linux/socket.h"""

DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}
"""By IP version."""


def packed(address: str) -> bytes:
    """Return an address as 4 or 16 bytes. Raises OSError if the text is no address."""
    return inet_pton(family(address), address)


def family(address: str | bytes) -> int:
    """Return AF_INET or AF_INET6 for an address, which is text (with or without prefix length) or packed."""
    is_ipv6 = ":" in address if isinstance(address, str) else len(address) == 16
    return AF_INET6 if is_ipv6 else AF_INET


def ip_version(address: str) -> int:
    """Return 4 or 6, for an address or a prefix."""
    return 6 if ":" in address else 4


def split_cidr(cidr: str) -> tuple[bytes, int]:
    """Return the packed address and the prefix length of ``10.244.3.1/24``. Raises OSError or ValueError."""
    address, _slash, length = cidr.partition("/")
    return packed(address), int(length)


def is_in(address: bytes, network: bytes, length: int) -> bool:
    """Return whether a packed address lies in the network with this packed address and prefix length."""
    difference = int.from_bytes(address, "big") ^ int.from_bytes(network, "big")
    return len(address) == len(network) and difference >> (len(network) * 8 - length) == 0


def is_cidr(text: object) -> TypeGuard[str]:
    """Return whether this is an address with a prefix length, as in ``10.244.3.1/24``."""
    address, _slash, length = text.partition("/") if isinstance(text, str) else ("", "", "")
    try:
        size = len(packed(address))
    except (OSError, ValueError):
        return False
    return length.isascii() and length.isdecimal() and int(length) <= size * 8
