# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the overlay's agent tells the rest of the node: one small file, replaced whole, gone with the next boot.

Written by overlay_agent; read by the plugin's STATUS, by ``evio overlay status`` and by the module overlay_ready.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ... import paths


@dataclass(frozen=True)
class PeerPath:
    """How one peer is reached."""

    name: str
    address: str
    path: str | None
    """``direct``, the name of a relay, or None where nothing leads to the peer."""
    rtt_ms: float | None
    endpoint: str | None
    """Where WireGuard sends to, or would."""


@dataclass(frozen=True)
class OverlayState:
    """The overlay as its agent sees it."""

    node: str
    interface: str
    device: str
    """``kernel`` or ``wireguard-go``."""
    updated: float
    """Seconds since 1970."""
    peers: tuple[PeerPath, ...]
    fault: str | None = None
    """What keeps the agent from doing its work, in its words."""

    def is_fresh(self, now: float | None = None) -> bool:
        """Whether an agent stands behind it."""
        return 0 <= (time.time() if now is None else now) - self.updated < paths.OVERLAY_STATE_SECONDS


def write_state(state: OverlayState, path: str = paths.OVERLAY_STATE) -> None:
    """Replace the file; on a file system in memory, so nothing is flushed."""
    target = Path(path)
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")
    os.rename(temporary, target)


def read_state(path: str = paths.OVERLAY_STATE) -> OverlayState | None:
    """The last state written, fresh or not; None if there is none that can be read."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        peers = tuple(PeerPath(**peer) for peer in data.pop("peers"))
        data["updated"] = float(data["updated"])
        return OverlayState(**data, peers=peers)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
