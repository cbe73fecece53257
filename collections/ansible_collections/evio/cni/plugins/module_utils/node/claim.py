# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The claim that this node is set up with, read from its own files, and whether etcd still has it.

``claims`` decides whether a claim holds; ``state.fence`` keeps new pods off a node that has lost its claim.
"""

from __future__ import annotations

import json
from pathlib import Path

from .. import paths
from ..claims.model import ClaimError, LocalClaim
from ..cni.conf_dir import read_conflist
from ..cni.conflist import PLUGIN, node_subnets
from ..state.fence import put_up_fence, take_down_fence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..etcd.access import Access


def read_machine_id(path: str = paths.MACHINE_ID) -> str:
    """Return the id of this machine (machine-id(5)). Raises ClaimError if there is none: no claim is made without."""
    try:
        machine_id = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClaimError(
            f"cannot read the machine's id: {error}; in a container, mount the host's {paths.MACHINE_ID}"
        ) from error
    if not machine_id:
        raise ClaimError(f"{path} is empty, so this machine has no id; run systemd-machine-id-setup")
    return machine_id


def read_local_claim(conf_dir: str = paths.CNI_CONF_DIR) -> LocalClaim | None:
    """Return the claim that this node's conflist was written from; None if there is no conflist.

    Raises ClaimError for a conflist that does not tell the node's subnets: a guess could be another node's subnet.
    """
    text = read_conflist(conf_dir)
    if text is None:
        return None
    try:
        plugin = next(plugin for plugin in json.loads(text)["plugins"] if plugin["type"] == PLUGIN)
        return LocalClaim(node_subnets(plugin), int(plugin.get("epoch", 0)))
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise ClaimError(
            f"{conf_dir}/{paths.CONFLIST_NAME} does not tell which subnets this node has; "
            "put it right, or drain the node and remove it"
        ) from error


def check_claim(access: Access, cluster: str, node: str, *, conf_dir: str, state_dir: str) -> str | None:
    """Ask etcd whether this node's claim holds, and fence the node if it does not, or take down its fence.

    Return why the claim does not hold; None if it holds, or if the node is not set up. Raises EvioError, for example if
    etcd does not answer. Only nodes that have etcd's client certificate can ask.
    """
    # Only ``evio status --etcd`` asks; importing TLS and the registry would make all other callers slower.
    from ..claims.registry import Registry
    from ..etcd.client import Etcd

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
