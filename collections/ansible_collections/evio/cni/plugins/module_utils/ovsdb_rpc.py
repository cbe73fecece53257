# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The OVSDB protocol (RFC 7047) as far as a pod's port needs it: one connection, one change, one wait.

For the plugin's ADD, DEL, CHECK and STATUS; what makes bridges uses the library (ovsdb), whose import takes 40 ms.
"""

from __future__ import annotations

import _socket
from _struct import pack

from .errors import EvioError
from .ownership import CLOSED_PORT_ID, OWNER, OWNER_ID
from .plain_json import dumps, first_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_AF_UNIX, _SOCK_STREAM, _SOCK_CLOEXEC = 1, 1, 0o2000000
_SOL_SOCKET, _SO_RCVTIMEO, _SO_SNDTIMEO = 1, 20, 21


class SwitchError(EvioError):
    """The OVSDB server does not answer, or refuses."""


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


class Switch:
    """The switch's other_config, and its bridge's external_ids, None where there is no such bridge."""

    __slots__ = ("external_ids", "other_config")

    def __init__(self, other_config: dict[str, str], external_ids: dict[str, str] | None) -> None:
        self.other_config = other_config
        self.external_ids = external_ids

    @property
    def has_userspace_tso(self) -> bool:
        """Whether vswitchd's own datapath fills in the checksums of what it passes on."""
        return self.other_config.get("userspace-tso-enable") == "true"

    @property
    def closed(self) -> dict[int, str]:
        """Ports that were unplugged and whose flows may be there yet: by their numbers, their names."""
        keys = [key for key in self.external_ids or {} if key.startswith(CLOSED_PORT_ID)]
        numbers = {key: key[len(CLOSED_PORT_ID) :] for key in keys}
        return {int(number): (self.external_ids or {})[key] for key, number in numbers.items() if number.isdigit()}


