# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Text for people: lines that fit the terminal, tables, and colours where the terminal shows them.

What comes from other programs, such as the names of pods, is printed without control characters.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

COLUMNS = 80
"""Width of a terminal that does not tell it."""

_ENDLESS = 1_000_000
"""Width of what does not go to a terminal: a program that searches the text finds each sentence on one line."""

_NARROWEST_TERMINAL = 40

GREEN, YELLOW, RED, BOLD = "32", "33", "31", "1"
"""SGR parameters (ECMA-48 section 8.3.117)."""

_CUT = "…"
_NARROWEST = 6
"""Characters of a column that is cut."""
_GAP = "  "


def width() -> int:
    """Return how many columns a line may have."""
    if not sys.stdout.isatty():
        return _ENDLESS
    return max(_NARROWEST_TERMINAL, shutil.get_terminal_size((COLUMNS, 24)).columns)


def colour(text: str, sgr: str) -> str:
    """Return the text in a colour, where standard output is a terminal and NO_COLOR (no-color.org) is not set."""
    is_shown = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{sgr}m{text}\x1b[0m" if is_shown else text


def printable(text: str) -> str:
    """Return the text with a question mark for each character that a terminal would take for a command."""
    return "".join(character if character.isprintable() else "?" for character in text)


def wrapped(text: str, *, first: str = "", rest: str | None = None) -> str:
    """Return a sentence as lines that fit. ``first`` begins the first line, ``rest`` (as many blanks) the others.

    Words that are longer than a line, such as commands, stay whole.
    """
    lines = textwrap.wrap(
        printable(text),
        width(),
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) or first.rstrip()


def table(rows: Sequence[Sequence[str]], *, indent: str = "", flexible: Sequence[int] = (0,)) -> list[str]:
    """Return a line for each row. Where they would be too long, the ``flexible`` columns are cut, the widest first."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    excess = len(indent) + sum(widths) + len(_GAP) * (len(widths) - 1) - width()
    while excess > 0:
        widest = max(flexible, key=lambda column: widths[column])
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
        excess -= 1
    return [
        (indent + _GAP.join(_fit(cell, width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in cells
    ]


def _fit(cell: str, size: int) -> str:
    return cell.ljust(size) if len(cell) <= size else cell[: size - 1] + _CUT
