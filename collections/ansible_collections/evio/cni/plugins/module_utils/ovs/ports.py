# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A pod's port on its way into the bridge: asked for, numbered by vswitchd, and told the rest when that is known.

For ADD and repair. What there is on a switch: switch_ports; how a port goes: unplugging.


What there is on a switch: our ports with all that the database says of them, and who has the bridge in hand.

For CHECK, STATUS, GC, repair and the operator's commands; ADD and DEL do without.


How a pod's port goes from its bridge: without waiting for vswitchd."""

from __future__ import annotations

from .external_ids import REMOVED_PORT_ID
from .jsonrpc import OWNED, OvsdbClient, OvsdbError, ovsdb_map, uuids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..cni.netconf import NetConf
    from .jsonrpc import OvsdbClient


def is_plugged(port: Port | None) -> bool:
    """Whether Open vSwitch has the port on the bridge, open, and in no VLAN."""
    return port is not None and port.bridged and port.ofport > 0 and not port.error and port.tag is None


_PATIENCE_MS = 5000


class Switch:
    """What is to be known of the switch before a port is added: its other_config, its bridge's external_ids, None where
    there is no such bridge.
    """

    __slots__ = ("external_ids", "other_config")

    def __init__(self, other_config: dict[str, str], external_ids: dict[str, str] | None) -> None:
        self.other_config = other_config
        self.external_ids = external_ids

    @property
    def has_userspace_tso(self) -> bool:
        """Whether vswitchd's own datapath fills in the checksums of what it passes on."""
        return self.other_config.get("userspace-tso-enable") == "true"

    @property
    def removed_ports(self) -> dict[int, str]:
        """Ports that were unplugged and whose flows may be there yet: by their numbers, their names."""
        ids = self.external_ids or {}
        numbers = {key: key[len(REMOVED_PORT_ID) :] for key in ids if key.startswith(REMOVED_PORT_ID)}
        return {int(number): ids[key] for key, number in numbers.items() if number.isdigit()}


def switch_queries(bridge: str) -> tuple[dict[str, Any], ...]:
    """The operations whose results ``switch_in`` reads."""
    return (
        {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["other_config"]},
        {"op": "select", "table": "Bridge", "where": [["name", "==", bridge]], "columns": ["external_ids"]},
    )


def switch_in(results: list[Any]) -> Switch:
    """What the first results of a transaction say."""
    switches, bridges = results[0]["rows"], results[1]["rows"]
    return Switch(
        dict(switches[0]["other_config"][1]) if switches else {},
        dict(bridges[0]["external_ids"][1]) if bridges else None,
    )


