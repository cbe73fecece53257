# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds for a node's whole Open vSwitch: segmentation offload in userspace.

The offload is read by vswitchd only when it starts. Bridges are the subject of bridge, and which datapath a
kernel can have that of datapath.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..differences import Differences
from .datapath import DATAPATH_TYPES
from .idl import assign, connect
from .jsonrpc import OvsdbError

TSO = "userspace-tso-enable"
"""Open_vSwitch other_config. Without it a pod's TCP over the userspace datapath goes one packet at a time."""
_SET_DURING = "evio-tso-set-during"
"""Open_vSwitch external_ids: the run of vswitchd that was on when TSO was set, and so does not have it."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_FILE = "ovs-vswitchd.pid"
"""Beside the database's socket, as Open vSwitch's own scripts have it."""


@dataclass(frozen=True)
class SwitchState:
    """What ensure_switch found and leaves behind."""

    differences: Differences
    is_restart_needed: bool
    """vswitchd must be started, or started anew, for what is set to count."""


def predict_switch(datapath_type: str) -> SwitchState:
    """What ensure_switch would do to an Open vSwitch that is yet to be installed or started."""
    _check_datapath_type(datapath_type)
    differences = _compare(datapath_type, {})
    return SwitchState(differences, is_restart_needed=differences.changed)


def ensure_switch(
    datapath_type: str, *, ovsdb: str = paths.OVSDB, timeout: float = 10.0, dry_run: bool = False
) -> SwitchState:
    """Set the offload as the datapath wants it, whether vswitchd runs or not. timeout in seconds.

    Raises OvsdbError, or OvsdbAbsentError where there is no Open vSwitch yet.
    """
    _check_datapath_type(datapath_type)
    with connect(ovsdb, timeout) as database:
        differences = _compare(datapath_type, database.root.other_config)
        running = _running_vswitchd(ovsdb)
        set_during = running if differences.changed else database.root.external_ids.get(_SET_DURING)

        def fill(_transaction: object) -> None:
            root = database.root
            assign(root, "other_config", {**root.other_config, TSO: _wanted(datapath_type)})
            if running is not None:
                assign(root, "external_ids", {**root.external_ids, _SET_DURING: running})

        if differences.changed and not dry_run:
            database.commit(fill)
        return SwitchState(differences, is_restart_needed=running is None or running == set_during)


def _check_datapath_type(datapath_type: str) -> None:
    if datapath_type not in DATAPATH_TYPES:
        raise OvsdbError(f"datapath_type {datapath_type!r} is none of {', '.join(DATAPATH_TYPES)}")


def _compare(datapath_type: str, other_config: dict[str, str]) -> Differences:
    differences = Differences()
    # Not set and "false" are the same to vswitchd.
    differences.compare(TSO, _wanted(datapath_type), other_config.get(TSO, "false"))
    return differences


def _wanted(datapath_type: str) -> str:
    return "true" if datapath_type == "netdev" else "false"


def _running_vswitchd(ovsdb: str) -> str | None:
    """This run of vswitchd, told from all others by boot, process id and start (field 22 of proc(5)'s stat)."""
    try:
        pid = int((Path(ovsdb.removeprefix("unix:")).parent / _PID_FILE).read_text(encoding="ascii"))
        name, _bracket, fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    state, started = fields.split()[0], fields.split()[19]
    if not name.endswith("(ovs-vswitchd") or state == "Z":
        return None
    return f"{boot}:{pid}:{started}"
