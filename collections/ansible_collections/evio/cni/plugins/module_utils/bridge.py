# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Making the pod bridge: one function for the module, for repair, and for ADD when its quick check fails.

Open vSwitch is spoken to by the OVSDB protocol (library ``ovs``), addresses and links by netlink (``pyroute2``).
What a bridge shall be is the subject of bridge_spec.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from typing import Any

from . import paths
from .bridge_spec import OWNER, OWNER_ID, BridgeError, BridgeSpec, BridgeState, check_spec, compare
from .differences import Differences

_DATABASE = "Open_vSwitch"
_COLUMNS = {
    "Open_vSwitch": ["bridges", "cur_cfg", "next_cfg", "other_config"],
    "Bridge": [
        "name", "ports", "datapath_type", "fail_mode", "stp_enable", "rstp_enable", "other_config", "external_ids"
    ],
    "Port": ["name", "interfaces"],
    "Interface": ["name", "type", "mtu", "mtu_request", "ofport", "error", "external_ids"],
}  # fmt: skip
_LINK_LOCAL_SCOPE = 253
"""RT_SCOPE_LINK of linux/rtnetlink.h."""
_IFA_F_NODAD = 0x02
"""linux/if_addr.h: the address is ours alone, by the registry; it is used at once."""


def compare_bridge(spec: BridgeSpec, *, ovsdb: str = paths.OVSDB, timeout: float = 10.0) -> Differences:
    """How the bridge differs from the spec; nothing is changed. timeout in seconds."""
    check_spec(spec)
    with _connect(ovsdb, timeout) as database:
        return compare(spec, database.state(spec.name))


def ensure_bridge(spec: BridgeSpec, *, ovsdb: str = paths.OVSDB, timeout: float = 10.0) -> Differences:
    """Make the bridge as the spec says and return what differed before. Ports and what is not in the spec stay.

    Raises BridgeError where the OVSDB does not answer in time or vswitchd cannot make it: then a new bridge is undone.
    """
    check_spec(spec)
    with _connect(ovsdb, timeout) as database:
        state = database.state(spec.name)
        differences = compare(spec, state)
        if not differences.changed:
            return differences
        if state is None:
            _refuse_foreign_link(spec.name)
        database.write(spec)
        try:
            database.await_device(spec)
            _set_up_link(spec)
        except BridgeError:
            if state is None:
                database.extend_deadline()
                database.delete(spec.name)
            raise
        return differences


def remove_bridge(name: str, *, ovsdb: str = paths.OVSDB, timeout: float = 10.0, dry_run: bool = False) -> bool:
    """Remove a bridge of ours; False where there is none. Raises BridgeError for one that is somebody else's."""
    with _connect(ovsdb, timeout) as database:
        state = database.state(name)
        if state is None:
            return False
        if state.external_ids.get(OWNER_ID) != OWNER:
            raise BridgeError(
                f"bridge {name} was not made by {OWNER} (external_ids:{OWNER_ID} is not set); it is left alone"
            )
        if not dry_run:
            database.delete(name)
        return True


def _refuse_foreign_link(name: str) -> None:
    """A netdev bridge leaves its TAP behind when its database is lost: that one is taken up again, any other is not."""
    link = _read_link(name)
    if link is not None and link.kind != "tun":
        raise BridgeError(
            f"a network interface {name} is there that is no Open vSwitch bridge; remove it or take another name"
        )


@contextlib.contextmanager
def _connect(ovsdb: str, timeout: float) -> Iterator[_Database]:
    database = _Database(ovsdb, timeout)
    try:
        yield database
    finally:
        database.close()


