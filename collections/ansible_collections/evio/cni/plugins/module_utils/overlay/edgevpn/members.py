# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file that tells a node which other nodes EdgeVPN.io's overlays have: config.json does not, and the agent asks.

Pure. The module edgevpn_config writes it beside config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import EvioError

RESTART_SLOTS = 10
"""The nodes' turns to restart EdgeVPN.io."""

MEMBERS_MODE = 0o644
"""Of the file: it has no secrets."""


class EdgeVpnMembersError(EvioError):
    """The file is missing or damaged."""


@dataclass(frozen=True)
class Member:
    """Another node of the overlays."""

    node_id: str
    address: str
    """Its host overlay address; empty if the inventory has none."""


@dataclass(frozen=True)
class EdgeVpnMembers:
    """The nodes of the overlays, as one of them knows them."""

    node: str
    """This node's name."""
    interface: str
    """The interface that has this node's host overlay address."""
    peers: Mapping[str, Member]
    """The other nodes, by name."""

    @property
    def restart_slot(self) -> int:
        """Return this node's turn, 0 to RESTART_SLOTS - 1, when all nodes have to restart EdgeVPN.io."""
        return sorted([self.node, *self.peers]).index(self.node) % RESTART_SLOTS


def render_members(members: EdgeVpnMembers) -> str:
    """Return the text of the file."""
    peers = {name: {"node_id": peer.node_id, "address": peer.address} for name, peer in sorted(members.peers.items())}
    return json.dumps({"node": members.node, "interface": members.interface, "peers": peers}, indent=2) + "\n"


def parse_members(text: str, path: str) -> EdgeVpnMembers:
    """Return the nodes that the text of the file names. Raises EdgeVpnMembersError; ``path`` is for its message."""
    try:
        data: dict[str, Any] = json.loads(text)
        peers = {name: Member(str(peer["node_id"]), str(peer["address"])) for name, peer in data["peers"].items()}
        return EdgeVpnMembers(str(data["node"]), str(data["interface"]), peers)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EdgeVpnMembersError(f"{path} is damaged ({error!r}); run the playbook again") from error
