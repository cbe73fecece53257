# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Add a pod's port to Open vSwitch's database, and remove it: what ADD and DEL do there.

ADD uses ``NewPort`` and DEL ``try_to_unplug``. What the database says of the ports that exist: port_state. A port's
flows: port_flows.
"""

from __future__ import annotations

import posix
from time import monotonic

from ..deadline import seconds_left
from .external_ids import OWNER, OWNER_ID, REMOVED_PORT_ID, USERSPACE_TSO
from .jsonrpc import OWNED, OvsdbClient, OvsdbError, ovsdb_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..cni.netconf import NetConf

_OFPORT_TIMEOUT_MS = 5000

_FIRST_OFPORT, _OFPORTS = 0x8000, 0x7F00
"""The numbers that ADD chooses from: vswitchd gives those below by itself, those above are reserved (OFPP_MAX)."""

_UNTAGGED = (0,)
"""The trunks of a port that carries untagged frames alone."""

_NUMBERS = ["ofport", "ofport_request"]
"""Columns of an interface's row: the OpenFlow number that it has, and the one that it is to get."""

_BRIDGE = ["external_ids", "datapath_type"]
"""Columns of a bridge's row that ``_parse_switch`` reads."""


class Segment:
    """The part of the bridge that a port reaches: its VLANs, and whether it is cut off from other isolated ports."""

    __slots__ = ("is_isolated", "trunks", "vlan")

    def __init__(self, vlan: int | None = None, trunks: tuple[int, ...] = (), *, is_isolated: bool = False) -> None:
        self.vlan = vlan
        """The VLAN of the port's untagged frames; None for those that are in no VLAN."""
        self.trunks = trunks
        """The VLANs whose tagged frames the port carries, sorted; 0 among them stands for untagged frames."""
        self.is_isolated = is_isolated

    def to_row(self) -> dict[str, Any]:
        """Return the columns of the port's row (ovs-vswitchd.conf.db(5), table Port).

        A port without VLANs carries untagged frames alone: Open vSwitch would let it carry those of every VLAN.
        """
        isolation = {"protected": True} if self.is_isolated else {}
        if self.vlan is not None:
            return {"tag": self.vlan, "vlan_mode": "access", **isolation}
        return {"trunks": ["set", list(self.trunks or _UNTAGGED)], "vlan_mode": "trunk", **isolation}

    def difference(self, other: Segment) -> str | None:
        """Return in words what is wrong with a port in this segment that should be in the other one; None if nothing.

        A port without VLANs that carries all VLANs is an older version's, and is left so until the pod is recreated.
        """
        if self.vlan != other.vlan:
            wanted = "none" if other.vlan is None else f"VLAN {other.vlan}"
            return f"has been put into VLAN {self.vlan}" if self.vlan is not None else f"is in no VLAN, not in {wanted}"
        if self.vlan is None and self.trunks != (other.trunks or _UNTAGGED) and (self.trunks or other.trunks):
            return "carries other VLANs than the configuration says"
        if self.is_isolated != other.is_isolated:
            return "is isolated" if self.is_isolated else "is not isolated from other pods' ports"
        return None


class Switch:
    """What ADD must know of the switch: its other_config, and the bridge's external_ids (None without the bridge)."""

    __slots__ = ("datapath_type", "external_ids", "other_config")

    def __init__(
        self, other_config: dict[str, str], external_ids: dict[str, str] | None, datapath_type: str = ""
    ) -> None:
        self.other_config = other_config
        self.external_ids = external_ids
        self.datapath_type = datapath_type
        """Of the bridge, as the database has it; empty for the kernel's, and without the bridge."""

    @property
    def needs_checksums(self) -> bool:
        """Whether frames leave the node with the checksums that the pod has filled in: vswitchd's datapath fills in
        none without its TSO.
        """
        return self.datapath_type == "netdev" and not self.has_userspace_tso

    @property
    def has_userspace_tso(self) -> bool:
        """Whether vswitchd's own datapath fills in missing checksums before a frame leaves the node."""
        return self.other_config.get(USERSPACE_TSO) == "true"

    @property
    def is_borrowed(self) -> bool:
        """Whether the bridge exists and lacks our mark: it is somebody else's."""
        return self.external_ids is not None and self.external_ids.get(OWNER_ID) != OWNER

    @property
    def removed_ports(self) -> dict[int, str]:
        """Names of removed ports that may still have flows, by their OpenFlow numbers."""
        ids = self.external_ids or {}
        numbers = {key: key[len(REMOVED_PORT_ID) :] for key in ids if key.startswith(REMOVED_PORT_ID)}
        return {int(number): ids[key] for key, number in numbers.items() if number.isdigit()}