class _Database:
    """The Open_vSwitch database as the library keeps it, with a deadline over all that is done in one go."""

    def __init__(self, ovsdb: str, timeout: float) -> None:
        try:
            import ovs.db.idl
            import ovs.jsonrpc
            import ovs.poller
            import ovs.stream
        except ImportError as error:
            raise BridgeError("talking to Open vSwitch needs its library: install python3-openvswitch") from error
        self._ovs = ovs
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._ovsdb = ovsdb
        helper = ovs.db.idl.SchemaHelper(None, self._fetch_schema())
        for table, columns in _COLUMNS.items():
            helper.register_columns(table, columns)
        self._idl = ovs.db.idl.Idl(ovsdb, helper)
        self._wait(self._idl.has_ever_connected, "has not sent its content")

    def close(self) -> None:
        self._idl.close()

    def extend_deadline(self) -> None:
        """Start the time anew: what failed must be undone, however late it is."""
        self._deadline = time.monotonic() + self._timeout

    def state(self, name: str) -> BridgeState | None:
        row = self._bridge(name)
        if row is None:
            return None
        interface = self._own_interface(row)
        link = _read_link(name)
        return BridgeState(
            datapath_type=row.datapath_type or "system",
            mac=link.mac if link and row.other_config.get("hwaddr") else row.other_config.get("hwaddr"),
            mtu=link.mtu if link else None,
            external_ids=dict(row.external_ids),
            fail_mode=row.fail_mode[0] if row.fail_mode else None,
            spanning_tree=row.stp_enable or row.rstp_enable,
            addresses=link.addresses if link else frozenset(),
            is_up=bool(link and link.is_up),
            error=interface.error[0] if interface is not None and interface.error else None,
        )

    def write(self, spec: BridgeSpec) -> None:
        """Make or change the bridge's rows, as one transaction that vswitchd has taken up when this returns."""

        def fill(transaction: Any) -> None:
            row = self._bridge(spec.name) or self._insert(transaction, spec.name)
            interface = self._own_interface(row)
            _assign(row, "datapath_type", "" if spec.datapath_type == "system" else spec.datapath_type)
            _assign(row, "fail_mode", "standalone")
            _assign(row, "stp_enable", False)
            _assign(row, "rstp_enable", False)
            if spec.fixed_mac is not None:
                _assign(row, "other_config", {**getattr(row, "other_config", {}), "hwaddr": spec.fixed_mac})
            _assign(row, "external_ids", {**getattr(row, "external_ids", {}), **spec.external_ids})
            if spec.mtu is not None:
                _assign(interface, "mtu_request", spec.mtu)

        self._commit(fill)

    def delete(self, name: str) -> None:
        def fill(_: Any) -> None:
            row = self._bridge(name)
            self._root.bridges = [bridge for bridge in self._root.bridges if bridge != row]

        self._commit(fill)

    def await_device(self, spec: BridgeSpec) -> None:
        """Return once the bridge's device is there with its number and MTU."""

        def is_there() -> bool:
            row = self._bridge(spec.name)
            interface = self._own_interface(row) if row is not None else None
            if interface is None:
                return False
            if interface.error:
                raise BridgeError(f"Open vSwitch cannot make the bridge {spec.name}: {interface.error[0]}")
            link = _read_link(spec.name)
            return bool(interface.ofport) and link is not None and spec.mtu in (None, link.mtu)

        hint = ""
        if spec.datapath_type == "system":
            hint = "; has this kernel the module openvswitch? without it, take datapath_type netdev"
        self._wait(is_there, f"has not made the device of bridge {spec.name}{hint}")

    @property
    def _root(self) -> Any:
        for row in self._idl.tables["Open_vSwitch"].rows.values():
            return row
        raise BridgeError(f"the database at {self._ovsdb} is empty: is ovs-vswitchd running?")

    def _bridge(self, name: str) -> Any:
        return next((row for row in self._idl.tables["Bridge"].rows.values() if row.name == name), None)

    @staticmethod
    def _own_interface(row: Any) -> Any:
        own = (port for port in row.ports if port.name == row.name)
        return next((interface for port in own for interface in port.interfaces), None)

    def _insert(self, transaction: Any, name: str) -> Any:
        interface = transaction.insert(self._idl.tables["Interface"])
        interface.name, interface.type = name, "internal"
        port = transaction.insert(self._idl.tables["Port"])
        port.name, port.interfaces = name, [interface]
        bridge = transaction.insert(self._idl.tables["Bridge"])
        bridge.name, bridge.ports = name, [port]
        self._root.bridges = [*self._root.bridges, bridge]
        return bridge

    def _commit(self, fill: Callable[[Any], None]) -> None:
        transaction_type = self._ovs.db.idl.Transaction
        while True:
            transaction = transaction_type(self._idl)
            transaction.add_comment("evio.cni")
            fill(transaction)
            self._root.increment("next_cfg")
            status = transaction.commit()
            while status == transaction_type.INCOMPLETE:
                self._turn("has not answered the transaction")
                status = transaction.commit()
            if status != transaction_type.TRY_AGAIN:
                break
            self._turn("has not sent what changed meanwhile")
        if status not in (transaction_type.SUCCESS, transaction_type.UNCHANGED):
            raise BridgeError(f"the OVSDB at {self._ovsdb} refuses the change: {transaction.get_error()}")
        wanted = transaction.get_increment_new_value() if status == transaction_type.SUCCESS else 0
        self._wait(lambda: self._root.cur_cfg >= wanted, "has not taken up the change: is ovs-vswitchd running?")

    def _fetch_schema(self) -> Any:
        ovs, remaining = self._ovs, max(int((self._deadline - time.monotonic()) * 1000), 1)
        error, stream = ovs.stream.Stream.open_block(ovs.stream.Stream.open(self._ovsdb), remaining)
        if error:
            raise BridgeError(
                f"the OVSDB at {self._ovsdb} does not answer ({os.strerror(error)}): is ovsdb-server running?"
            )
        connection = ovs.jsonrpc.Connection(stream)
        try:
            request = ovs.jsonrpc.Message.create_request("get_schema", [_DATABASE])
            error = connection.send(request)
            while not error:
                error, message = connection.recv()
                if message is not None and message.id == request.id:
                    return message.result
                if error == _EAGAIN:
                    error = 0
                    poller = ovs.poller.Poller()
                    connection.run()
                    connection.wait(poller)
                    connection.recv_wait(poller)
                    self._block(poller, "has not sent its schema")
            raise BridgeError(f"the OVSDB at {self._ovsdb} does not answer ({os.strerror(abs(error))})")
        finally:
            connection.close()

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        self._idl.run()
        while not condition():
            self._turn(complaint)

    def _turn(self, complaint: str) -> None:
        """Let the library work until something comes or a little time has passed (a link is not announced by OVSDB)."""
        poller = self._ovs.poller.Poller()
        self._idl.wait(poller)
        self._block(poller, complaint)
        self._idl.run()

    def _block(self, poller: Any, complaint: str) -> None:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise BridgeError(f"Open vSwitch at {self._ovsdb} {complaint} (waited {self._timeout:g} s)")
        poller.timer_wait(min(int(remaining * 1000) + 1, 20))
        poller.block()


