# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The OVSDB protocol (RFC 7047) as far as a pod's port needs it: one connection, one transaction, one wait.

For the plugin's ADD, DEL, CHECK and STATUS; what makes bridges uses the library (ovsdb), whose import takes 40 ms.
"""

from __future__ import annotations

import _socket
from _struct import pack

from .errors import EvioError
from .ownership import OWNER, OWNER_ID
from .plain_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_AF_UNIX, _SOCK_STREAM, _SOCK_CLOEXEC = 1, 1, 0o2000000
_SOL_SOCKET, _SO_RCVTIMEO, _SO_SNDTIMEO = 1, 20, 21


class SwitchError(EvioError):
    """The OVSDB server does not answer, or refuses."""


class Port:
    """One of our ports as the database has it."""

    __slots__ = ("bridged", "error", "external_ids", "name", "ofport")

    def __init__(self, name: str, external_ids: dict[str, str], ofport: int, error: str, bridged: bool) -> None:
        self.name = name
        self.external_ids = external_ids
        self.ofport = ofport
        """-1 where vswitchd could not open it, 0 where it has not tried."""
        self.error = error
        self.bridged = bridged
        """Whether it is a port of the bridge that was asked for."""


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
        self._unread = b""
        try:
            self._socket.connect(ovsdb[5:])
        except OSError as error:
            self._socket.close()
            raise SwitchError(
                f"the OVSDB at {ovsdb} does not answer ({error.strerror}): is ovsdb-server running?"
            ) from None

    def close(self) -> None:
        self._socket.close()

    def add_port(self, bridge: str, name: str, external_ids: dict[str, str]) -> int:
        """Plug a device into the bridge and return its number, awaited. Raises SwitchError, undone, if it gets none."""
        interface = {"name": name, "external_ids": ["map", [[key, value] for key, value in external_ids.items()]]}
        port = {"name": name, "interfaces": ["named-uuid", "interface"]}
        self._transact(
            {"op": "insert", "table": "Interface", "row": interface, "uuid-name": "interface"},
            {"op": "insert", "table": "Port", "row": port, "uuid-name": "port"},
            {
                "op": "mutate",
                "table": "Bridge",
                "where": [["name", "==", bridge]],
                "mutations": [["ports", "insert", ["named-uuid", "port"]]],
            },
            _NEXT_CFG,
        )
        try:
            return self._await_number(name)
        except SwitchError:
            self.delete_ports([name])
            raise

    def _await_number(self, name: str) -> int:
        where = [["name", "==", name]]
        answer = self._transact(
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
            errors=False,
        )
        if len(answer) < 2 or answer[0].get("error"):
            raise SwitchError(f"Open vSwitch has not taken up the port {name} within 5 s: is ovs-vswitchd running?")
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
            {"op": "select", "table": "Port", "where": [], "columns": ["_uuid", "interfaces"]},
        )
        members = {uuid for row in answer[1]["rows"] for uuid in _uuids(row["ports"])}
        bridged = {
            uuid for row in answer[2]["rows"] if row["_uuid"][1] in members for uuid in _uuids(row["interfaces"])
        }
        return [
            Port(
                row["name"],
                dict(row["external_ids"][1]),
                row["ofport"] if isinstance(row["ofport"], int) else 0,
                row["error"] if isinstance(row["error"], str) else "",
                row["_uuid"][1] in bridged,
            )
            for row in answer[0]["rows"]
        ]

    def port(self, bridge: str, name: str) -> Port | None:
        """Our port of this name, or None."""
        found = self.ports(bridge, [["name", "==", name]])
        return found[0] if found else None

    def delete_ports(self, names: list[str]) -> list[str]:
        """Unplug those of these ports that are ours, in one transaction, and return their names."""
        if not names:
            return []
        owned = ["external_ids", "includes", ["map", [[OWNER_ID, OWNER]]]]
        found = self._transact(
            *(
                {
                    "op": "select",
                    "table": "Interface",
                    "where": [["name", "==", name], owned],
                    "columns": ["_uuid", "name"],
                }
                for name in names
            )
        )
        ours = [row["name"] for one in found for row in one["rows"]]
        if not ours:
            return []
        ports = self._transact(
            *({"op": "select", "table": "Port", "where": [["name", "==", name]], "columns": ["_uuid"]} for name in ours)
        )
        removals = [
            {
                "op": "mutate",
                "table": "Bridge",
                "where": [["ports", "includes", row["_uuid"]]],
                "mutations": [["ports", "delete", row["_uuid"]]],
            }
            for one in ports
            for row in one["rows"]
        ]
        self._transact(*removals, _NEXT_CFG)
        return ours

    def switch(self, bridge: str) -> tuple[dict[str, str], dict[str, Any] | None]:
        """The switch's other_config, and the bridge's datapath_type and external_ids, or None without a bridge."""
        answer = self._transact(
            {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["other_config"]},
            {
                "op": "select",
                "table": "Bridge",
                "where": [["name", "==", bridge]],
                "columns": ["datapath_type", "external_ids"],
            },
        )
        rows = answer[0]["rows"]
        other_config = dict(rows[0]["other_config"][1]) if rows else {}
        found = answer[1]["rows"]
        if not found:
            return other_config, None
        return other_config, {**found[0], "external_ids": dict(found[0]["external_ids"][1])}

    def has_daemon(self) -> bool:
        """Whether a vswitchd serves the database: it holds the lock of its name (RFC 7047 section 4.1.8)."""
        answer = self._request("lock", ["ovs_vswitchd"])
        if answer["locked"]:
            self._request("unlock", ["ovs_vswitchd"])
        return not answer["locked"]

    def _transact(self, *operations: dict[str, Any], errors: bool = True) -> list[Any]:
        result: list[Any] = self._request("transact", ["Open_vSwitch", *operations])
        failures = [one for one in result if one and one.get("error")]
        if failures and errors:
            raise SwitchError(
                f"the OVSDB at {self._ovsdb} refuses: {failures[0]['error']} {failures[0].get('details', '')}".rstrip()
            )
        return result

    def _request(self, method: str, parameters: list[Any]) -> Any:
        """One request and its result; what the server says unasked is passed over, but for its echoes."""
        self._identifier += 1
        request = {"method": method, "params": parameters, "id": self._identifier}
        try:
            self._socket.sendall(dumps(request).encode())
            while True:
                message = loads(self._read_message())
                if message.get("method") == "echo":
                    self._socket.sendall(dumps({"id": message["id"], "result": [], "error": None}).encode())
                elif message.get("id") == self._identifier:
                    break
        except BlockingIOError:
            raise SwitchError(f"the OVSDB at {self._ovsdb} does not answer in time") from None
        except OSError as error:
            raise SwitchError(f"the OVSDB at {self._ovsdb} broke off: {error.strerror}") from None
        if message.get("error"):
            raise SwitchError(f"the OVSDB at {self._ovsdb} refuses: {message['error']}")
        return message["result"]

    def _read_message(self) -> str:
        """One JSON text: messages follow each other without a separator, so braces are counted outside strings."""
        depth, at, quoted, escaped = 0, 0, False, False
        while True:
            while at < len(self._unread):
                byte = self._unread[at]
                at += 1
                if escaped:
                    escaped = False
                elif quoted:
                    escaped, quoted = byte == 0x5C, byte != 0x22
                elif byte == 0x22:
                    quoted = True
                elif byte == 0x7B:
                    depth += 1
                elif byte == 0x7D:
                    depth -= 1
                    if depth == 0:
                        text, self._unread = self._unread[:at], self._unread[at:]
                        return text.decode()
            received = self._socket.recv(1 << 16)
            if not received:
                raise OSError(104, "Connection reset by peer")
            self._unread += received


_NEXT_CFG = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}


def _uuids(value: list[Any]) -> list[str]:
    """OVSDB writes a set of one as its element alone (RFC 7047 section 5.1)."""
    return [value[1]] if value[0] == "uuid" else [element[1] for element in value[1]]
