# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Endpoints of tunnels, ``address:port`` or ``name:port``: parse and format them. Pure.

An endpoint may come from another node. It is the endpoint of a single host in another network: no scope id, no
multicast, loopback, link-local or reserved address. Asking DNS for the addresses of a name is name_lookup's subject.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..errors import EvioError

LISTEN_PORT = 51820
"""WireGuard's usual UDP port."""

LONGEST_ENDPOINT = 47
"""Characters of the longest ``[IPv6 address]:port``."""

_LONGEST_NAME = 253
"""Characters of a DNS name (RFC 1035 section 2.3.4)."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?:{_LABEL}\.)+(?=[A-Za-z0-9-]*[A-Za-z]){_LABEL}")
"""RFC 1123 section 2.1. A name of a single label is refused: its meaning differs from node to node. So is a last label
of digits: it is a mistyped address."""

_WORDS = "is not address, address:port or [IPv6 address]:port"
_WORDS_WITH_NAME = "is not address, address:port, [IPv6 address]:port, DNS name with a dot or name:port"


class OverlayError(EvioError):
    """The overlay cannot work as it is described; the message names the file or variable and the value."""


def parse_endpoint(text: str, default_port: int = LISTEN_PORT) -> str:
    """Return ``address:port`` in WireGuard's notation, from an address with or without a port. Raises OverlayError."""
    try:
        host, port = _split(text, default_port)
        return join_endpoint(str(_unicast(host)), port)
    except ValueError as error:
        raise OverlayError(f"evio_public_endpoint: {_short(text)} {_WORDS}: {error}") from error


def parse_public_endpoint(text: str, default_port: int = LISTEN_PORT) -> str:
    """Return ``address:port`` or ``name:port``, from an address or DNS name with or without a port.

    Raises OverlayError.
    """
    try:
        host, port = _split(text, default_port)
        if _DNS_NAME.fullmatch(host) and len(host) <= _LONGEST_NAME:
            return f"{host.lower()}:{port}"
        return join_endpoint(str(_unicast(host)), port)
    except ValueError as error:
        raise OverlayError(f"evio_public_endpoint: {_short(text)} {_WORDS_WITH_NAME}: {error}") from error


def is_named(endpoint: str) -> bool:
    """Return whether a parsed endpoint has a DNS name in place of an address."""
    return _DNS_NAME.fullmatch(endpoint_host(endpoint)) is not None


def usable_endpoint(text: str) -> str | None:
    """Return ``address:port`` if another node could use it, else None."""
    try:
        return parse_endpoint(text)
    except OverlayError:
        return None


def join_endpoint(address: str, port: int) -> str:
    """Return ``address:port``, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def endpoint_host(endpoint: str) -> str:
    """Return the address of ``address:port``, without brackets."""
    return endpoint.rpartition(":")[0].strip("[]")


def _split(text: str, default_port: int) -> tuple[str, int]:
    """Return host and port. Raises ValueError."""
    if len(text) > _LONGEST_NAME + 6:
        raise ValueError(f"it has {len(text)} characters")
    host, port = text, str(default_port)
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]+))?", text)
    if bracketed:
        host, port = bracketed.group(1), bracketed.group(2) or port
        if ":" not in host:
            raise ValueError("only an IPv6 address has brackets")
    elif text.count(":") == 1:
        host, port = text.split(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"port {port!r} is not between 1 and 65535")
    return host, int(port)


def _unicast(host: str) -> IPv4Address | IPv6Address:
    """Return the address. Raises ValueError if no host in another network can have it."""
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError("an address with a scope id has a meaning on one host only")
    plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
    if plain is not address:
        raise ValueError(f"write the IPv4 address {plain}")
    for is_unusable, kind in (
        (address.is_multicast, "multicast"),
        (address.is_loopback, "loopback"),
        (address.is_unspecified or (address.version == 4 and int(address) >> 24 == 0), "unspecified"),
        (address.is_link_local, "link-local"),
        (address.version == 4 and address.is_reserved, "reserved"),
    ):
        if is_unusable:
            raise ValueError(f"{address} is a {kind} address")
    return address


def _short(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}..."
