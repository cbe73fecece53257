# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A connection to OVSDB (RFC 7047) and its transactions, several of which may be under way at once.

For the plugin's ADD, DEL, CHECK and STATUS; what makes bridges uses the library (ovsdb), whose import takes 40 ms.
"""

from __future__ import annotations

import _socket
from _struct import pack

from ..errors import EvioError
from ..fast_json import dumps, first_of
from .external_ids import OWNER, OWNER_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OWNED = ["external_ids", "includes", ["map", [[OWNER_ID, OWNER]]]]
"""The condition (RFC 7047 section 5.1) that only what is ours meets."""
_AF_UNIX, _SOCK_STREAM, _SOCK_CLOEXEC = 1, 1, 0o2000000
_SOL_SOCKET, _SO_RCVTIMEO, _SO_SNDTIMEO = 1, 20, 21


class OvsdbError(EvioError):
    """OVSDB or vswitchd does not answer in time, or refuses a request."""


class OvsdbClient:
    """A connection to the server at ``unix:PATH``; ``timeout`` in seconds counts for each answer."""

    def __init__(self, ovsdb: str, timeout: int = 10) -> None:
        self._ovsdb = ovsdb
        if not ovsdb.startswith("unix:"):
            raise OvsdbError(f"ovsdb: {ovsdb!r} is not the path of a socket, as in unix:/var/run/openvswitch/db.sock")
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
            raise OvsdbError(
                f"the OVSDB at {ovsdb} does not answer ({error.strerror}): is ovsdb-server running?"
            ) from None

    def __enter__(self) -> OvsdbClient:
        return self

    def __exit__(self, *_what: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def wait(self, identifier: int, *, check: bool = True) -> list[Any]:
        """The results of a transaction, one an operation. Raises OvsdbError, if not told otherwise for a refusal."""
        result: list[Any] = self._result(identifier)
        failures = [one for one in result if one and one.get("error")]
        if failures and check:
            raise OvsdbError(
                f"the OVSDB at {self._ovsdb} refuses: {failures[0]['error']} {failures[0].get('details', '')}".rstrip()
            )
        return result

    def transact(self, *operations: dict[str, Any]) -> list[Any]:
        """Carry out a transaction. The results, one an operation; raises OvsdbError."""
        return self.wait(self.begin(*operations))

    def begin(self, *operations: dict[str, Any]) -> int:
        """Send a transaction, for ``wait``: several may be under way, and later ones overtake one that waits."""
        return self._send("transact", ["Open_vSwitch", *operations])

    def ask(self, method: str, *parameters: Any) -> Any:
        """The result of a request that is no transaction. Raises OvsdbError."""
        return self._result(self._send(method, list(parameters)))

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
            raise OvsdbError(f"the OVSDB at {self._ovsdb} refuses: {message['error']}")
        return message["result"]

    def _broken(self, error: OSError) -> OvsdbError:
        if isinstance(error, BlockingIOError):
            return OvsdbError(f"the OVSDB at {self._ovsdb} does not answer in time")
        return OvsdbError(f"the OVSDB at {self._ovsdb} broke off: {error.strerror}")

    def _read_message(self) -> dict[str, Any]:
        """One JSON object: they follow each other without a separator, so what is there is read until it is one."""
        while True:
            if self._unread.endswith(b"}"):
                value, self._unread = first_of(self._unread)
                if isinstance(value, dict):
                    return value
            received = self._socket.recv(1 << 16)
            if not received:
                raise OSError(104, "Connection reset by peer")
            self._unread += received


def ovsdb_map(pairs: dict[str, str]) -> list[Any]:
    return ["map", [[key, value] for key, value in pairs.items()]]


def uuids(value: list[Any]) -> list[str]:
    """Of a set of references: OVSDB writes a set of one as its element alone (RFC 7047 section 5.1)."""
    return [value[1]] if value[0] == "uuid" else [element[1] for element in value[1]]
