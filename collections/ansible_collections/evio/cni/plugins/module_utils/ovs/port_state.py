# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read the state of pods' ports, of their bridge and of vswitchd from Open vSwitch's database; note changes there.

CHECK, STATUS, GC, repair and the operator's commands need it. ADD and DEL do not: ports.
"""

from __future__ import annotations

from .jsonrpc import OWNED, OvsdbClient, ovsdb_map, uuids
from .ports import Segment, forget_operation, switch_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..cni.netconf import NetConf

_SEGMENT = ("tag", "trunks", "protected")
"""Columns of a port's row that ``_segment`` reads."""


class Port:
    """A port of ours, as the database has it."""

    __slots__ = ("bridged", "error", "external_ids", "name", "number", "ofport", "segment")

    def __init__(
        self,
        name: str,
        external_ids: dict[str, str],
        ofport: int,
        error: str,
        bridged: bool,
        segment: Segment,
        requested: int = 0,
    ) -> None:
        self.name = name
        self.external_ids = external_ids
        self.ofport = ofport
        """OpenFlow number; -1 if vswitchd could not open the device, 0 if it has not tried."""
        self.number = ofport if ofport > 0 else requested
        """The OpenFlow number that the port has or will have; 0 if nobody knows."""
        self.error = error
        self.bridged = bridged
        """Whether the port is on the bridge that was asked for."""
        self.segment = segment


def is_plugged(port: Port | None, segment: Segment) -> bool:
    """Return whether the port is on its bridge, opened by vswitchd, and in its segment."""
    if port is None or not port.bridged or port.ofport <= 0 or port.error:
        return False
    return port.segment.difference(segment) is None


def ports_of(ovsdb: OvsdbClient, bridge: str, where: list[Any] | None = None) -> list[Port]:
    """Return our ports, of any bridge. Raises OvsdbError.

    ``where`` are further conditions (RFC 7047 section 5.1). ``bridge`` is the bridge that ``Port.bridged`` refers to.
    """
    answer = ovsdb.transact(
        {
            "op": "select",
            "table": "Interface",
            "where": [OWNED, *(where or [])],
            "columns": ["_uuid", "name", "external_ids", "ofport", "ofport_request", "error"],
        },
        {"op": "select", "table": "Bridge", "where": [["name", "==", bridge]], "columns": ["ports"]},
        {"op": "select", "table": "Port", "where": [], "columns": ["_uuid", "interfaces", *_SEGMENT]},
    )
    bridge_ports = {uuid for row in answer[1]["rows"] for uuid in uuids(row["ports"])}
    port_rows = {uuid: row for row in answer[2]["rows"] for uuid in uuids(row["interfaces"])}
    bridged = {uuid for uuid, row in port_rows.items() if row["_uuid"][1] in bridge_ports}
    return [
        Port(
            row["name"],
            dict(row["external_ids"][1]),
            row["ofport"] if isinstance(row["ofport"], int) else 0,
            row["error"] if isinstance(row["error"], str) else "",
            row["_uuid"][1] in bridged,
            _segment(port_rows.get(row["_uuid"][1])),
            row["ofport_request"] if isinstance(row["ofport_request"], int) else 0,
        )
        for row in answer[0]["rows"]
    ]


def _segment(row: dict[str, Any] | None) -> Segment:
    """Return a port's segment from its row; a port without a row is in none."""
    if row is None:
        return Segment()
    tag, trunks = row["tag"], row["trunks"]
    numbers = [trunks] if isinstance(trunks, int) else trunks[1]
    return Segment(tag if isinstance(tag, int) else None, tuple(sorted(numbers)), is_isolated=row["protected"] is True)


def port_of(ovsdb: OvsdbClient, bridge: str, name: str) -> Port | None:
    """Return our port of this name, or None. Raises OvsdbError."""
    found = ports_of(ovsdb, bridge, [["name", "==", name]])
    return found[0] if found else None


def has_controller(ovsdb: OvsdbClient, bridge: str) -> bool:
    """Return whether an OpenFlow controller is set for the bridge. It manages the bridge's flows. Raises OvsdbError."""
    where = [["name", "==", bridge]]
    [answer] = ovsdb.transact({"op": "select", "table": "Bridge", "where": where, "columns": ["controller"]})
    return any(uuids(row["controller"]) for row in answer["rows"])


def bridge_status(ovsdb: OvsdbClient, bridge: str) -> str | None:
    """Return why vswitchd cannot use the bridge, "" if it can, and None without the bridge. Raises OvsdbError."""
    where = [["name", "==", bridge]]
    bridges, interfaces = ovsdb.transact(
        {"op": "select", "table": "Bridge", "where": where, "columns": ["name"]},
        {"op": "select", "table": "Interface", "where": where, "columns": ["ofport", "error"]},
    )
    if not bridges["rows"]:
        return None
    for row in interfaces["rows"]:
        if isinstance(row["error"], str):
            return row["error"]
        if isinstance(row["ofport"], int) and row["ofport"] < 0:
            return "its device cannot be opened"
    return ""


def is_vswitchd_stopped(ovsdb: str) -> bool:
    """Return whether the vswitchd beside the server at ``unix:PATH`` is stopped, as by SIGSTOP (proc(5), state T)."""
    try:
        with open(f"{ovsdb.removeprefix('unix:').rpartition('/')[0]}/ovs-vswitchd.pid", "rb", 0) as file:
            pid = int(file.read(32))
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            return file.read(4096).rpartition(b") ")[2][:1] in (b"T", b"t")
    except (OSError, ValueError):
        return False  # Without a file of its number, nothing can be said.


def set_external_ids(ovsdb: OvsdbClient, name: str, external_ids: dict[str, str]) -> None:
    """Set external_ids of a port of ours, and leave its others. Raises OvsdbError."""
    # An insertion into a map does not replace the value of a key that is there.
    deletion = ["external_ids", "delete", ["set", list(external_ids)]]
    change = {
        "where": [["name", "==", name], OWNED],
        "mutations": [deletion, ["external_ids", "insert", ovsdb_map(external_ids)]],
    }
    ovsdb.transact(*({"op": "mutate", "table": table, **change} for table in ("Interface", "Port")))


def resolve_datapath(conf: NetConf, ovsdb: OvsdbClient) -> None:
    """Set the configuration's datapath type to the bridge's where the configuration leaves it out. Raises OvsdbError.

    Without the bridge it stays empty.
    """
    if not conf.datapath_type:
        switch = switch_of(ovsdb, conf.bridge)
        if switch.external_ids is not None:
            conf.datapath_type = switch.datapath_type or "system"


def forget_removed_ports(ovsdb: OvsdbClient, bridge: str, removed_ports: Iterable[int]) -> None:
    """Delete the bridge's notes about these removed ports, whose flows are deleted. Raises OvsdbError."""
    ovsdb.transact(forget_operation(bridge, removed_ports))
