# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asking etcd whether the claim that this node is set up with holds: the node is fenced where it does not.

For nodes that may ask: those with etcd's client certificate, which all others learn it from by the next run.
"""

from __future__ import annotations

from .etcd import Access, Etcd
from .fence import put_up_fence, take_down_fence
from .node_claim import read_configured
from .registry import Registry


def check_claim(access: Access, cluster: str, node: str, *, conf_dir: str, state_dir: str) -> str | None:
    """Why the claim does not hold, None if it does or if the node is not set up. Raises EvioError."""
    configured = read_configured(conf_dir)
    if configured is None:
        return None
    with Etcd(access) as etcd:
        reason = Registry(etcd, cluster).lost({node: configured}).get(node)
    if reason is None:
        take_down_fence(state_dir)
    else:
        put_up_fence(state_dir, reason)
    return reason
