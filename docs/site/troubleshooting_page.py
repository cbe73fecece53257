"""docs/troubleshooting.md as a reader searches it: the words of its table, and of the entries below it."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "troubleshooting.md"
_ROW = re.compile(r"(?m)^\| `([^|]+)` \| [^|]+ \| ([a-z, ]+) \|$")


def provoked_by(place: str) -> set[str]:
    """Return the words of the table's rows that name this place, such as ``lab``, in their last column."""
    return {words for words, places in _ROW.findall(PAGE.read_text()) if place in places.split(", ")}


def entries() -> str:
    """Return the page without the table's rows, in one line, with single spaces."""
    return one_line(_ROW.sub("", PAGE.read_text()))


def one_line(text: str) -> str:
    return " ".join(text.split())
