# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Userspace TSO: a setting of the node's whole Open vSwitch, which vswitchd reads only when it starts.

With datapath ``netdev``, a pod's TCP goes packet by packet without it. Bridges are the subject of ``bridge``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..defaults import OVS_TIMEOUT
from ..differences import Differences
from ..kernel.boot import boot_id
from ..names import DATAPATH_TYPES
from .external_ids import USERSPACE_TSO
from .idl import assign, connect
from .jsonrpc import OvsdbError

_SET_DURING = "evio-tso-set-during"
"""In external_ids of the table Open_vSwitch: the run of vswitchd during which TSO was set, and which lacks it still."""

_PID_FILE = "ovs-vswitchd.pid"
"""Beside the database's socket, where Open vSwitch's own scripts put it."""


@dataclass(frozen=True)
class SwitchState:
    """What ``ensure_switch`` found and left."""

    differences: Differences
    is_restart_needed: bool
    """Whether vswitchd must be started or restarted before the setting counts."""


def predict_switch(datapath_type: str) -> SwitchState:
    """Return what ``ensure_switch`` will do once Open vSwitch is installed and started. Raises OvsdbError."""
    _check_datapath_type(datapath_type)
    differences = _compare(datapath_type, {})
    return SwitchState(differences, is_restart_needed=differences.changed)


def ensure_switch(
    datapath_type: str, *, ovsdb: str = paths.OVSDB, timeout: float = OVS_TIMEOUT, dry_run: bool = False
) -> SwitchState:
    """Set userspace TSO as the datapath type needs it, whether vswitchd runs or not. ``timeout`` in seconds.

    Raises OvsdbError, or OvsdbAbsentError where there is no Open vSwitch yet.
    """
    _check_datapath_type(datapath_type)
    with connect(ovsdb, timeout) as database:
        differences = _compare(datapath_type, database.root.other_config)
        running = _running_vswitchd(ovsdb)
        set_during = running if differences.changed else database.root.external_ids.get(_SET_DURING)

        def fill(_transaction: object) -> None:
            root = database.root
            assign(root, "other_config", {**root.other_config, USERSPACE_TSO: _wanted(datapath_type)})
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
    # A missing key means "false" to vswitchd.
    differences.compare(USERSPACE_TSO, _wanted(datapath_type), other_config.get(USERSPACE_TSO, "false"))
    return differences


def _wanted(datapath_type: str) -> str:
    return "true" if datapath_type == "netdev" else "false"


def _running_vswitchd(ovsdb: str) -> str | None:
    """Return an identifier of the running vswitchd, or None if none runs.

    Boot, process id and start time (field 22 of /proc/PID/stat, proc(5)) tell it from all other runs.
    """
    try:
        pid = int((Path(ovsdb.removeprefix("unix:")).parent / _PID_FILE).read_text(encoding="ascii"))
        name, _bracket, fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")
        boot = boot_id()
    except (OSError, ValueError):
        return None
    state, started = fields.split()[0], fields.split()[19]
    if not name.endswith("(ovs-vswitchd") or state == "Z":
        return None
    return f"{boot}:{pid}:{started}"
