# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How bridges that another program makes avoid loops: take away what that program leaves behind after a change.

Our own pod bridge has neither a spanning tree nor an OpenFlow controller: see bridge_spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import paths
from .idl import Database, assign, connect


@dataclass(frozen=True)
class Switching:
    """What a bridge may have."""

    spanning_tree: bool = False
    controller: bool = False
    """Whether OpenFlow controllers may program the bridge."""


def clear_switching(
    bridges: Mapping[str, Switching], *, ovsdb: str = paths.OVSDB, timeout: float = 10.0, dry_run: bool = False
) -> list[str]:
    """Take from bridges what they may not have, and return it: ``spanning tree of eviPODOVL``.

    A bridge that loses its last controller forwards as a learning switch again. Bridges that do not exist are passed
    over. ``timeout`` in seconds. Raises OvsdbError.
    """
    with connect(ovsdb, timeout) as database:
        found = sorted(
            f"{what} of {row.name}" for row in _rows(database, bridges) for what in _surplus(row, bridges[row.name])
        )
        if found and not dry_run:
            database.commit(lambda _transaction: _clear(database, bridges))
            database.await_switch()
        return found


def _rows(database: Database, bridges: Mapping[str, Switching]) -> list[Any]:
    return [row for row in database.tables["Bridge"].rows.values() if row.name in bridges]


def _surplus(row: Any, allowed: Switching) -> list[str]:
    surplus = []
    if row.stp_enable and not allowed.spanning_tree:
        surplus.append("spanning tree")
    if row.controller and not allowed.controller:
        surplus.append("OpenFlow controller")
    return surplus


def _clear(database: Database, bridges: Mapping[str, Switching]) -> None:
    for row in _rows(database, bridges):
        if not bridges[row.name].spanning_tree:
            assign(row, "stp_enable", False)
        if not bridges[row.name].controller:
            assign(row, "controller", [])
