# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How bridges that another program makes avoid loops, and what that program leaves behind after a change.

Our own pod bridge has neither a spanning tree nor an OpenFlow controller: see bridge_spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import paths
from ..defaults import OVS_TIMEOUT
from .idl import connect


@dataclass(frozen=True)
class Switching:
    """What a bridge may have."""

    spanning_tree: bool = False
    controller: bool = False
    """Whether OpenFlow controllers may program the bridge."""


def surplus_switching(
    bridges: Mapping[str, Switching], *, ovsdb: str = paths.OVSDB, timeout: float = OVS_TIMEOUT
) -> dict[str, list[str]]:
    """Return what bridges have and may not have, by the bridge's name: ``spanning tree``, ``OpenFlow controller``.

    Bridges that do not exist, and those without such a thing, are left out. ``timeout`` in seconds. Raises OvsdbError.
    """
    with connect(ovsdb, timeout) as database:
        rows = [row for row in database.tables["Bridge"].rows.values() if row.name in bridges]
        found = {row.name: _surplus(row, bridges[row.name]) for row in rows}
    return {name: surplus for name, surplus in sorted(found.items()) if surplus}


def _surplus(row: Any, allowed: Switching) -> list[str]:
    surplus = []
    if row.stp_enable and not allowed.spanning_tree:
        surplus.append("spanning tree")
    if row.controller and not allowed.controller:
        surplus.append("OpenFlow controller")
    return surplus