def switch_of(ovsdb: OvsdbClient, bridge: str) -> Switch:
    """Return the state of the switch; the bridge may be missing. Raises OvsdbError."""
    return _parse_switch(ovsdb.transact(*_switch_queries(bridge)))


def has_daemon(ovsdb: OvsdbClient) -> bool:
    """Return whether a vswitchd serves the database. Raises OvsdbError.

    vswitchd holds the lock ``ovs_vswitchd`` (RFC 7047 section 4.1.8).
    """
    answer = ovsdb.ask("lock", "ovs_vswitchd")
    is_free = isinstance(answer, dict) and answer.get("locked") is not False
    # The lock, or the place in its queue, is given back: the next question would be an error.
    ovsdb.ask("unlock", "ovs_vswitchd")
    return not is_free


class NewPort:
    """A port that is being added to a bridge. Its methods follow in the order in which ADD calls them.

    Leaving the ``with`` block waits for vswitchd's answer, so that whatever removes the port comes after its addition.
    """

    __slots__ = (
        "_addition", "_bridge", "_ids", "_is_awaited", "_is_taken", "_number", "_ofport", "_ovsdb", "_row", "_switch",
        "_update", "name",
    )  # fmt: skip

    def __init__(
        self, ovsdb: OvsdbClient, bridge: str, name: str, external_ids: dict[str, str], segment: Segment
    ) -> None:
        self.name = name
        self._ovsdb = ovsdb
        self._bridge = bridge
        self._ids = ovsdb_map(external_ids)
        self._row = segment.to_row()
        self._switch: Switch | None = None
        self._number: int | None = None
        self._addition: int | None = None
        self._is_taken = False
        self._is_awaited = True

    def begin(self, ofport: int | None) -> None:
        """Send the request to add the device ``name`` as a port of the bridge. Raises OvsdbError.

        ``ofport`` is the OpenFlow number that the port is to get, of those of ``random_ofport``; with None, vswitchd
        chooses one. The device need not exist yet, but must before ``wait_ofport``.
        """
        self._number, self._is_awaited, self._switch = ofport, False, None
        request = {} if ofport is None else {"ofport_request": ofport}
        interface = {"name": self.name, "external_ids": self._ids, **request}
        port = {"name": self.name, "interfaces": ["named-uuid", "interface"], "external_ids": self._ids, **self._row}
        mutations = [["ports", "insert", ["named-uuid", "port"]]]
        self._addition = self._ovsdb.begin(
            *_switch_queries(self._bridge),
            *(() if ofport is None else _unless_taken(ofport)),
            {"op": "insert", "table": "Interface", "row": interface, "uuid-name": "interface"},
            {"op": "insert", "table": "Port", "row": port, "uuid-name": "port"},
            {"op": "mutate", "table": "Bridge", "where": [["name", "==", self._bridge]], "mutations": mutations},
        )

    def _begin_wait(self) -> int:
        """Send the request that is answered once vswitchd has opened the port, or after 5 s."""
        where = [["name", "==", self.name]]
        return self._ovsdb.begin(
            {
                "op": "wait",
                "table": "Interface",
                "where": where,
                "columns": ["ofport"],
                "until": "!=",
                "rows": [{"ofport": ["set", []]}],
                "timeout": _OFPORT_TIMEOUT_MS,
            },
            {"op": "select", "table": "Interface", "where": where, "columns": ["ofport", "error"]},
        )

    def __enter__(self) -> NewPort:
        return self

    def __exit__(self, *_exception: object) -> None:
        if not self._is_awaited:
            try:
                self.wait_ofport()
            except OvsdbError:
                return  # The block has left early, by an exception that says why the ADD fails.

    def is_taken(self) -> bool:
        """Return whether another port has the number: then OVSDB has refused the request. Raises OvsdbError."""
        self._read_addition()
        return self._is_taken

    def has_bridge(self) -> bool:
        """Return whether the database has the bridge. Without it, OVSDB has discarded the port. Raises OvsdbError."""
        self._read_addition()
        return self._switch is not None and self._switch.external_ids is not None

    def _read_addition(self) -> None:
        if self._addition is None:
            return
        addition, self._addition = self._addition, None
        # Not with the addition: the device may have to be made as soon as that is sent.
        self._ofport = self._begin_wait()
        results = self._ovsdb.wait(addition, check=False)
        self._is_taken = any(result and result.get("error") == "timed out" for result in results)
        failures = [result for result in results if result and result.get("error")]
        if failures and not self._is_taken:
            raise OvsdbError(f"the OVSDB refuses the port {self.name}: {failures[0]}")
        self._switch = _parse_switch(results)

    @property
    def switch(self) -> Switch:
        """The state of the switch when the port was added. Raises OvsdbError where there is no bridge."""
        if not self.has_bridge() or self._switch is None:
            raise OvsdbError(f"there is no bridge {self._bridge} in the database; is another program at work on it?")
        return self._switch

    def wait_ofport(self) -> int:
        """Return the port's OpenFlow number, once vswitchd has assigned it.

        Raises OvsdbError if vswitchd assigns none; the port is removed then.
        """
        self._is_awaited = True
        try:
            self._read_addition()
            return self._read_ofport()
        except OvsdbError:
            unplug(self._ovsdb, self.name, port_security=self._number is not None)
            raise

    def add_external_ids(self, external_ids: dict[str, str], removed_ports: Iterable[int]) -> None:
        """Send external_ids to add to the port. Raises OvsdbError.

        In the same transaction the bridge forgets these removed ports, whose flows are deleted. vswitchd does not
        monitor external_ids, so it is not woken.
        """
        change = {
            "where": [["name", "==", self.name]],
            "mutations": [["external_ids", "insert", ovsdb_map(external_ids)]],
        }
        operations = [{"op": "mutate", "table": table, **change} for table in ("Interface", "Port")]
        if removed_ports:
            operations.append(forget_operation(self._bridge, removed_ports))
        self._update = self._ovsdb.begin(*operations)

    def flush(self) -> None:
        """Wait until ``add_external_ids`` is carried out. Raises OvsdbError."""
        self._ovsdb.wait(self._update)

    def _read_ofport(self) -> int:
        row = self._read_row()
        if row["ofport"] == -1:
            # vswitchd may have looked for the device before it existed.
            self._ovsdb.transact(*_try_again(self.name))
            self._ofport = self._begin_wait()
            row = self._read_row()
        ofport = row["ofport"]
        if not isinstance(ofport, int) or ofport <= 0:
            reason = row["error"] if isinstance(row["error"], str) else "no reason given"
            raise OvsdbError(f"Open vSwitch cannot use the port {self.name}: {reason}")
        if self._number not in (None, ofport):
            raise OvsdbError(
                f"Open vSwitch has given the port {self.name} the OpenFlow number {ofport}, not {self._number}: does "
                "another program set ofport_request?"
            )
        return ofport

    def _read_row(self) -> dict[str, Any]:
        """Return the interface's ofport and error once vswitchd has tried to open it. Raises OvsdbError."""
        begun = monotonic()
        answer = self._ovsdb.wait(self._ofport, check=False)
        while len(answer) < 2 or answer[0].get("error"):
            # On a starved node a vswitchd that runs may take longer; the call's own end is the limit then.
            if seconds_left(0) < _OFPORT_TIMEOUT_MS / 1000 or not has_daemon(self._ovsdb):
                raise OvsdbError(
                    f"Open vSwitch has not taken up the port {self.name} within {monotonic() - begun:.0f} s: "
                    "is ovs-vswitchd running? systemctl restart ovs-vswitchd starts it"
                )
            answer = self._ovsdb.wait(self._begin_wait(), check=False)
        if not answer[1]["rows"]:
            raise OvsdbError(f"the bridge has gone while {self.name} was plugged in; is another program at work on it?")
        return dict(answer[1]["rows"][0])


