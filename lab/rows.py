"""A table of what was proven and measured, printed line by line as a proof goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from commands import LabError


@dataclass(frozen=True)
class Row:
    """One line of the table: what was proven, what was measured, and whether it holds; None: it was not run."""

    subject: str
    measured: str
    holds: bool | None

    @property
    def text(self) -> str:
        """The row as a line."""
        verdict = {True: "ok", False: "FAILED", None: "not run"}[self.holds]
        return f"{self.subject:52} {verdict:8} {self.measured}"


def measure(subject: str, check: Callable[[], tuple[str, bool]]) -> Row:
    """Return the row of one check; one that could not be made fails, with the reason."""
    started = time.monotonic()
    try:
        measured, holds = check()
    except LabError as error:
        measured, holds = f"{error}"[:300], False
    row = Row(subject, f"{measured}  [{time.monotonic() - started:.0f} s]", holds)
    print(row.text, flush=True)
    return row
