# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What there is on a switch: our ports with all that the database says of them, and who has the bridge in hand.

For CHECK, STATUS, GC, repair and the operator's commands; ADD and DEL do without.
"""

from __future__ import annotations

from .new_port import Switch, forgetting, switch_in, switch_queries
from .ovsdb_rpc import OWNED, Ovsdb, uuids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class Port:
    """One of our ports as the database has it."""

    __slots__ = ("bridged", "error", "external_ids", "name", "ofport", "tag")

    def __init__(
        self, name: str, external_ids: dict[str, str], ofport: int, error: str, bridged: bool, tag: int | None
    ) -> None:
        self.name = name
        self.external_ids = external_ids
        self.ofport = ofport
        """-1 where vswitchd could not open it, 0 where it has not tried."""
        self.error = error
        self.bridged = bridged
        """Whether it is a port of the bridge that was asked for."""
        self.tag = tag
        """The VLAN into which somebody has put it: none of ours is in one, nor is their gateway."""


def ports_of(ovsdb: Ovsdb, bridge: str, where: list[Any] | None = None) -> list[Port]:
    """Our ports, or those that meet ``where`` (RFC 7047 section 5.1) besides; never anybody else's."""
    answer = ovsdb.transact(
        {
            "op": "select",
            "table": "Interface",
            "where": [OWNED, *(where or [])],
            "columns": ["_uuid", "name", "external_ids", "ofport", "error"],
        },
        {"op": "select", "table": "Bridge", "where": [["name", "==", bridge]], "columns": ["ports"]},
        {"op": "select", "table": "Port", "where": [], "columns": ["_uuid", "interfaces", "tag"]},
    )
    members = {uuid for row in answer[1]["rows"] for uuid in uuids(row["ports"])}
    carriers = {uuid: row for row in answer[2]["rows"] for uuid in uuids(row["interfaces"])}
    bridged = {uuid for uuid, row in carriers.items() if row["_uuid"][1] in members}
    tags = {uuid: row["tag"] for uuid, row in carriers.items() if isinstance(row["tag"], int)}
    return [
        Port(
            row["name"],
            dict(row["external_ids"][1]),
            row["ofport"] if isinstance(row["ofport"], int) else 0,
            row["error"] if isinstance(row["error"], str) else "",
            row["_uuid"][1] in bridged,
            tags.get(row["_uuid"][1]),
        )
        for row in answer[0]["rows"]
    ]


def port_of(ovsdb: Ovsdb, bridge: str, name: str) -> Port | None:
    """Our port of this name, or None."""
    found = ports_of(ovsdb, bridge, [["name", "==", name]])
    return found[0] if found else None


def switch_of(ovsdb: Ovsdb, bridge: str) -> Switch:
    """The switch and its bridge, which need not be there."""
    return switch_in(ovsdb.transact(*switch_queries(bridge)))


def forget_closed(ovsdb: Ovsdb, bridge: str, closed: Iterable[int]) -> None:
    """Drop these ports from those that the bridge remembers: their flows have gone."""
    ovsdb.transact(forgetting(bridge, closed))


def has_controller(ovsdb: Ovsdb, bridge: str) -> bool:
    """Whether a controller was set for the bridge, which has its flows in hand then."""
    where = [["name", "==", bridge]]
    [answer] = ovsdb.transact({"op": "select", "table": "Bridge", "where": where, "columns": ["controller"]})
    return any(uuids(row["controller"]) for row in answer["rows"])


def has_daemon(ovsdb: Ovsdb) -> bool:
    """Whether a vswitchd serves the database: it holds the lock of its name (RFC 7047 section 4.1.8)."""
    answer = ovsdb.ask("lock", "ovs_vswitchd")
    if answer["locked"]:
        ovsdb.ask("unlock", "ovs_vswitchd")
    return not answer["locked"]
