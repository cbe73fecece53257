# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Open_vSwitch database through Open vSwitch's own Python library, with one deadline for all requests together.

For modules, repair, and the creation of bridges. ADD and DEL use ``jsonrpc``, because the library's import takes 40 ms.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from .jsonrpc import OvsdbError

_DATABASE = "Open_vSwitch"

_COLUMNS = {
    "Open_vSwitch": ["bridges", "cur_cfg", "next_cfg", "other_config", "external_ids"],
    "Bridge": [
        "name", "ports", "datapath_type", "fail_mode", "stp_enable", "rstp_enable", "controller", "other_config",
        "external_ids",
    ],
    "Controller": ["target"],
    "Port": ["name", "interfaces"],
    "Interface": ["name", "type", "mtu", "mtu_request", "ofport", "error", "external_ids"],
}  # fmt: skip
"""The columns that the library keeps a copy of, by table."""


class OvsdbAbsentError(OvsdbError):
    """The node has no Open vSwitch yet: its library is not installed, or no server listens."""


class OvsdbTimeoutError(OvsdbError):
    """ovsdb-server or ovs-vswitchd has not answered in time."""


@contextlib.contextmanager
def connect(ovsdb: str, timeout: float) -> Iterator[Database]:
    """Connect for one piece of work, and disconnect at its end. ``timeout`` in seconds is for all of it.

    Raises OvsdbError, or OvsdbAbsentError where there is nothing to connect to.
    """
    database = Database(ovsdb, timeout)
    try:
        yield database
    finally:
        database.close()


class Database:
    """A copy of the database that the library keeps up to date, with one deadline for all requests together."""

    def __init__(self, ovsdb: str, timeout: float) -> None:
        """Connect and wait for the content. Raises as ``connect``."""
        # Rare path: modules must work in check mode before the library is installed.
        try:
            import ovs.db.idl
            import ovs.jsonrpc
            import ovs.poller
            import ovs.stream
        except ImportError as error:
            raise OvsdbAbsentError("talking to Open vSwitch needs its library: install python3-openvswitch") from error
        self._ovs = ovs
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self.ovsdb = ovsdb
        self._committed = 0
        helper = ovs.db.idl.SchemaHelper(None, self._fetch_schema())
        for table, columns in _COLUMNS.items():
            helper.register_columns(table, columns)
        self._idl = ovs.db.idl.Idl(ovsdb, helper)
        self.tables: Any = self._idl.tables
        self.wait(self._idl.has_ever_connected, "has not sent its content")

    def close(self) -> None:
        """Close the connection."""
        self._idl.close()

    def extend_deadline(self, seconds: float) -> None:
        """Let the deadline be at least so many seconds from now, for what must be done however late it is."""
        self._deadline = max(self._deadline, time.monotonic() + seconds)

    @property
    def root(self) -> Any:
        """The only row of the table Open_vSwitch. Raises OvsdbError where there is none."""
        for row in self._idl.tables["Open_vSwitch"].rows.values():
            return row
        raise OvsdbError(
            f"the database at {self.ovsdb} is empty: is ovs-vswitchd running? systemctl restart ovs-vswitchd starts it"
        )

    def commit(self, fill: Callable[[Any], None]) -> None:
        """Let ``fill`` change rows in a transaction, and commit it. Raises OvsdbError.

        ``fill`` is called again if another client has changed, since they were read, rows that it changes.
        """
        transaction_type = self._ovs.db.idl.Transaction
        while True:
            transaction = transaction_type(self._idl)
            transaction.add_comment("evio.cni")
            fill(transaction)
            self.root.increment("next_cfg")
            status = transaction.commit()
            while status == transaction_type.INCOMPLETE:
                self._turn("has not answered the transaction")
                status = transaction.commit()
            if status == transaction_type.SUCCESS:
                self._committed = transaction.get_increment_new_value()
            if status in (transaction_type.SUCCESS, transaction_type.UNCHANGED):
                return
            if status != transaction_type.TRY_AGAIN:
                raise OvsdbError(f"the OVSDB at {self.ovsdb} refuses the change: {transaction.get_error()}")
            self._turn("has not sent what changed meanwhile")

    def await_switch(self) -> None:
        """Wait until vswitchd has applied all that was committed. Raises OvsdbTimeoutError."""
        complaint = "has not taken up the change: is ovs-vswitchd running?"
        self.wait(lambda: bool(self.root.cur_cfg >= self._committed), complaint)

    def wait(self, condition: Callable[[], bool], complaint: str) -> None:
        """Wait until the condition holds. Raises OvsdbTimeoutError with the complaint at the deadline."""
        self._idl.run()
        while not condition():
            self._turn(complaint)

    def _fetch_schema(self) -> Any:
        ovs, remaining = self._ovs, max(int((self._deadline - time.monotonic()) * 1000), 1)
        error, stream = ovs.stream.Stream.open_block(ovs.stream.Stream.open(self.ovsdb), remaining)
        if error:
            kind = OvsdbAbsentError if error in (errno.ENOENT, errno.ECONNREFUSED) else OvsdbError
            raise kind(
                f"the OVSDB at {self.ovsdb} does not answer ({os.strerror(error)}): is ovsdb-server running? "
                "systemctl start openvswitch-switch starts it"
            )
        connection = ovs.jsonrpc.Connection(stream)
        try:
            request = ovs.jsonrpc.Message.create_request("get_schema", [_DATABASE])
            error = connection.send(request)
            while not error:
                error, message = connection.recv()
                if message is not None and message.id == request.id:
                    return message.result
                if error == errno.EAGAIN:
                    error = 0
                    poller = ovs.poller.Poller()
                    connection.run()
                    connection.wait(poller)
                    connection.recv_wait(poller)
                    self._block(poller, "has not sent its schema")
            raise OvsdbError(f"the OVSDB at {self.ovsdb} does not answer ({os.strerror(abs(error))})")
        finally:
            connection.close()

    def _turn(self, complaint: str) -> None:
        """Let the library work until OVSDB sends something or 20 ms pass: a condition may depend on the kernel too."""
        poller = self._ovs.poller.Poller()
        self._idl.wait(poller)
        self._block(poller, complaint)
        self._idl.run()

    def _block(self, poller: Any, complaint: str) -> None:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise OvsdbTimeoutError(f"Open vSwitch at {self.ovsdb} {complaint} (waited {self._timeout:g} s)")
        poller.timer_wait(min(int(remaining * 1000) + 1, 20))
        poller.block()


def assign(row: Any, column: str, value: Any) -> None:
    """Set a column if its value differs, on condition that it is still the value that was read.

    The library sends every column that is set, also to an equal value.
    """
    current = getattr(row, column, None)  # A new row has no values.
    if (current[0] if isinstance(current, list) and current and not isinstance(value, list) else current) != value:
        if current is not None:
            row.verify(column)
        setattr(row, column, value)
