# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The endpoints that this node has in its own network: nodes behind the same NAT reach it there.

Relays pass them on with their tables; when they are tried, is path_selection's decision.
"""

from __future__ import annotations

import contextlib
import socket

from ...cidr import family
from ..endpoint import endpoint_host, join_endpoint
from .config import OverlayConfig


def lan_endpoints(config: OverlayConfig) -> list[str]:
    """Return ``address:port`` for each address from which the node sends to a relay; nothing on a relay itself."""
    if config.is_relay:
        return []
    endpoints = []
    for peer in config.peers:
        if peer.endpoint is None:
            continue
        host = endpoint_host(peer.endpoint)
        with socket.socket(family(host), socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            # Sends nothing: the kernel chooses the source address by its routes.
            probe.connect((host, config.listen_port))
            endpoints.append(join_endpoint(probe.getsockname()[0], config.listen_port))
    return list(dict.fromkeys(endpoints))
