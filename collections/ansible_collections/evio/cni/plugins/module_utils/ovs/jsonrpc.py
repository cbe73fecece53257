# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A client of ovsdb-server (RFC 7047) for the CNI verbs: transactions, several of which can be under way at once.

Modules, repair and the creation of bridges use ``idl``, on Open vSwitch's own library, whose import takes 40 ms.
"""

from __future__ import annotations

from time import monotonic

from ..deadline import seconds_left
from ..errors import EvioError
from ..fast_json import dumps, first_of
from ..kernel.numbers import ECONNRESET
from ..kernel.unix_socket import connect_unix, receive
from .external_ids import OWNER, OWNER_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OWNED = ["external_ids", "includes", ["map", [[OWNER_ID, OWNER]]]]
"""A condition (RFC 7047 section 5.1) that only our rows meet."""


class OvsdbError(EvioError):
    """ovsdb-server or ovs-vswitchd does not answer in time, or refuses a request."""


_LONGEST_MESSAGE = 64 << 20
"""Bytes. The ports of 10 000 pods take 6 MB."""


class OvsdbClient:
    """A connection to the server at ``unix:PATH``.

    ``timeout`` in seconds limits each send, and the wait for each answer; within a call of the runtime, what the call
    has left does.
    """

    def __init__(self, ovsdb: str, timeout: float = 10) -> None:
        """Connect. Raises OvsdbError."""
        self._ovsdb = ovsdb
        self._timeout = timeout
        if not ovsdb.startswith("unix:"):
            raise OvsdbError(f"ovsdb: {ovsdb!r} is not the path of a socket, as in unix:/var/run/openvswitch/db.sock")
        self._identifier = 0
        self._answers: dict[int, Any] = {}
        """Answers that were received while another one was waited for, by the request's id."""
        self._unread = b""
        try:
            self._socket = connect_unix(ovsdb[5:], seconds_left(timeout))
        except OSError as error:
            raise OvsdbError(
                f"the OVSDB at {ovsdb} does not answer ({error.strerror}): is ovsdb-server running? "
                "systemctl start openvswitch-switch starts it"
            ) from None

    def __enter__(self) -> OvsdbClient:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def transact(self, *operations: dict[str, Any]) -> list[Any]:
        """Carry out a transaction and return its results, one per operation. Raises OvsdbError."""
        return self.wait(self.begin(*operations))

    def begin(self, *operations: dict[str, Any]) -> int:
        """Send a transaction and return its id, for ``wait``. Raises OvsdbError.

        A transaction that contains an operation ``wait`` does not hold up transactions that are sent after it.
        """
        return self._send("transact", ["Open_vSwitch", *operations])

    def wait(self, identifier: int, *, check: bool = True) -> list[Any]:
        """Wait for a transaction and return its results, one per operation.

        Raises OvsdbError if the server does not answer or, unless ``check`` is false, refuses an operation.
        """
        results = self._result(identifier)
        if not isinstance(results, list) or not all(result is None or isinstance(result, dict) for result in results):
            raise self._nonsense()
        failures = [result for result in results if result and result.get("error")]
        if failures and check:
            raise OvsdbError(
                f"the OVSDB at {self._ovsdb} refuses: {failures[0]['error']} {failures[0].get('details', '')}".rstrip()
            )
        return results

    def ask(self, method: str, *parameters: Any) -> Any:
        """Send a request other than a transaction and return its result. Raises OvsdbError."""
        return self._result(self._send(method, list(parameters)))

    def _send(self, method: str, parameters: list[Any]) -> int:
        self._identifier += 1
        request = {"method": method, "params": parameters, "id": self._identifier}
        try:
            self._socket.sendall(dumps(request).encode())
        except OSError as error:
            raise self._connection_error(error) from None
        return self._identifier

    def _result(self, identifier: int) -> Any:
        """Return the result of a request. Echo requests are answered; other messages of the server are ignored."""
        deadline = monotonic() + seconds_left(self._timeout)
        try:
            while identifier not in self._answers:
                message = self._read_message(deadline)
                its_identifier = message.get("id")
                if message.get("method") == "echo":
                    self._socket.sendall(dumps({"id": its_identifier, "result": [], "error": None}).encode())
                elif isinstance(its_identifier, int) and 0 < its_identifier <= self._identifier:
                    self._answers[its_identifier] = message
                if monotonic() > deadline:
                    raise BlockingIOError
        except OSError as error:
            raise self._connection_error(error) from None
        message = self._answers.pop(identifier)
        if message.get("error"):
            raise OvsdbError(f"the OVSDB at {self._ovsdb} refuses: {message['error']}")
        return message.get("result")

    def _read_message(self, deadline: float) -> dict[str, Any]:
        """Return the next JSON object. Nothing separates objects, so it reads on until the text is a whole object."""
        while True:
            if self._unread.endswith(b"}"):
                try:
                    value, self._unread = first_of(self._unread)
                except RecursionError:
                    raise self._nonsense() from None
                if isinstance(value, dict):
                    return value
                if value is not None:
                    raise self._nonsense()
            if monotonic() > deadline:
                raise BlockingIOError
            received = receive(self._socket, deadline)
            if not received:
                raise OSError(ECONNRESET, "Connection reset by peer")
            self._unread += received
            if self._unread[:1] != b"{" and self._unread.strip()[:1] not in (b"", b"{"):
                raise self._nonsense()
            if len(self._unread) > _LONGEST_MESSAGE:
                raise self._nonsense()

    def _nonsense(self) -> OvsdbError:
        return OvsdbError(
            f"the OVSDB at {self._ovsdb} does not answer in OVSDB's protocol: is ovsdb-server behind that socket?"
        )

    def _connection_error(self, error: OSError) -> OvsdbError:
        if isinstance(error, BlockingIOError):
            return OvsdbError(f"the OVSDB at {self._ovsdb} does not answer in time")
        return OvsdbError(f"the OVSDB at {self._ovsdb} broke off: {error.strerror}")


def ovsdb_map(pairs: dict[str, str]) -> list[Any]:
    """Return an OVSDB map (RFC 7047 section 5.1)."""
    return ["map", [[key, value] for key, value in pairs.items()]]


def uuids(value: list[Any]) -> list[str]:
    """Return the UUIDs of a set of references. OVSDB writes a set with one element as that element alone."""
    return [value[1]] if value[0] == "uuid" else [element[1] for element in value[1]]
