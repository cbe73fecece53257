# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make, compare, release and remove the pod bridge: for the module ovs_bridge, for repair, and for ADD's rare path.

The functions here work on OVSDB. ``bridge_device`` does what the kernel must be told by netlink, and ``bridge_spec``
says what the bridge must be.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from ipaddress import ip_interface
from typing import Any

from .. import paths
from ..defaults import OVS_TIMEOUT
from ..differences import Differences
from ..errors import EvioError
from ..firewall import forwarding
from ..kernel.sysctl import read_sysctls, write_sysctls
from .bridge_device import clear_addresses, read_link, set_up_link
from .bridge_spec import FAIL_MODE, BridgeError, BridgeSpec, BridgeState, check_spec, compare
from .external_ids import BORROWED_ID, EPOCH_ID, OWNER, OWNER_ID, RAISED_ID
from .flows import add_normal_flow, clear_steering, has_no_flows, read_flows, restore_flows
from .idl import Database, OvsdbTimeoutError, assign, connect
from .jsonrpc import OvsdbError
from .openflow import OpenFlowError

_ANSWER_SECONDS = 2.0
"""How long a call waits for Open vSwitch even if it has no time left: for the device of a bridge that vswitchd knows by
now, and for the deletion of a bridge that cannot be made."""


def compare_bridge(
    spec: BridgeSpec, *, ovsdb: str = paths.OVSDB, timeout: float = OVS_TIMEOUT, must_exist: bool = False
) -> Differences:
    """Return how the bridge differs from the spec, and change nothing. Parameters and errors as for ensure_bridge."""
    check_spec(spec)
    with connect(ovsdb, timeout) as database:
        return compare(spec, _read_state(database, spec, must_exist))


def ensure_bridge(
    spec: BridgeSpec, *, ovsdb: str = paths.OVSDB, timeout: float = OVS_TIMEOUT, must_exist: bool = False
) -> Differences:
    """Make the bridge as the spec says, and return what differed before. Ports and all that the spec leaves open stay.

    A bridge without our mark is somebody else's: it is given the gateways, and a spec that asks for another change is
    refused. ``timeout`` in seconds. Raises an EvioError where Open vSwitch does not answer in time, vswitchd cannot
    make the bridge, or the kernel refuses a setting. A bridge that was created by this call is deleted then, unless
    Open vSwitch is only slow: it goes on meanwhile, and the next call takes up what it has made. With ``must_exist`` a
    missing bridge is an error too.
    """
    check_spec(spec)
    with connect(ovsdb, timeout) as database:
        state = _read_state(database, spec, must_exist)
        differences = compare(spec, state)
        if not differences.changed:
            return differences
        if state is not None and spec.changes_only_gateways(state.external_ids):
            _lend(database, spec, state)
            return differences
        if state is None:
            _refuse_foreign_link(spec.name)
        # A change of the fail mode makes vswitchd forget all flows.
        flows = read_flows(ovsdb, spec.name) if "fail_mode" in differences and state is not None else []
        is_created_here = _write_rows(database, spec)
        try:
            database.await_switch()
            if flows:
                restore_flows(ovsdb, spec.name, flows)
            _await_device(database, spec)
            # A bridge that an earlier call has only begun may have no flow yet.
            if is_created_here or not _forwards(database, _bridge_row(database, spec.name)):
                add_normal_flow(ovsdb, spec.name)
            # Before the device is up: then it gets its link-local address.
            write_sysctls(_existing_link_sysctls(spec))
            set_up_link(spec.name, spec.gateways, spec.routes)
            write_sysctls({**spec.node_sysctls, **_existing_link_sysctls(spec)})
            if spec.gateways:
                forwarding.accept(_forwarding_needs(spec))
        except EvioError as error:
            if is_created_here and not isinstance(error, (OvsdbTimeoutError, OpenFlowError)):
                database.extend_deadline(_ANSWER_SECONDS)
                with contextlib.suppress(OvsdbError):
                    _delete(database, spec.name)
            raise
        return differences


def remove_bridge(
    name: str, *, ovsdb: str = paths.OVSDB, timeout: float = OVS_TIMEOUT, dry_run: bool = False, only_ours: bool = True
) -> bool:
    """Remove a bridge; return False where there is none. Raises EvioError.

    With ``only_ours``, a bridge without our mark (OWNER_ID) is not removed: BridgeError.
    """
    with connect(ovsdb, timeout) as database:
        row = _bridge_row(database, name)
        if row is None:
            return False
        if only_ours and not _is_ours(row):
            raise BridgeError(
                f"bridge {name} was not made by {OWNER} (external_ids:{OWNER_ID} is not set); it is left alone"
            )
        if not dry_run:
            _delete(database, name)
            database.await_switch()
            forwarding.withdraw(name)
        return True