def unplug(ovsdb: OvsdbClient, name: str, *, port_security: bool) -> None:
    """Remove the port from its bridge if it is ours; do not wait for vswitchd. Raises OvsdbError.

    A port with port security stays noted on the bridge (REMOVED_PORT_ID) until its flows are deleted.
    """
    has_name = ["name", "==", name]
    interfaces, ports = ovsdb.transact(
        {"op": "select", "table": "Interface", "where": [has_name, OWNED], "columns": _NUMBERS},
        {"op": "select", "table": "Port", "where": [has_name], "columns": ["_uuid"]},
    )
    if not interfaces["rows"] or not ports["rows"]:
        return
    uuid = ports["rows"][0]["_uuid"]
    mutations = [["ports", "delete", uuid]]
    # A port that was not opened has its flows already if it has requested a number.
    numbers = [interfaces["rows"][0][column] for column in _NUMBERS]
    number = next((number for number in numbers if isinstance(number, int) and number > 0), 0)
    if port_security and number:
        mutations.append(["external_ids", "insert", ovsdb_map({f"{REMOVED_PORT_ID}{number}": name})])
    where = [["ports", "includes", uuid]]
    ovsdb.transact({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})


def try_to_unplug(conf: NetConf, name: str) -> bool:
    """Remove the port from its bridge; return False if ovsdb-server cannot be reached or refuses."""
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            unplug(ovsdb, name, port_security=conf.port_security)
    except OvsdbError:
        return False
    return True


