# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The time by which a whole call of the container runtime must be over, whatever the programs that it asks do.

The verb begins the call; every wait for another program or for the kernel then lasts until the call's end, and no wait
has a shorter limit: on a starved node everything is slow, and kubelet would start an ADD that gives up early again.
Programs that serve no runtime begin no call, and each of their waits has a limit of its own.
"""

from __future__ import annotations

from time import monotonic

ADD_SECONDS = 100.0
"""With UNDO_SECONDS less than the runtime's patience: kubelet gives a request of its two minutes
(``--runtime-request-timeout``; twice that for a sandbox's start), and containerd ends the plugin when that is over."""

LOCK_SECONDS = 60.0
"""The part of ADD_SECONDS for which an ADD waits for another call that works on its attachment."""

UNDO_SECONDS = 12.0
"""For what a failed ADD has made; together with ADD_SECONDS less than ``state.lock.LONGEST_CALL_SECONDS``."""

DEL_SECONDS = 45.0
"""From the moment at which no other call works on the attachment: a DEL waits for an ADD that the runtime gave up."""

CHECK_SECONDS = 45.0

STATUS_SECONDS = 0.7
"""Runtimes ask every few seconds, and wait for the answer."""

_end: float | None = None


def begin_call(seconds: float) -> None:
    """Let the call be over in so many seconds from now."""
    global _end
    _end = monotonic() + seconds


def end_call() -> None:
    """Let waits have limits of their own again: for a program that does more than to serve the call."""
    global _end
    _end = None


def seconds_left(otherwise: float) -> float:
    """Return the seconds that the call has left, not less than 0; ``otherwise`` where no call has begun."""
    return otherwise if _end is None else max(0.0, _end - monotonic())
