# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said while a task takes long: for how long it has run, and which hosts are not done. For callback/waits.

Pure: the callback has the clock and the terminal.
"""

from __future__ import annotations

FIRST, OFTEN, SELDOM = 10.0, 10.0, 30.0
"""Seconds until the first line, between two lines of the first minute, and between later ones."""

_MOST_NAMED = 5


class RunningTask:
    """One task of a play, on the hosts that have begun it."""

    def __init__(self, started: float) -> None:
        """``started`` is in seconds of any clock."""
        self._started = started
        self._next = FIRST
        self._hosts: dict[str, bool] = {}

    def begin(self, host: str) -> None:
        """Note that the host has begun."""
        self._hosts[host] = False

    def end(self, host: str) -> None:
        """Note that the host is done, whatever became of it."""
        self._hosts[host] = True

    def line(self, now: float) -> str | None:
        """Return what is to be said now, if anything; ``now`` is of the same clock."""
        seconds = now - self._started
        waiting = [host for host, is_done in self._hosts.items() if not is_done]
        if seconds < self._next or not waiting:
            return None
        while self._next <= seconds:
            self._next += OFTEN if self._next < 60 else SELDOM
        named = ", ".join(waiting[:_MOST_NAMED])
        rest = len(waiting) - _MOST_NAMED
        more = f" and {rest} more" if rest > 0 else ""
        count = len(self._hosts)
        done = f"{count - len(waiting)} of {count} hosts are done, " if count > 1 else ""
        return f"    {seconds:.0f} s: {done}waiting for {named}{more}"