def segment_of(conf: NetConf) -> Segment:
    """Return the segment of a network's ports."""
    # As in the plugin ``bridge``: a trunk also carries untagged frames, unless preserveDefaultVlan is false.
    untagged = () if conf.raw.get("preserveDefaultVlan") is False else _UNTAGGED
    trunks = (*untagged, *conf.trunks) if conf.trunks else ()
    return Segment(conf.vlan, trunks, is_isolated=conf.is_isolated)


def _switch_queries(bridge: str) -> tuple[dict[str, Any], ...]:
    """Return the operations whose results ``_parse_switch`` reads."""
    return (
        {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["other_config"]},
        {"op": "select", "table": "Bridge", "where": [["name", "==", bridge]], "columns": _BRIDGE},
    )


def _parse_switch(results: list[Any]) -> Switch:
    """Return the state of the switch from the first two results of a transaction."""
    switches, bridges = results[0]["rows"], results[1]["rows"]
    return Switch(
        dict(switches[0]["other_config"][1]) if switches else {},
        dict(bridges[0]["external_ids"][1]) if bridges else None,
        bridges[0]["datapath_type"] if bridges else "",
    )


def random_ofport() -> int:
    """Return an OpenFlow number for a new port; ``NewPort`` tells whether another port has it."""
    return _FIRST_OFPORT + int.from_bytes(posix.urandom(4), "big") % _OFPORTS


def _unless_taken(ofport: int) -> list[dict[str, Any]]:
    """Return operations that let a transaction fail ("timed out") if a port has this OpenFlow number or is to get it.

    On any bridge: which of its ports are of which bridge cannot be asked in a condition (RFC 7047 section 5.2.6).
    """
    wait = {"op": "wait", "table": "Interface", "columns": ["name"], "until": "==", "rows": [], "timeout": 0}
    return [{**wait, "where": [[column, "==", ofport]]} for column in _NUMBERS]


def _try_again(name: str) -> list[dict[str, Any]]:
    """Return operations that let vswitchd open a port once more; its ofport is empty until it has tried."""
    row = {"ofport": ["set", []], "error": ["set", []]}
    return [
        {"op": "update", "table": "Interface", "where": [["name", "==", name]], "row": row},
        {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]},
    ]


def forget_operation(bridge: str, removed_ports: Iterable[int]) -> dict[str, Any]:
    keys = [f"{REMOVED_PORT_ID}{number}" for number in removed_ports]
    mutations = [["external_ids", "delete", ["set", keys]]]
    return {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": mutations}
