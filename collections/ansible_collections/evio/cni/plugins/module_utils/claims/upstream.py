# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What upstream's generator has left in etcd: which subnets are in use by its keys alone, for they name no owner.

Pure. Whose they become, and what is done about the others, is the subject of pool_changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, summarize_address_range

from .model import ClaimError

UPSTREAM_PREFIX = "/evpn/"
"""Below it: ``<first pod's address>,<last one>,<bridge's address>/<prefix length of the whole pod network>``."""
_LOCK = "evio-lock"


def parse_upstream_keys(keys: Iterable[str]) -> dict[str, str]:
    """The subnet of each key, by subnet. Raises ClaimError for a key that upstream does not write."""
    return {_subnet(key): key for key in sorted(keys) if not key.removeprefix(UPSTREAM_PREFIX).startswith(_LOCK)}


def _subnet(key: str) -> str:
    """The bridge has the first address behind the subnet's own, the last pod the one before its last."""
    try:
        _first, last, bridge = key.removeprefix(UPSTREAM_PREFIX).partition("/")[0].split(",")
        low, high = ip_address(int(ip_address(bridge)) - 1), ip_address(int(ip_address(last)) + 1)
        networks = [str(network) for network in summarize_address_range(low, high)]
    except (ValueError, TypeError):
        networks = []
    if len(networks) != 1:
        raise ClaimError(f"{key} is no key as upstream's generator writes them; remove it if nothing needs it")
    return networks[0]
