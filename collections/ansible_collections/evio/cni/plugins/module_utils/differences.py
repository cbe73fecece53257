# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The properties of a thing that differ from what is wanted: one list gives ``changed``, ``diff`` and the work to do.

Pure: it compares the values that it is given; the caller normalises them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Difference:
    """One property that is not as wanted. ``found`` is None if there is no such property yet."""

    name: str
    wanted: Any
    found: Any


@dataclass
class Differences:
    """The properties of one thing, compared one by one."""

    _all: list[tuple[str, Any, Any]] = field(default_factory=list)

    def compare(self, name: str, wanted: Any, found: Any) -> None:
        """Add one property. Equal values are kept too, so that the diff shows all properties."""
        self._all.append((name, wanted, found))

    def __iter__(self) -> Iterator[Difference]:
        return (Difference(name, wanted, found) for name, wanted, found in self._all if wanted != found)

    def __contains__(self, name: object) -> bool:
        return any(difference.name == name for difference in self)

    @property
    def changed(self) -> bool:
        """Whether any property differs."""
        return any(wanted != found for _name, wanted, found in self._all)

    def diff(self) -> dict[str, dict[str, Any]]:
        """Return Ansible's diff, ``{"before": {...}, "after": {...}}``, with every property that is not None."""
        return {
            "before": {name: found for name, _wanted, found in self._all if found is not None},
            "after": {name: wanted for name, wanted, _found in self._all if wanted is not None},
        }

    def result(self) -> dict[str, Any]:
        """Return ``changed`` and ``diff`` of a module's result."""
        return {"changed": self.changed, "diff": self.diff()}
