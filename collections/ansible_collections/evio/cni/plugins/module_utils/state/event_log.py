# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The log in which short-lived processes leave what ``evio metrics`` counts: calls of the plugin, repairs, fences.

A record is one line of RECORD_BYTES in ASCII, appended in one write. The log exists only where ``evio metrics`` has
made it; that sums it up and replaces it (node/counters).
"""

from __future__ import annotations

import posix

RECORD_BYTES = 32
"""Of a record: 12 for the kind, 6 for the code, 11 for the value, two blanks, and the end of the line."""

LONGEST_LOG = 1 << 20
"""Bytes. A log that nobody sums up gets no further records."""

_APPEND = posix.O_WRONLY | posix.O_APPEND | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK
"""O_NONBLOCK, because opening a FIFO that somebody has put there would wait for a reader."""

_HIGHEST_CODE = 999_999
_HIGHEST_VALUE = 99_999_999_999

FENCE = "fence"
"""The kind of a record that the node was fenced. A repair's kinds are in node/repair, a call's is its verb."""


def metrics_directory(state_dir: str) -> str:
    """Return the directory of the log and its sums. No network's directory can have this name."""
    return state_dir + "/.metrics"


def log_file(state_dir: str) -> str:
    """Return the path of the log."""
    return metrics_directory(state_dir) + "/events"


def note_event(state_dir: str, kind: str, value: int, code: int = 0) -> None:
    """Append a record, if there is a log. A log that cannot be written must not fail a call: errors are passed over.

    ``value`` is in the kind's unit: microseconds of a call, a number of things otherwise. ``code`` is a CNI error code,
    0 for success.
    """
    try:
        log = posix.open(log_file(state_dir), _APPEND)
    except (OSError, ValueError):
        # No log, or a stateDir that is no path.
        return
    try:
        if posix.fstat(log).st_size < LONGEST_LOG:
            code, value = min(max(code, 0), _HIGHEST_CODE), min(max(value, 0), _HIGHEST_VALUE)
            posix.write(log, f"{kind:<12.12} {code:6} {value:11}\n".encode("ascii", "replace"))
    except OSError:
        pass
    finally:
        posix.close(log)