_EAGAIN = 11


def _assign(row: Any, column: str, value: Any) -> None:
    """Only what differs is written: the library sends every column that is assigned to. A new row has none yet."""
    current = getattr(row, column, None)
    if isinstance(current, list):
        current = current[0] if current else None
    if current != value:
        setattr(row, column, value)


class _Link:
    """The bridge's own network device."""

    def __init__(self, message: Any, addresses: frozenset[str]) -> None:
        self.index: int = message["index"]
        self.mac: str = message.get_attr("IFLA_ADDRESS")
        self.mtu: int = message.get_attr("IFLA_MTU")
        self.is_up = bool(message["flags"] & 1)
        info = message.get_attr("IFLA_LINKINFO")
        self.kind: str | None = info.get_attr("IFLA_INFO_KIND") if info else None
        self.addresses = addresses


@contextlib.contextmanager
def _netlink() -> Iterator[Any]:
    try:
        from pyroute2 import IPRoute
    except ImportError as error:
        raise BridgeError("setting up links needs the library pyroute2: install python3-pyroute2") from error
    with IPRoute() as netlink:
        yield netlink


def _read_link(name: str) -> _Link | None:
    with _netlink() as netlink:
        found = netlink.link_lookup(ifname=name)
        if not found:
            return None
        [message] = netlink.get_links(found[0])
        addresses = frozenset(
            f"{address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}"
            for address in netlink.get_addr(index=found[0])
            if address["scope"] != _LINK_LOCAL_SCOPE
        )
        return _Link(message, addresses)


def _set_up_link(spec: BridgeSpec) -> None:
    """Addresses and state: wanted ones first, then those of an earlier subnet go."""
    link = _read_link(spec.name)
    if link is None:
        raise BridgeError(
            f"the device of bridge {spec.name} has gone while it was set up; is another program at work on it?"
        )
    wanted = {str(ip_interface(gateway)) for gateway in spec.gateways}
    with _netlink() as netlink:
        try:
            if not link.is_up:
                netlink.link("set", index=link.index, state="up")
            for address in sorted(wanted - link.addresses):
                _change_address(netlink, "add", link.index, address)
            for address in sorted(link.addresses - wanted):
                _change_address(netlink, "del", link.index, address)
        except _netlink_error() as error:
            raise BridgeError(f"cannot set up the addresses of bridge {spec.name}: {error}") from error


def _change_address(netlink: Any, command: str, index: int, address: str) -> None:
    interface = ip_interface(address)
    flags = {"flags": _IFA_F_NODAD} if interface.version == 6 and command == "add" else {}
    netlink.addr(command, index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **flags)


def _netlink_error() -> Any:
    from pyroute2.netlink.exceptions import NetlinkError

    return NetlinkError
