# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state file of the overlay's agent: how this node reaches the other nodes, and what the agent cannot do.

The agent replaces the file every few seconds, and a reboot removes it. The plugin's STATUS reads it within a call of
the container runtime: nothing that is slow to import may be imported here.
"""

from __future__ import annotations

import posix
from time import time

from ..fast_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

STATE_INTERVAL = 5.0
"""Seconds after which the agent writes the file again, if nothing makes it write earlier."""

STATE_LIFETIME = 20.0
"""Seconds after which a file that was not written again counts as left by an agent that does not run any more."""


DIRECT = "direct"
"""The path to a node without a relay."""


class PeerPath:
    """How this node reaches another node."""

    __slots__ = ("address", "endpoint", "in_use", "name", "path", "rtt_ms")

    def __init__(
        self,
        name: str,
        address: str,
        path: str | None,
        rtt_ms: float | None,
        endpoint: str | None,
        in_use: bool = True,
    ) -> None:
        self.name = name
        self.address = address
        """The node's host overlay address."""
        self.path = path
        """DIRECT, the name of a relay, or None if there is no path of this node's own."""
        self.rtt_ms = rtt_ms
        """Round trip of the direct path in ms; None if there is no direct path."""
        self.endpoint = endpoint
        """``address:port`` to which WireGuard sends on the direct path; None if no endpoint is known."""
        self.in_use = in_use
        """Whether a direct path is kept or tried. It is not where nothing was sent lately: then a relay is the path."""

    def to_json(self) -> dict[str, Any]:
        """Return the peer as the file has it."""
        return {
            "name": self.name,
            "address": self.address,
            "path": self.path,
            "rtt_ms": self.rtt_ms,
            "endpoint": self.endpoint,
            "in_use": self.in_use,
        }


class OverlayState:
    """The overlay as the agent of this node sees it."""

    __slots__ = ("blocked", "device", "fault", "interface", "keys", "node", "peers", "summary", "updated")

    def __init__(
        self,
        node: str,
        interface: str,
        device: str,
        updated: float,
        peers: tuple[PeerPath, ...],
        fault: str | None = None,
        blocked: Iterable[str] = (),
        summary: str = "",
        keys: str = "",
    ) -> None:
        self.node = node
        self.interface = interface
        self.device = device
        """``kernel`` or ``wireguard-go``; ``EdgeVPN.io`` where that makes the interface."""
        self.updated = updated
        """When the agent wrote this, in seconds since 1970."""
        self.peers = peers
        self.fault = fault
        """The error that the agent met in its last round; None if there was none."""
        self.blocked = tuple(blocked)
        """One sentence for each chain of the node's firewalls that drops the overlay's packets, with its remedy."""
        self.summary = summary
        """One line about the overlay's service; empty where the peers say all."""
        self.keys = keys
        """Hash of the WireGuard keys that the device has (config.digest_of_keys); empty while some are missing."""

    def is_fresh(self, now: float | None = None) -> bool:
        """Return whether the agent wrote this within STATE_LIFETIME. ``now`` is in seconds since 1970."""
        return _age(self.updated, now) < STATE_LIFETIME

    def to_json(self) -> dict[str, Any]:
        """Return the state as the file has it."""
        return {
            "node": self.node,
            "interface": self.interface,
            "device": self.device,
            "updated": self.updated,
            "peers": [peer.to_json() for peer in self.peers],
            "fault": self.fault,
            "blocked": list(self.blocked),
            "summary": self.summary,
            "keys": self.keys,
        }


def overlay_fault(path: str, now: float | None = None) -> str | None:
    """Return what is wrong with the overlay according to the state file at ``path``; None if nothing is known.

    A file that is missing or not the agent's is no fault: the overlay may be another program's, or has not been up
    since the boot. ``now`` is in seconds since 1970.
    """
    data = _read(path)
    try:
        fault, updated = data.get("fault"), float(data["updated"])
    except (ValueError, TypeError, KeyError):
        return None
    if fault:
        return f"the overlay is down: {fault}"
    age = _age(updated, now)
    if age >= STATE_LIFETIME:
        return f"the overlay's agent has said nothing for {age:.0f} s; is it running?"
    blocked = data.get("blocked")
    if isinstance(blocked, list) and blocked:
        return f"a firewall of this node cuts pods off: {blocked[0]}"
    return None


def read_state(path: str) -> OverlayState | None:
    """Return the last state that was written, fresh or not; None if the file is missing or not the agent's."""
    data = dict(_read(path))
    try:
        peers = tuple(PeerPath(**peer) for peer in data.pop("peers"))
        updated = float(data.pop("updated"))
        return OverlayState(**data, updated=updated, peers=peers)
    except (ValueError, TypeError, KeyError):
        return None


def render_state(state: OverlayState) -> str:
    """Return the text of the file."""
    return dumps(state.to_json()) + "\n"


def _age(updated: float, now: float | None) -> float:
    return (time() if now is None else now) - updated


def _read(path: str) -> Mapping[str, Any]:
    """Return the file's JSON object; an empty one if the file cannot be read or has something else."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return {}
    try:
        data = loads(posix.read(descriptor, 1 << 20).decode())
    except (OSError, ValueError):
        return {}
    finally:
        posix.close(descriptor)
    return data if isinstance(data, dict) else {}
