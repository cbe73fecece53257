# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Endpoints of tunnels, ``address:port``: parse and format them. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address

from ..errors import EvioError

LISTEN_PORT = 51820
"""WireGuard's usual UDP port."""


class OverlayError(EvioError):
    """The overlay cannot work as it is described; the message names the file or variable and the value."""


def parse_endpoint(text: str, default_port: int = LISTEN_PORT) -> str:
    """Return ``address:port`` in WireGuard's notation, from an address with or without a port. Raises OverlayError."""
    host, port = text, str(default_port)
    bracketed = re.fullmatch(r"\[(.+)\](?::(\d+))?", text)
    if bracketed:
        host, port = bracketed.group(1), bracketed.group(2) or port
    elif text.count(":") == 1:
        host, port = text.split(":")
    try:
        address = ip_address(host)
        number = int(port)
        if not 0 < number < 65536:
            raise ValueError(f"port {number} is not between 1 and 65535")
    except ValueError as error:
        raise OverlayError(
            f"evio_public_endpoint: {text!r} is not address, address:port or [IPv6 address]:port: {error}"
        ) from error
    return join_endpoint(str(address), number)


def join_endpoint(address: str, port: int) -> str:
    """Return ``address:port``, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def endpoint_host(endpoint: str) -> str:
    """Return the address of ``address:port``, without brackets."""
    return endpoint.rpartition(":")[0].strip("[]")
