# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node itself says of its claim: which machine it is, and which subnets its pods are set up with.

Read from the node's files alone. Whether etcd agrees is the subject of claims.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import paths
from .claims import ClaimError, Configured
from .conf_dir import read_conflist
from .conflist import PLUGIN, node_subnets

MACHINE_ID = "/etc/machine-id"


def read_machine_id(path: str = MACHINE_ID) -> str:
    """Which machine this is (machine-id(5)). Raises ClaimError: a claim without it could not be told from another's."""
    try:
        machine_id = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClaimError(
            f"cannot read the machine's id: {error}; in a container, mount the host's {MACHINE_ID}"
        ) from error
    if not machine_id:
        raise ClaimError(f"{path} is empty, so which machine this is cannot be known; run systemd-machine-id-setup")
    return machine_id


def read_configured(conf_dir: str = paths.CNI_CONF_DIR) -> Configured | None:
    """The claim that the conflist was written from; None where there is none.

    Raises ClaimError for a conflist that cannot be understood: whose addresses the pods have would be a guess.
    """
    text = read_conflist(conf_dir)
    if text is None:
        return None
    try:
        plugin = next(one for one in json.loads(text)["plugins"] if one["type"] == PLUGIN)
        return Configured(node_subnets(plugin), _epoch(plugin))
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise ClaimError(
            f"{conf_dir}/{paths.CONFLIST_NAME} does not tell which subnets this node has; "
            "put it right, or drain the node and remove it"
        ) from error


def _epoch(plugin: dict[str, Any]) -> int:
    return int(plugin.get("epoch", 0))
