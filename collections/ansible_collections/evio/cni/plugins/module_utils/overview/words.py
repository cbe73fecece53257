# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Numbers as people read them. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

_DAY = 86400.0


def duration(seconds: float | None) -> str:
    """Return a time span in its largest unit, such as ``3 min``; a dash for None."""
    if seconds is None:
        return "-"
    for unit, size in (("d", _DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def amount(number: int | None) -> str:
    """Return a number of bytes in its unit, such as ``1.4 MB``; a dash for None."""
    if number is None:
        return "-"
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("not reached")


def moment(seconds: float) -> str:
    """Return a time in seconds since 1970 as UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def count(number: int, thing: str) -> str:
    """Return a number with its noun: ``1 node``, ``2 nodes``."""
    plural = thing[:-1] + "ies" if thing.endswith("y") and thing[-2] not in "aeiou" else thing + "s"
    return f"{number} {thing if number == 1 else plural}"


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def shortened(text: str, most: int) -> str:
    """Return at most so many characters of a text."""
    return text if len(text) <= most else text[: most - 1] + "…"
