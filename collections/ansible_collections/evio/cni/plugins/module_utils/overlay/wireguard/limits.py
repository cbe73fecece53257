# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits of the overlay's agent: how many messages it takes from one peer, and how many lines it logs of one kind.

Pure. Both limits are token buckets, and the memory of both is bounded.
"""

from __future__ import annotations

from collections.abc import Hashable

LOG_SECONDS = 60.0
"""Seconds between two lines of one kind about one peer."""

_MOST_KINDS = 1024
"""Kinds of lines that are remembered; beyond that the oldest is forgotten."""

MESSAGES_PER_SECOND = 25.0
MESSAGES_AT_ONCE = 75.0
"""Messages that are taken from a peer: those of a session in which both ends hurry, see session.ANSWER_GAP."""


class MessageLimit:
    """Admits so many messages of each peer. All times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._buckets: dict[Hashable, tuple[float, float]] = {}
        """Tokens and the time at which there were so many, by peer."""

    def admits(self, peer: Hashable, now: float, calls: float = 0.0) -> bool:
        """Return whether another message of the peer is processed now.

        ``calls`` is half the number of nodes whose calls a relay may pass on; 0 for a peer that is no relay.
        """
        most = MESSAGES_AT_ONCE + 2 * calls
        tokens, at = self._buckets.get(peer, (most, now))
        tokens = min(most, tokens + (now - at) * (MESSAGES_PER_SECOND + calls))
        is_admitted = tokens >= 1.0
        self._buckets[peer] = (tokens - 1.0 if is_admitted else tokens, now)
        return is_admitted

    def forget_all(self) -> None:
        """Begin anew: the peers are others."""
        self._buckets.clear()


class LogLimit:
    """Lets a line of each kind be logged once in LOG_SECONDS, or more often if ``at_once`` is more than 1."""

    def __init__(self, at_once: int = 1) -> None:
        self._at_once = float(at_once)
        self._kinds: dict[Hashable, tuple[float, float, int]] = {}
        """Tokens, the time at which there were so many, and the lines not logged since the last line, by kind."""

    def suppressed_before(self, kind: Hashable, now: float) -> int | None:
        """Return how many lines of this kind were not logged before this line; None if this line is not logged either.

        Counts the line.
        """
        tokens, at, suppressed = self._kinds.pop(kind, (self._at_once, now, 0))
        tokens = min(self._at_once, tokens + (now - at) * self._at_once / LOG_SECONDS)
        is_logged = tokens >= 1.0
        # Put back at the end: the first kind was not seen for the longest time.
        self._kinds[kind] = (tokens - 1.0, now, 0) if is_logged else (tokens, now, suppressed + 1)
        if len(self._kinds) > _MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        return suppressed if is_logged else None
