# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The flows with which a bridge gives packets to the node's kernel; which packets those are: pod_steering.

Pods without port security, and tunnels to other nodes, have no flows of their own ports: the bridge's flows catch their
packets. ADD installs them on a bridge that has none, CHECK and repair compare their number.
"""

from __future__ import annotations

from .cookies import BRIDGE_FLOWS
from .openflow import (
    DROP,
    ETH_SRC,
    ETH_TYPE,
    ICMPV4_TYPE,
    ICMPV6_TYPE,
    IP_PROTO,
    NORMAL,
    Flow,
    OpenFlow,
    Selection,
    goto_table,
    to_local,
)
from .pod_steering import IP_FIELDS, TO_KERNEL, UNICAST, Steering, inside

_STEERED, _BY_KERNEL = 0x69F0, 0x69F2
"""Priorities. Flows of port security have higher ones, the bridge's NORMAL flow a lower one, 0."""

_NO_REDIRECT = 0x6AFF
"""Priority of the flows that drop the kernel's redirects, above those of port security."""

_ICMPV6 = b"\x3a"
"""IP protocol number."""

_REDIRECT = {4: [(IP_PROTO, b"\x01"), (ICMPV4_TYPE, b"\x05")], 16: [(IP_PROTO, _ICMPV6), (ICMPV6_TYPE, b"\x89")]}
"""By an address's length in bytes."""

_DISCOVERY = (b"\x87", b"\x88")
"""Neighbour solicitation and advertisement (RFC 4861), which no router forwards."""


def bridge_flows(steering: Steering, mac: str) -> list[Flow]:
    """Return the flows that the bridge with this MAC needs beside those of the ports; none if nothing is steered."""
    if not steering.links:
        return []
    bridge = bytes.fromhex(mac.replace(":", ""))
    flows = [Flow(0, [], to_local(bridge), table=TO_KERNEL)]
    for link, own in zip(steering.links, steering.own, strict=True):
        size = len(link[0])
        ethertype, from_field, to_field = IP_FIELDS[size]
        packet, to_link, to_own = [(ETH_TYPE, ethertype)], inside(to_field, *link), inside(to_field, *own)
        # The kernel would tell a pod to send packets for a Service to the pod that it has translated them to.
        flows.append(Flow(_NO_REDIRECT, [(ETH_SRC, bridge), *packet, *_REDIRECT[size]], DROP))
        flows.append(Flow(_BY_KERNEL, [(ETH_SRC, bridge), *packet, to_link], NORMAL))
        if size == 16:
            for kind in _DISCOVERY:
                message = [(IP_PROTO, _ICMPV6), (ICMPV6_TYPE, kind)]
                flows.append(Flow(_BY_KERNEL, [*packet, *message, to_link], NORMAL))
        flows.append(Flow(_STEERED, [*packet, UNICAST, to_own], goto_table(TO_KERNEL)))
        if own != link:
            outgoing = [*packet, UNICAST, inside(from_field, *own), to_link]
            flows.append(Flow(_STEERED, outgoing, goto_table(TO_KERNEL)))
    return flows


def lacks_steering(bridge: OpenFlow, steering: Steering, mac: str) -> bool:
    """Return whether the bridge with this MAC lacks one of its flows. Raises OpenFlowError."""
    return bridge.count(Selection(steering.cookie(mac))) < len(bridge_flows(steering, mac))


def install_steering(bridge: OpenFlow, steering: Steering, mac: str) -> None:
    """Install the flows of the bridge with this MAC, and delete those of an earlier configuration.

    Raises OpenFlowError.
    """
    bridge.change([BRIDGE_FLOWS], steering.cookie(mac), bridge_flows(steering, mac))
