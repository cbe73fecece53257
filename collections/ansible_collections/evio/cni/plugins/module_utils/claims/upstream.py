# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read the keys that upstream's configuration generator left in etcd. They tell which subnets are in use, not by whom.

Pure. ``reshape`` turns these subnets into claims, or reserves them.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, summarize_address_range

from .model import ClaimError

UPSTREAM_PREFIX = "/evpn/"
"""Its keys are ``/evpn/<first pod address>,<last pod address>,<bridge address>/<prefix length of the pod network>``."""

_LOCK = "evio-lock"
"""The generator's lock, the only other key below the prefix."""


def parse_upstream_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return the keys by their subnets. Raises ClaimError for a key that upstream does not write."""
    return {_subnet(key): key for key in sorted(keys) if not key.removeprefix(UPSTREAM_PREFIX).startswith(_LOCK)}


def _subnet(key: str) -> str:
    """Return the subnet of a key: its bridge has the first host address, its last pod the last."""
    try:
        _first, last, bridge = key.removeprefix(UPSTREAM_PREFIX).partition("/")[0].split(",")
        low, high = ip_address(int(ip_address(bridge)) - 1), ip_address(int(ip_address(last)) + 1)
        networks = [str(network) for network in summarize_address_range(low, high)]
    except (ValueError, TypeError):
        networks = []
    if len(networks) != 1:
        raise ClaimError(f"{key} is no key as upstream's generator writes them; remove it if nothing needs it")
    return networks[0]
