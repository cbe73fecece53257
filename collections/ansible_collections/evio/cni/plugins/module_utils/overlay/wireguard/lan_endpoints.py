# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The endpoints that this node has in its own network: nodes behind the same NAT reach it there.

Relays pass them on with their tables; when they are tried, is path_selection's decision.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from ...cidr import family
from ..endpoint import endpoint_host, join_endpoint, usable_endpoint
from .config import OverlayConfig


def lan_endpoints(config: OverlayConfig, relays: Iterable[str]) -> list[str]:
    """Return ``address:port`` for each address from which the node sends to a relay; nothing on a relay itself.

    ``relays`` has the endpoints of the relays, each ``address:port``.
    """
    if config.is_relay:
        return []
    endpoints = []
    for relay in relays:
        host = endpoint_host(relay)
        with socket.socket(family(host), socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            # Sends nothing: the kernel chooses the source address by its routes.
            probe.connect((host, config.listen_port))
            endpoint = join_endpoint(probe.getsockname()[0], config.listen_port)
            # Other nodes cannot use a link-local address, and refuse a message that has such an endpoint.
            if usable_endpoint(endpoint) is not None:
                endpoints.append(endpoint)
    return list(dict.fromkeys(endpoints))
