# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node itself says of its claim: which machine it is, and which subnets its pods are set up with.

Read from the node's files alone. Whether etcd agrees is the subject of claims.


Asking etcd whether the claim that this node is set up with holds: the node is fenced where it does not.

For nodes that may ask: those with etcd's client certificate, which all others learn it from by the next run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import paths
from ..claims.model import ClaimError, LocalClaim
from ..claims.registry import Registry
from ..cni.conf_dir import read_conflist
from ..cni.conflist import PLUGIN, node_subnets
from ..etcd.access import Access
from ..etcd.client import Etcd
from ..state.fence import put_up_fence, take_down_fence

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


def read_local_claim(conf_dir: str = paths.CNI_CONF_DIR) -> LocalClaim | None:
    """The claim that the conflist was written from; None where there is none.

    Raises ClaimError for a conflist that cannot be understood: whose addresses the pods have would be a guess.
    """
    text = read_conflist(conf_dir)
    if text is None:
        return None
    try:
        plugin = next(one for one in json.loads(text)["plugins"] if one["type"] == PLUGIN)
        return LocalClaim(node_subnets(plugin), _epoch(plugin))
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise ClaimError(
            f"{conf_dir}/{paths.CONFLIST_NAME} does not tell which subnets this node has; "
            "put it right, or drain the node and remove it"
        ) from error


def _epoch(plugin: dict[str, Any]) -> int:
    return int(plugin.get("epoch", 0))


def check_claim(access: Access, cluster: str, node: str, *, conf_dir: str, state_dir: str) -> str | None:
    """Why the claim does not hold, None if it does or if the node is not set up. Raises EvioError."""
    configured = read_local_claim(conf_dir)
    if configured is None:
        return None
    with Etcd(access) as etcd:
        reason = Registry(etcd, cluster).lost({node: configured}).get(node)
    if reason is None:
        take_down_fence(state_dir)
    else:
        put_up_fence(state_dir, reason)
    return reason
