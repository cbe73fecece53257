# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the agent of EdgeVPN.io makes of what it sees: which state the overlay is in, and when a restart has to mend it.

Pure. The controller never signs in again by itself after its signalling server was restarted: its tunnels stay, but no
node can join or come back. A restart cuts the node off for up to a minute, so the nodes take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .members import RESTART_SLOTS, EdgeVpnMembers

START_SECONDS = 60.0
"""After a start, sessions and tunnels are not missed before this many seconds."""

LOST_SECONDS = 20.0
"""For this many seconds sessions must be missing before a restart is thought of."""

SLOT_SECONDS = 60.0
"""A node's turn to restart. It is back, with its tunnels, within that time."""

RESTART_SECONDS = 300.0
"""Between two restarts by the agent: peers leave out a node whose tunnel has died young for up to 240 s."""


@dataclass(frozen=True)
class Observation:
    """EdgeVPN.io on this node at one moment."""

    is_running: bool
    """Whether the controller's process lives."""
    running_for: float
    """Seconds since the service was started."""
    sessions: int
    """Connections to the signalling server."""
    wanted_sessions: int
    tunnels: Mapping[str, bool]
    """Whether the tunnel of the host overlay to each other node carries packets, by the node's name."""
    pod_tunnels: int | None
    """How many tunnels of the pod overlay carry packets; None if there is no pod overlay."""
    had_tunnels: bool = False
    """Whether there have been tunnels before. Without, the other nodes may not be there yet."""

    @property
    def is_starting(self) -> bool:
        """Whether sessions and tunnels may still be missing because the service was started a moment ago."""
        return self.running_for < START_SECONDS

    @property
    def has_all_sessions(self) -> bool:
        """Whether the controller is signed in with every account."""
        return self.sessions >= self.wanted_sessions


def fault_of(seen: Observation) -> str | None:
    """Return why pods of this node do not reach those of other nodes; None if nothing is known to be wrong.

    A missing session is no fault while there are tunnels: they go on carrying packets. Nor is it one that no other node
    is there yet, for the first node of a cluster.
    """
    if not seen.is_running:
        return "EdgeVPN.io's controller does not run; look at: journalctl -u evio"
    if seen.is_starting or not seen.tunnels or (seen.has_all_sessions and not seen.had_tunnels):
        return None
    if not any(seen.tunnels.values()) or seen.pod_tunnels == 0:
        which = "pod" if any(seen.tunnels.values()) else "host"
        return (
            f"EdgeVPN.io has no tunnel of the {which} overlay to any of {len(seen.tunnels)} nodes ({sessions_of(seen)})"
        )
    return None


def summary_of(seen: Observation) -> str:
    """Return one line: sessions, tunnels, and what a missing session means."""
    up = sum(seen.tunnels.values())
    line = f"EdgeVPN.io: {sessions_of(seen)}, tunnels to {up} of {len(seen.tunnels)} nodes"
    if seen.is_running and not seen.has_all_sessions and not seen.is_starting:
        line += (
            "; no node can join or come back to this one until EdgeVPN.io is restarted, which its agent does in turn"
        )
    return line


def sessions_of(seen: Observation) -> str:
    """Return the sessions in words."""
    return f"{seen.sessions} of {seen.wanted_sessions} sessions on the signalling server"


class RestartDecision:
    """Decides when sessions are lost for good. All times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._lost_since: float | None = None
        self._restarted_at: float | None = None

    def is_due(self, seen: Observation, members: EdgeVpnMembers, now: float) -> bool:
        """Return whether the service has to be restarted now, provided that the signalling server answers."""
        if not seen.is_running or seen.has_all_sessions or seen.is_starting:
            self._lost_since = None
            return False
        if self._lost_since is None:
            self._lost_since = now
        if self._restarted_at is not None and now - self._restarted_at < RESTART_SECONDS:
            return False
        return now - self._lost_since >= LOST_SECONDS + members.restart_slot * SLOT_SECONDS

    def note_unreachable_server(self, now: float) -> None:
        """Begin the wait again: the nodes take turns from when the server answers."""
        self._lost_since = now

    def note_restart(self, now: float) -> None:
        """Remember a restart."""
        self._restarted_at, self._lost_since = now, None


LONGEST_WAIT_SECONDS = LOST_SECONDS + (RESTART_SLOTS - 1) * SLOT_SECONDS
"""After this many seconds every node has had its turn."""