def release_bridge(name: str, *, ovsdb: str = paths.OVSDB, timeout: float = OVS_TIMEOUT, dry_run: bool = False) -> bool:
    """Take our gateways, marks and firewall rules off a bridge that somebody else has made, and keep the bridge.

    Of a bridge that an earlier version has marked as ours, all configured addresses are taken off. Returns False where
    there is no such bridge, or it has neither gateways nor marks of ours. Raises EvioError.
    """
    with connect(ovsdb, timeout) as database:
        row = _bridge_row(database, name)
        if row is None or not (_is_ours(row) or BORROWED_ID in row.external_ids):
            return False
        if not dry_run:
            borrowed = row.external_ids.get(BORROWED_ID)
            ours = None if borrowed is None else borrowed.split(",")
            clear_addresses(name, ours, set_down=row.external_ids.get(RAISED_ID) == "true")
            clear_steering(ovsdb, name)
            database.commit(lambda _transaction: _give_back(_bridge_row(database, name)))
            forwarding.withdraw(name)
        return True


def blocking_chains(spec: BridgeSpec) -> list[forwarding.Blocked]:
    """Return the chains of the node's firewalls that drop packets of the bridge's pods, each with its remedy."""
    return forwarding.blocked(_forwarding_needs(spec))


def unplug_ports(
    names: Iterable[str], *, ovsdb: str = paths.OVSDB, timeout: float = OVS_TIMEOUT, dry_run: bool = False
) -> list[str]:
    """Remove ports of these names from all bridges, and return the names that were there. The devices stay.

    Raises OvsdbError.
    """
    unwanted = set(names)

    def fill(_transaction: Any) -> None:
        for row in database.tables["Bridge"].rows.values():
            if any(port.name in unwanted for port in row.ports):
                assign(row, "ports", [port for port in row.ports if port.name not in unwanted])

    with connect(ovsdb, timeout) as database:
        bridges = database.tables["Bridge"].rows.values()
        found = sorted(port.name for row in bridges for port in row.ports if port.name in unwanted)
        if found and not dry_run:
            database.commit(fill)
            database.await_switch()
        return found


def _forwarding_needs(spec: BridgeSpec) -> list[forwarding.Need]:
    return forwarding.pod_needs(spec.name, spec.gateways)


def _read_state(database: Database, spec: BridgeSpec, must_exist: bool) -> BridgeState | None:
    row = _bridge_row(database, spec.name)
    if row is None and must_exist:
        raise BridgeError(
            f"there is no bridge {spec.name}, which must exist already; check its name, or the program that makes it"
        )
    if row is None:
        return None
    link = read_link(spec.name)
    return BridgeState(
        datapath_type=row.datapath_type or "system",
        mac=link.mac if link and row.other_config.get("hwaddr") else row.other_config.get("hwaddr"),
        mtu=link.mtu if link else None,
        external_ids=dict(row.external_ids),
        fail_mode=row.fail_mode[0] if row.fail_mode else None,
        spanning_tree=row.stp_enable or row.rstp_enable,
        addresses=link.addresses if link else frozenset(),
        is_up=bool(link and link.is_up),
        routes=link.routes if link else {},
        networks=link.networks if link else frozenset(),
        # A setting that the kernel does not have for the device counts as wanted: see _existing_link_sysctls.
        sysctls={**spec.link_sysctls, **read_sysctls(spec.sysctls)} if link else {},
        is_forwarded=not forwarding.lacks_rules(_forwarding_needs(spec)),
        forwards=_forwards(database, row),
    )


def _forwards(database: Database, row: Any) -> bool:
    """Return whether the bridge has flows or pods' ports; repair installs the flows of these ports first."""
    return row is None or len(row.ports) > 1 or not has_no_flows(database.ovsdb, row.name)


def _refuse_foreign_link(name: str) -> None:
    """Raise BridgeError if another network device has the bridge's name.

    A bridge leaves a device behind when its database is lost, which Open vSwitch takes up again: ``netdev`` a tap
    device, ``system`` an internal port of the kernel's datapath.
    """
    link = read_link(name)
    if link is not None and link.kind not in ("tun", "openvswitch"):
        raise BridgeError(
            f"a network interface {name} is there that is no Open vSwitch bridge; remove it or take another name"
        )


def _write_rows(database: Database, spec: BridgeSpec) -> bool:
    """Create or change the bridge's rows in one transaction; return whether this transaction created the bridge."""
    is_created_here = False

    def fill(transaction: Any) -> None:
        nonlocal is_created_here
        row = _bridge_row(database, spec.name)
        is_created_here = row is None
        if row is None:
            row = _insert_bridge(database, transaction, spec.name)
        interface = _local_interface(row) or _insert_local_port(database, transaction, row)
        assign(row, "datapath_type", "" if spec.datapath_type == "system" else spec.datapath_type)
        assign(row, "fail_mode", FAIL_MODE)
        assign(row, "stp_enable", False)
        assign(row, "rstp_enable", False)
        if spec.fixed_mac is not None:
            assign(row, "other_config", {**getattr(row, "other_config", {}), "hwaddr": spec.fixed_mac})
        assign(row, "external_ids", {**getattr(row, "external_ids", {}), **spec.external_ids})
        if spec.mtu is not None:
            assign(interface, "mtu_request", spec.mtu)

    database.commit(fill)
    return is_created_here