class Ovsdb:
    """A connection to the server at ``unix:PATH``; ``timeout`` in seconds counts for each answer."""

    def __init__(self, ovsdb: str, timeout: int = 10) -> None:
        self._ovsdb = ovsdb
        if not ovsdb.startswith("unix:"):
            raise SwitchError(f"ovsdb: {ovsdb!r} is not the path of a socket, as in unix:/var/run/openvswitch/db.sock")
        self._socket = _socket.socket(_AF_UNIX, _SOCK_STREAM | _SOCK_CLOEXEC)
        limit = pack("=qq", timeout, 0)
        self._socket.setsockopt(_SOL_SOCKET, _SO_RCVTIMEO, limit)
        self._socket.setsockopt(_SOL_SOCKET, _SO_SNDTIMEO, limit)
        self._identifier = 0
        self._answers: dict[int, Any] = {}
        self._unread = b""
        try:
            self._socket.connect(ovsdb[5:])
        except OSError as error:
            self._socket.close()
            raise SwitchError(
                f"the OVSDB at {ovsdb} does not answer ({error.strerror}): is ovsdb-server running?"
            ) from None

    def __enter__(self) -> Ovsdb:
        return self

    def __exit__(self, *_what: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def add_port(self, bridge: str, name: str, external_ids: dict[str, str]) -> int:
        """Plug a device into the bridge and return its number, awaited. Raises SwitchError, undone, if it gets none."""
        with self.begin_port(bridge, name, external_ids) as port:
            return port.finish()

    def begin_port(self, bridge: str, name: str, external_ids: dict[str, str]) -> NewPort:
        """Ask for a port, and for its number once vswitchd has given it one."""
        ids = _map(external_ids)
        interface = {"name": name, "external_ids": ids}
        port = {"name": name, "interfaces": ["named-uuid", "interface"], "external_ids": ids}
        mutations = [["ports", "insert", ["named-uuid", "port"]]]
        insertion = self._begin(
            {"op": "insert", "table": "Interface", "row": interface, "uuid-name": "interface"},
            {"op": "insert", "table": "Port", "row": port, "uuid-name": "port"},
            {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": mutations},
        )
        where = [["name", "==", name]]
        number = self._begin(
            {
                "op": "wait",
                "table": "Interface",
                "where": where,
                "columns": ["ofport"],
                "until": "!=",
                "rows": [{"ofport": ["set", []]}],
                "timeout": 5000,
            },
            {"op": "select", "table": "Interface", "where": where, "columns": ["ofport", "error"]},
        )
        return NewPort(self, name, insertion, number)

    def finish_port(self, name: str, insertion: int, number: int) -> int:
        """What ``begin_port`` has asked for."""
        self.finish(insertion)
        try:
            return self._await_number(name, number)
        except SwitchError:
            self.delete_ports([name], guarded=False)
            raise

    def begin_ids(self, name: str, external_ids: dict[str, str]) -> int:
        """Say more of a port; ``finish`` must follow. It costs vswitchd nothing, which does not listen for that."""
        more = {"where": [["name", "==", name]], "mutations": [["external_ids", "insert", _map(external_ids)]]}
        return self._begin(*({"op": "mutate", "table": table, **more} for table in ("Interface", "Port")))

    def finish(self, identifier: int, *, errors: bool = True) -> list[Any]:
        """The results of a transaction, one an operation. Raises SwitchError, if not told otherwise for a refusal."""
        result: list[Any] = self._result(identifier)
        failures = [one for one in result if one and one.get("error")]
        if failures and errors:
            raise SwitchError(
                f"the OVSDB at {self._ovsdb} refuses: {failures[0]['error']} {failures[0].get('details', '')}".rstrip()
            )
        return result

    def _await_number(self, name: str, number: int) -> int:
        answer = self.finish(number, errors=False)
        if len(answer) < 2 or answer[0].get("error"):
            raise SwitchError(f"Open vSwitch has not taken up the port {name} within 5 s: is ovs-vswitchd running?")
        if not answer[1]["rows"]:
            raise SwitchError(f"the bridge has gone while {name} was plugged in; is another program at work on it?")
        [row] = answer[1]["rows"]
        if not isinstance(row["ofport"], int) or row["ofport"] <= 0:
            reason = row["error"] if isinstance(row["error"], str) else "no reason given"
            raise SwitchError(f"Open vSwitch cannot use the port {name}: {reason}")
        return int(row["ofport"])

    def ports(self, bridge: str, where: list[Any] | None = None) -> list[Port]:
        """Our ports, or those that meet ``where`` (RFC 7047 section 5.1) besides; never anybody else's."""
        owned = ["external_ids", "includes", ["map", [[OWNER_ID, OWNER]]]]
        answer = self._transact(
            {
                "op": "select",
                "table": "Interface",
                "where": [owned, *(where or [])],
                "columns": ["_uuid", "name", "external_ids", "ofport", "error"],
            },
            {"op": "select", "table": "Bridge", "where": [["name", "==", bridge]], "columns": ["ports"]},
            {"op": "select", "table": "Port", "where": [], "columns": ["_uuid", "interfaces", "tag"]},
        )
        members = {uuid for row in answer[1]["rows"] for uuid in _uuids(row["ports"])}
        carriers = {uuid: row for row in answer[2]["rows"] for uuid in _uuids(row["interfaces"])}
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

    def port(self, bridge: str, name: str) -> Port | None:
        """Our port of this name, or None."""
        found = self.ports(bridge, [["name", "==", name]])
        return found[0] if found else None

    def delete_ports(self, names: list[str], *, guarded: bool) -> None:
        """Unplug those of these ports that are ours, in one transaction.

        Where they were guarded, the bridge remembers them (CLOSED_PORT_ID) until their flows have gone.
        """
        owned = ["external_ids", "includes", ["map", [[OWNER_ID, OWNER]]]]
        selections: list[dict[str, Any]] = []
        for name in names:
            its = ["name", "==", name]
            selections += (
                {"op": "select", "table": "Interface", "where": [its, owned], "columns": ["ofport"]},
                {"op": "select", "table": "Port", "where": [its], "columns": ["_uuid"]},
            )
        found = self._transact(*selections)
        removals = []
        for name, interfaces, ports in zip(names, found[::2], found[1::2], strict=True):
            for interface, port in zip(interfaces["rows"], ports["rows"], strict=False):
                mutations = [["ports", "delete", port["_uuid"]]]
                if guarded and isinstance(interface["ofport"], int) and interface["ofport"] > 0:
                    closed = [[f"{CLOSED_PORT_ID}{interface['ofport']}", name]]
                    mutations.append(["external_ids", "insert", ["map", closed]])
                where = [["ports", "includes", port["_uuid"]]]
                removals.append({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})
        if removals:
            self._transact(*removals)

    def forget_closed(self, bridge: str, closed: Iterable[int]) -> None:
        """Drop these ports from those that the bridge remembers: their flows have gone."""
        keys = [f"{CLOSED_PORT_ID}{number}" for number in closed]
        mutations = [["external_ids", "delete", ["set", keys]]]
        where = [["name", "==", bridge]]
        self._transact({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})

    def switch(self, bridge: str) -> Switch:
        """What is to be known before a port is added, or its bridge is mended."""
        answer = self._transact(
            {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["other_config"]},
            {"op": "select", "table": "Bridge", "where": [["name", "==", bridge]], "columns": ["external_ids"]},
        )
        rows = answer[0]["rows"]
        other_config = dict(rows[0]["other_config"][1]) if rows else {}
        found = answer[1]["rows"]
        return Switch(other_config, dict(found[0]["external_ids"][1]) if found else None)

    def has_controller(self, bridge: str) -> bool:
        """Whether a controller was set for the bridge, which has its flows in hand then."""
        where = [["name", "==", bridge]]
        [answer] = self._transact({"op": "select", "table": "Bridge", "where": where, "columns": ["controller"]})
        return any(_uuids(row["controller"]) for row in answer["rows"])

    def has_daemon(self) -> bool:
        """Whether a vswitchd serves the database: it holds the lock of its name (RFC 7047 section 4.1.8)."""
        answer = self._result(self._send("lock", ["ovs_vswitchd"]))
        if answer["locked"]:
            self._result(self._send("unlock", ["ovs_vswitchd"]))
        return not answer["locked"]

    def _transact(self, *operations: dict[str, Any]) -> list[Any]:
        return self.finish(self._begin(*operations))

    def _begin(self, *operations: dict[str, Any]) -> int:
        """Send a transaction: several may be under way, and one that waits is overtaken by later ones."""
        return self._send("transact", ["Open_vSwitch", *operations])

    def _send(self, method: str, parameters: list[Any]) -> int:
        self._identifier += 1
        request = {"method": method, "params": parameters, "id": self._identifier}
        try:
            self._socket.sendall(dumps(request).encode())
        except OSError as error:
            raise self._broken(error) from None
        return self._identifier

    def _result(self, identifier: int) -> Any:
        """The result of a request; what the server says unasked is passed over, but for its echoes."""
        try:
            while identifier not in self._answers:
                message = self._read_message()
                if message.get("method") == "echo":
                    self._socket.sendall(dumps({"id": message["id"], "result": [], "error": None}).encode())
                elif isinstance(message.get("id"), int):
                    self._answers[message["id"]] = message
        except OSError as error:
            raise self._broken(error) from None
        message = self._answers.pop(identifier)
        if message.get("error"):
            raise SwitchError(f"the OVSDB at {self._ovsdb} refuses: {message['error']}")
        return message["result"]

    def _broken(self, error: OSError) -> SwitchError:
        if isinstance(error, BlockingIOError):
            return SwitchError(f"the OVSDB at {self._ovsdb} does not answer in time")
        return SwitchError(f"the OVSDB at {self._ovsdb} broke off: {error.strerror}")

    def _read_message(self) -> dict[str, Any]:
        """One JSON object: they follow each other without a separator, so what is there is read until it is one."""
        while True:
            if self._unread.endswith(b"}"):
                value, self._unread = first_of(self._unread)
                if isinstance(value, dict):
                    return value
            received = self._socket.recv(1 << 20)
            if not received:
                raise OSError(104, "Connection reset by peer")
            self._unread += received


class NewPort:
    """A port that was asked for, and is awaited whatever happens, so that what undoes it comes after it."""

    __slots__ = ("_arguments", "_is_finished", "_ovsdb")

    def __init__(self, ovsdb: Ovsdb, *arguments: Any) -> None:
        self._ovsdb = ovsdb
        self._arguments = arguments
        self._is_finished = False

    def finish(self) -> int:
        """The port's number. Raises SwitchError, undone, if it gets none."""
        self._is_finished = True
        return self._ovsdb.finish_port(*self._arguments)

    def __enter__(self) -> NewPort:
        return self

    def __exit__(self, *_what: object) -> None:
        if not self._is_finished:
            try:
                self.finish()
            except SwitchError:
                return  # Whoever has not asked for the number has failed already, and says why.


def _map(pairs: dict[str, str]) -> list[Any]:
    return ["map", [[key, value] for key, value in pairs.items()]]


def _uuids(value: list[Any]) -> list[str]:
    """OVSDB writes a set of one as its element alone (RFC 7047 section 5.1)."""
    return [value[1]] if value[0] == "uuid" else [element[1] for element in value[1]]
