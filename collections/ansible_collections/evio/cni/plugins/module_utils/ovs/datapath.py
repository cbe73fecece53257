# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which datapath of Open vSwitch this kernel can have: its own (``system``), or only vswitchd's (``netdev``)."""

from __future__ import annotations

import os
from pathlib import Path

_LOADED_MODULE = Path("/sys/module/openvswitch")

_MODULES = Path("/lib/modules")


def probe_datapath() -> str:
    """Return ``system`` if the kernel's module openvswitch is loaded, built in or can be loaded, else ``netdev``."""
    if _LOADED_MODULE.is_dir():
        return "system"
    indexes = (_MODULES / os.uname().release / name for name in ("modules.dep", "modules.builtin"))
    return "system" if any(_lists_openvswitch(index) for index in indexes) else "netdev"


def _lists_openvswitch(index: Path) -> bool:
    try:
        lines = index.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    # A line of modules.dep goes on with the modules that this one depends on.
    return any("/openvswitch.ko" in line.partition(":")[0] for line in lines)
