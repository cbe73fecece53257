# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules for pins: which subnets can be kept for a node. Pure.

``allocator`` checks the pins of requests by them, ``reshape`` those of the pool configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network

from ..subnets import Pool, overlaps
from .model import Claim, ClaimError, PoolConfig, describe


def check_pin(
    node: str, cidr: str, config: PoolConfig, *, claims: Mapping[str, Claim], owners: Mapping[str, str]
) -> None:
    """Raise ClaimError if the node cannot have this subnet.

    ``claims`` are those of the nodes concerned, by name. ``owners`` has the owner of each subnet that is claimed or
    pinned already.
    """
    held = claims[node].cidrs if node in claims else ()
    pool = next((pool for pool in config.pools if cidr in pool), None)
    if pool is None:
        raise ClaimError(f"node {node} is pinned to {cidr}, which is no subnet of {describe(config.pools)}")
    if cidr not in held:
        _refuse_reserved(node, cidr, config.reserved)
    owner = owners.get(cidr, node)
    if owner != node:
        raise ClaimError(f"node {node} is pinned to {cidr}, which {owner} has")
    other = next((other for other in held if other in pool and other != cidr), None)
    if other is not None:
        raise ClaimError(f"node {node} is pinned to {cidr} but has {other}; release it first")


def refuse_two_pins_in_a_pool(node: str, cidrs: Sequence[str], pools: Sequence[Pool]) -> None:
    """Raise ClaimError if two of the subnets are of one pool."""
    for pool in pools:
        pinned = [cidr for cidr in cidrs if cidr in pool]
        if len(pinned) > 1:
            raise ClaimError(f"node {node} is pinned to both {pinned[0]} and {pinned[1]}; take one pin off")


def _refuse_reserved(node: str, cidr: str, reserved: Sequence[str]) -> None:
    network = next((network for network in reserved if overlaps(ip_network(cidr), ip_network(network))), None)
    if network is not None:
        raise ClaimError(f"node {node} is pinned to {cidr}, but {network} is reserved")
