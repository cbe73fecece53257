# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conflicts between an overlay's networks and the other networks of a host. Pure.

The overlay's routes would cut the host off from a LAN inside its networks, or the LAN's routes would take the overlay's
packets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_interface, ip_network

from ..kernel.networks_in_use import ADDRESS, NetworkUse


def find_conflict(
    uses: Iterable[NetworkUse],
    networks: Mapping[str, str],
    own_interfaces: Collection[str],
    own_subnets: Iterable[str] = (),
) -> str | None:
    """Return in words the first use of an overlay's network by another interface; None if there is none.

    ``networks`` has the overlay's networks in CIDR notation by what they are called. Uses by ``own_interfaces``, and
    uses inside ``own_subnets``, are the overlay's own. A wider network than the overlay's, such as a route to
    10.0.0.0/8, is no conflict: the overlay's route to a part of it comes first.
    """
    own = [ip_network(cidr) for cidr in own_subnets]
    parsed = {name: ip_network(cidr) for name, cidr in networks.items()}
    for use in uses:
        if use.interface in own_interfaces:
            continue
        interface = ip_interface(use.cidr)
        address, prefix = interface.ip, interface.network
        if any(address in subnet for subnet in own):
            continue
        for name, network in parsed.items():
            is_inside = address in network if use.kind == ADDRESS else _is_subnet(prefix, network)
            if is_inside:
                holder = f"the interface {use.interface}" if use.interface else "this host"
                return (
                    f"{holder} has the {use.kind} {use.cidr}, inside {name} {network}: this host would lose that "
                    "network or the overlay; give the overlay networks that no host uses"
                )
    return None


def without_single_addresses(uses: Iterable[NetworkUse]) -> list[NetworkUse]:
    """Return the uses without addresses that have no network beside them, which a host may have of Services."""
    return [
        use
        for use in uses
        if use.kind != ADDRESS or ip_interface(use.cidr).network.prefixlen < ip_interface(use.cidr).max_prefixlen
    ]


def _is_subnet(inner: object, outer: object) -> bool:
    try:
        return inner.subnet_of(outer)  # type: ignore[attr-defined, no-any-return]
    except TypeError:
        # Of the other IP version.
        return False