def _lend(database: Database, spec: BridgeSpec, state: BridgeState) -> None:
    """Give the gateways to somebody else's bridge, and note on it what has to be taken away again. Raises EvioError."""
    wanted = {str(ip_interface(gateway)) for gateway in spec.gateways}
    # An earlier version has marked the bridge as ours: what it had of its own before is not known any more.
    kept = frozenset() if state.external_ids.get(OWNER_ID) == OWNER else state.addresses - state.borrowed
    notes = {BORROWED_ID: ",".join(sorted(wanted - kept))} if wanted - kept else {}
    if (wanted and not state.is_up) or RAISED_ID in state.external_ids:
        notes[RAISED_ID] = "true"

    def fill(_transaction: Any) -> None:
        row = _bridge_row(database, spec.name)
        if row is not None:
            assign(row, "external_ids", _without_marks(row.external_ids) | notes)

    # The note comes first: a run that is killed leaves no address of which nobody knows.
    database.commit(fill)
    if spec.gateways:
        set_up_link(spec.name, spec.gateways, spec.routes, removable=state.borrowed)
        write_sysctls(spec.node_sysctls)
        forwarding.accept(_forwarding_needs(spec))


def _await_device(database: Database, spec: BridgeSpec) -> None:
    """Wait until the device of a bridge that vswitchd has taken up exists, with its OpenFlow number and MTU.

    Raises BridgeError.
    """

    def is_ready() -> bool:
        row = _bridge_row(database, spec.name)
        interface = _local_interface(row) if row is not None else None
        if interface is None:
            return False
        if interface.error:
            remedy = "; if the kernel's datapath was deleted, restart ovs-vswitchd"
            is_kernels = spec.datapath_type == "system" and os.strerror(errno.ENODEV) in interface.error[0]
            raise BridgeError(
                f"Open vSwitch cannot make the bridge {spec.name}: {interface.error[0]}{remedy if is_kernels else ''}"
            )
        link = read_link(spec.name)
        return bool(interface.ofport) and link is not None and spec.mtu in (None, link.mtu)

    hint = ""
    if spec.datapath_type == "system":
        hint = "; has this kernel the module openvswitch? without it, take datapath_type netdev"
    database.extend_deadline(_ANSWER_SECONDS)
    try:
        database.wait(is_ready, f"has not made the device of bridge {spec.name}{hint}")
    except OvsdbTimeoutError as error:
        raise BridgeError(str(error)) from None


def _existing_link_sysctls(spec: BridgeSpec) -> dict[str, str]:
    """Return the settings of the device that the kernel has.

    It has none where the device has no IPv6, as with an MTU below 1280 bytes. There no router advertisement counts.
    """
    return {name: spec.link_sysctls[name] for name in read_sysctls(spec.link_sysctls)}


def _delete(database: Database, name: str) -> None:
    def fill(_transaction: Any) -> None:
        row = _bridge_row(database, name)
        assign(database.root, "bridges", [bridge for bridge in database.root.bridges if bridge != row])

    database.commit(fill)


def _is_ours(row: Any) -> bool:
    return bool(row.external_ids.get(OWNER_ID) == OWNER)


def _give_back(row: Any) -> None:
    """Clear our marks; a bridge that was ours forwards by itself again, because nobody installs its flows any more."""
    if row is not None:
        if _is_ours(row):
            assign(row, "fail_mode", "standalone")
        assign(row, "external_ids", _without_marks(row.external_ids))


def _without_marks(external_ids: Mapping[str, str]) -> dict[str, str]:
    marks = (OWNER_ID, EPOCH_ID, BORROWED_ID, RAISED_ID)
    return {key: value for key, value in external_ids.items() if key not in marks}


def _bridge_row(database: Database, name: str) -> Any:
    return next((row for row in database.tables["Bridge"].rows.values() if row.name == name), None)


def _local_interface(bridge: Any) -> Any:
    """Return the interface by which the kernel sees the bridge, or None. Its port has the bridge's name."""
    local = (port for port in bridge.ports if port.name == bridge.name)
    return next((interface for port in local for interface in port.interfaces), None)


def _insert_bridge(database: Database, transaction: Any, name: str) -> Any:
    bridge = transaction.insert(database.tables["Bridge"])
    bridge.name, bridge.ports = name, []
    assign(database.root, "bridges", [*database.root.bridges, bridge])
    return bridge


def _insert_local_port(database: Database, transaction: Any, bridge: Any) -> Any:
    """Insert the bridge's local port and return its interface.

    vswitchd creates the device without these rows too, but then it sets no MTU.
    """
    interface = transaction.insert(database.tables["Interface"])
    interface.name, interface.type = bridge.name, "internal"
    port = transaction.insert(database.tables["Port"])
    port.name, port.interfaces = bridge.name, [interface]
    assign(bridge, "ports", [*bridge.ports, port])
    return interface
