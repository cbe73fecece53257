# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What differs between what is wanted and what is there: one list from which ``changed``, ``diff`` and the work follow.

Pure: it compares values it is given, already normalised by the room that knows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Difference:
    """One property that is not as wanted; ``found`` is None where the thing does not exist yet."""

    name: str
    wanted: Any
    found: Any


@dataclass
class Differences:
    """The properties of one thing, compared one by one."""

    _all: list[tuple[str, Any, Any]] = field(default_factory=list)

    def compare(self, name: str, wanted: Any, found: Any) -> None:
        """Note one property; equal values are kept too, so that the diff shows the whole thing."""
        self._all.append((name, wanted, found))

    def __iter__(self) -> Iterator[Difference]:
        return (Difference(name, wanted, found) for name, wanted, found in self._all if wanted != found)

    def __contains__(self, name: object) -> bool:
        return any(difference.name == name for difference in self)

    @property
    def changed(self) -> bool:
        return any(wanted != found for _name, wanted, found in self._all)

    def diff(self) -> dict[str, dict[str, Any]]:
        """Ansible's diff: ``{"before": {...}, "after": {...}}`` with every compared property."""
        return {
            "before": {name: found for name, _wanted, found in self._all if found is not None},
            "after": {name: wanted for name, wanted, _found in self._all if wanted is not None},
        }
