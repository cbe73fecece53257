# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which of Open vSwitch's datapaths a kernel can have: the one of its own module, or vswitchd's in userspace."""

from __future__ import annotations

import os
from pathlib import Path

from ..mtu import MOST_MTU

_LOADED_MODULE = Path("/sys/module/openvswitch")
_MODULES = Path("/lib/modules")


def probe_datapath() -> str:
    """``system`` if this kernel has the module openvswitch, loaded, built in or to be loaded; else ``netdev``."""
    if _LOADED_MODULE.is_dir():
        return "system"
    indexes = (_MODULES / os.uname().release / name for name in ("modules.dep", "modules.builtin"))
    return "system" if any(_lists_openvswitch(index) for index in indexes) else "netdev"


def _lists_openvswitch(index: Path) -> bool:
    try:
        lines = index.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any("/openvswitch.ko" in line.partition(":")[0] for line in lines)


DATAPATH_TYPES = tuple(MOST_MTU)
