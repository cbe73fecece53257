# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds for a node's whole Open vSwitch: the datapath it can have, and segmentation offload in userspace.

The offload is read by vswitchd only when it starts. Bridges are the subject of bridge.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from . import paths
from .bridge_spec import DATAPATH_TYPES
from .differences import Differences
from .ovsdb import OvsdbError, connect

TSO = "userspace-tso-enable"
"""Open_vSwitch other_config. Without it a pod's TCP over the userspace datapath goes one packet at a time."""

_LOADED_MODULE = "/sys/module/openvswitch"
_MODULES = "/lib/modules"


def probe_datapath() -> str:
    """``system`` if this kernel has the module openvswitch, loaded, built in or to be loaded; else ``netdev``."""
    if os.path.isdir(_LOADED_MODULE):
        return "system"
    directory = os.path.join(_MODULES, os.uname().release)
    for index in ("modules.dep", "modules.builtin"):
        try:
            with open(os.path.join(directory, index), encoding="utf-8") as stream:
                if any("/openvswitch.ko" in line.partition(":")[0] for line in stream):
                    return "system"
        except OSError:
            continue
    return "netdev"


def ensure_switch(
    datapath_type: str, *, ovsdb: str = paths.OVSDB, timeout: float = 10.0, dry_run: bool = False
) -> Differences:
    """Set the offload as the datapath wants it, without waiting for vswitchd, which need not run yet.

    What has changed counts from vswitchd's next start on. Raises OvsdbError.
    """
    if datapath_type not in DATAPATH_TYPES:
        raise OvsdbError(f"datapath_type {datapath_type!r} is none of {', '.join(DATAPATH_TYPES)}")
    with connect(ovsdb, timeout) as database:
        found: Mapping[str, str] = dict(database.root.other_config)
        differences = compare_switch(datapath_type, found)
        if differences.changed and not dry_run:

            def fill(_: object) -> None:
                database.root.other_config = {**found, TSO: _wanted(datapath_type)}

            database.commit(fill, await_switch=False)
        return differences


def compare_switch(datapath_type: str, other_config: Mapping[str, str]) -> Differences:
    """How a switch with this other_config differs."""
    differences = Differences()
    wanted = _wanted(datapath_type)
    found = other_config.get(TSO)
    # Not set and "false" are the same to vswitchd.
    differences.compare(TSO, wanted, found if found is not None or wanted == "true" else "false")
    return differences


def _wanted(datapath_type: str) -> str:
    return "true" if datapath_type == "netdev" else "false"