class NewPort:
    """A port that was asked for, and is awaited whatever happens, so that what undoes it comes after it."""

    __slots__ = ("_bridge", "_insertion", "_is_finished", "_note", "_number", "_ovsdb", "_switch", "name")

    def __init__(self, ovsdb: OvsdbClient, bridge: str, name: str, external_ids: dict[str, str]) -> None:
        """Ask for a device to be plugged into the bridge. Raises OvsdbError."""
        self.name = name
        self._ovsdb = ovsdb
        self._bridge = bridge
        self._switch: Switch | None = None
        self._is_finished = False
        ids = ovsdb_map(external_ids)
        interface = {"name": name, "external_ids": ids}
        port = {"name": name, "interfaces": ["named-uuid", "interface"], "external_ids": ids}
        mutations = [["ports", "insert", ["named-uuid", "port"]]]
        self._insertion: int | None = ovsdb.begin(
            *switch_queries(bridge),
            {"op": "insert", "table": "Interface", "row": interface, "uuid-name": "interface"},
            {"op": "insert", "table": "Port", "row": port, "uuid-name": "port"},
            {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": mutations},
        )
        where = [["name", "==", name]]
        self._number = ovsdb.begin(
            {
                "op": "wait",
                "table": "Interface",
                "where": where,
                "columns": ["ofport"],
                "until": "!=",
                "rows": [{"ofport": ["set", []]}],
                "timeout": _PATIENCE_MS,
            },
            {"op": "select", "table": "Interface", "where": where, "columns": ["ofport", "error"]},
        )

    def has_bridge(self) -> bool:
        """Whether there is a bridge for it in the database; else nothing refers to the port, and it is gone already."""
        if self._insertion is not None:
            insertion, self._insertion = self._insertion, None
            self._switch = switch_in(self._ovsdb.wait(insertion))
        return self._switch is not None and self._switch.external_ids is not None

    @property
    def switch(self) -> Switch:
        """As it was when the port was asked for. Raises OvsdbError where there is no bridge."""
        if not self.has_bridge() or self._switch is None:
            raise OvsdbError(f"there is no bridge {self._bridge} in the database; is another program at work on it?")
        return self._switch

    def wait_ofport(self) -> int:
        """Its OpenFlow number, once vswitchd has given it one. Raises OvsdbError, undone, if it gets none."""
        self._is_finished = True
        try:
            self.has_bridge()
            return self._await_number()
        except OvsdbError:
            unplug(self._ovsdb, self.name, guarded=False)
            raise

    def add_external_ids(self, external_ids: dict[str, str], forgotten: Iterable[int]) -> None:
        """Say more of the port, and drop closed ports whose flows have gone from those that the bridge remembers. It
        costs vswitchd nothing, which does not listen for external_ids.
        """
        more = {
            "where": [["name", "==", self.name]],
            "mutations": [["external_ids", "insert", ovsdb_map(external_ids)]],
        }
        operations = [{"op": "mutate", "table": table, **more} for table in ("Interface", "Port")]
        if forgotten:
            operations.append(forgetting_removed_ports(self._bridge, forgotten))
        self._note = self._ovsdb.begin(*operations)

    def flush(self) -> None:
        """Wait until what ``add_external_ids`` has said is there. Raises OvsdbError."""
        self._ovsdb.wait(self._note)

    def _await_number(self) -> int:
        answer = self._ovsdb.wait(self._number, check=False)
        if len(answer) < 2 or answer[0].get("error"):
            raise OvsdbError(f"Open vSwitch has not taken up the port {self.name} within 5 s: is ovs-vswitchd running?")
        if not answer[1]["rows"]:
            raise OvsdbError(f"the bridge has gone while {self.name} was plugged in; is another program at work on it?")
        [row] = answer[1]["rows"]
        if not isinstance(row["ofport"], int) or row["ofport"] <= 0:
            reason = row["error"] if isinstance(row["error"], str) else "no reason given"
            raise OvsdbError(f"Open vSwitch cannot use the port {self.name}: {reason}")
        return int(row["ofport"])

    def __enter__(self) -> NewPort:
        return self

    def __exit__(self, *_what: object) -> None:
        if not self._is_finished:
            try:
                self.wait_ofport()
            except OvsdbError:
                return  # Whoever has not asked for the number has failed already, and says why.


def forgetting_removed_ports(bridge: str, removed_ports: Iterable[int]) -> dict[str, Any]:
    """The operation that drops these ports from those that the bridge remembers: their flows have gone."""
    keys = [f"{REMOVED_PORT_ID}{number}" for number in removed_ports]
    mutations = [["external_ids", "delete", ["set", keys]]]
    return {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": mutations}


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


def ports_of(ovsdb: OvsdbClient, bridge: str, where: list[Any] | None = None) -> list[Port]:
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


def port_of(ovsdb: OvsdbClient, bridge: str, name: str) -> Port | None:
    """Our port of this name, or None."""
    found = ports_of(ovsdb, bridge, [["name", "==", name]])
    return found[0] if found else None


def switch_of(ovsdb: OvsdbClient, bridge: str) -> Switch:
    """The switch and its bridge, which need not be there."""
    return switch_in(ovsdb.transact(*switch_queries(bridge)))


def forget_removed_ports(ovsdb: OvsdbClient, bridge: str, removed_ports: Iterable[int]) -> None:
    """Drop these ports from those that the bridge remembers: their flows have gone."""
    ovsdb.transact(forgetting_removed_ports(bridge, removed_ports))


def has_controller(ovsdb: OvsdbClient, bridge: str) -> bool:
    """Whether a controller was set for the bridge, which has its flows in hand then."""
    where = [["name", "==", bridge]]
    [answer] = ovsdb.transact({"op": "select", "table": "Bridge", "where": where, "columns": ["controller"]})
    return any(uuids(row["controller"]) for row in answer["rows"])


def has_daemon(ovsdb: OvsdbClient) -> bool:
    """Whether a vswitchd serves the database: it holds the lock of its name (RFC 7047 section 4.1.8)."""
    answer = ovsdb.ask("lock", "ovs_vswitchd")
    if answer["locked"]:
        ovsdb.ask("unlock", "ovs_vswitchd")
    return not answer["locked"]


def unplug(ovsdb: OvsdbClient, name: str, *, guarded: bool) -> None:
    """Unplug the port if it is ours. Raises OvsdbError.

    Where it was guarded, the bridge remembers it (REMOVED_PORT_ID) until its flows have gone.
    """
    its = ["name", "==", name]
    interfaces, ports = ovsdb.transact(
        {"op": "select", "table": "Interface", "where": [its, OWNED], "columns": ["ofport"]},
        {"op": "select", "table": "Port", "where": [its], "columns": ["_uuid"]},
    )
    if not interfaces["rows"] or not ports["rows"]:
        return
    ofport, uuid = interfaces["rows"][0]["ofport"], ports["rows"][0]["_uuid"]
    mutations = [["ports", "delete", uuid]]
    if guarded and isinstance(ofport, int) and ofport > 0:
        mutations.append(["external_ids", "insert", ovsdb_map({f"{REMOVED_PORT_ID}{ofport}": name})])
    where = [["ports", "includes", uuid]]
    ovsdb.transact({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})


def try_to_unplug(conf: NetConf, name: str) -> bool:
    """Take the port off its bridge; False if the database cannot be asked now."""
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            unplug(ovsdb, name, guarded=conf.port_security)
    except OvsdbError:
        return False
    return True
