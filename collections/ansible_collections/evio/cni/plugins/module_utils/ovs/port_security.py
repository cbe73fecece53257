# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Port security: which frames a pod may send. Frames from its own MAC and addresses, ARP and neighbour discovery.

Pure: computes the flows of one port. ``flows`` installs them. What a pod may receive is not restricted.
"""

from __future__ import annotations

from _struct import pack

from ..cidr import packed
from .openflow import (
    ARP_SHA,
    ARP_SPA,
    DROP,
    ETH_SRC,
    ETH_TYPE,
    ICMPV6_TYPE,
    IN_PORT,
    IP_PROTO,
    IPV4_SRC,
    IPV6_SRC,
    ND_SLL,
    ND_TARGET,
    ND_TLL,
    NORMAL,
    VLAN_VID,
    Flow,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .pod_steering import Steering

_DROP, _ALLOW, _STEER, _DROP_DISCOVERY, _ALLOW_DISCOVERY = 0x6A00, 0x6A01, 0x6A02, 0x6A03, 0x6A04
"""Priorities. The bridge's NORMAL flow has a lower one, 0."""

_IPV4, _ARP, _IPV6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"
"""EtherTypes."""

_ICMPV6 = b"\x3a"
"""IP protocol number."""

_NEIGHBOR_SOLICITATION, _NEIGHBOR_ADVERTISEMENT = 135, 136

_ROUTERS_ONLY = (134, 137)
"""Router advertisement and redirect (RFC 4861): a pod that sends them would become its neighbours' router."""

_UNTAGGED = b"\0\0"

_UNSPECIFIED = b"\0" * 16
"""The IPv6 address ``::``"""

_NO_OPTION = b"\0" * 6
"""What Open vSwitch matches for a link-layer address where the message has no such option."""


def flows_of(ofport: int, mac: str, addresses: list[str], steering: Steering | None) -> list[Flow]:
    """Return the flows of a port for a pod's MAC and addresses; prefix lengths of addresses are ignored.

    ``ofport`` is the port's OpenFlow number. Without addresses, all that the port sends is dropped. ``steering`` says
    which packets that may pass go to the node's kernel; None where that is not known.
    """
    hardware = bytes.fromhex(mac.replace(":", ""))
    own = [packed(address.partition("/")[0]) for address in addresses]
    port = (IN_PORT, pack("!I", ofport))
    sender = [port, (ETH_SRC, hardware), (VLAN_VID, _UNTAGGED)]
    flows = [Flow(_DROP, [port], DROP)]
    for address in own:
        if len(address) == 4:
            flows.append(Flow(_ALLOW, [*sender, (ETH_TYPE, _ARP), (ARP_SPA, address), (ARP_SHA, hardware)], NORMAL))
            flows.append(Flow(_ALLOW, [*sender, (ETH_TYPE, _IPV4), (IPV4_SRC, address)], NORMAL))
        if steering is not None:
            flows += steering.of_port(_STEER, sender, address)
    own_ipv6 = [address for address in own if len(address) == 16]
    if own_ipv6:
        flows += _ipv6_flows(port, sender, hardware, [*own_ipv6, _link_local(hardware)])
    return flows


def _ipv6_flows(
    port: tuple[int, bytes], sender: list[tuple[int, bytes]], hardware: bytes, own: list[bytes]
) -> list[Flow]:
    flows = [Flow(_ALLOW, [*sender, (ETH_TYPE, _IPV6), (IPV6_SRC, address)], NORMAL) for address in own]
    for kind in (*_ROUTERS_ONLY, _NEIGHBOR_SOLICITATION, _NEIGHBOR_ADVERTISEMENT):
        message = [(ETH_TYPE, _IPV6), (IP_PROTO, _ICMPV6), (ICMPV6_TYPE, bytes([kind]))]
        flows.append(Flow(_DROP_DISCOVERY, [port, *message], DROP))
    for address in own:
        discovery = [*sender, (ETH_TYPE, _IPV6), (IPV6_SRC, address), (IP_PROTO, _ICMPV6)]
        solicitation = [*discovery, (ICMPV6_TYPE, bytes([_NEIGHBOR_SOLICITATION]))]
        flows.append(Flow(_ALLOW_DISCOVERY, [*solicitation, (ND_SLL, hardware)], NORMAL))
        flows.append(Flow(_ALLOW_DISCOVERY, [*solicitation, (ND_SLL, _NO_OPTION)], NORMAL))
        for target in own:
            claim = [(ICMPV6_TYPE, bytes([_NEIGHBOR_ADVERTISEMENT])), (ND_TARGET, target), (ND_TLL, hardware)]
            flows.append(Flow(_ALLOW_DISCOVERY, [*discovery, *claim], NORMAL))
    for target in own:
        # Duplicate address detection (RFC 4862) solicits from the unspecified address.
        probe = [(ETH_TYPE, _IPV6), (IPV6_SRC, _UNSPECIFIED), (IP_PROTO, _ICMPV6)]
        probe += [(ICMPV6_TYPE, bytes([_NEIGHBOR_SOLICITATION])), (ND_TARGET, target)]
        flows.append(Flow(_ALLOW_DISCOVERY, [*sender, *probe], NORMAL))
    return flows


def _link_local(hardware: bytes) -> bytes:
    """Return the link-local address that a kernel derives from a MAC (RFC 4291, appendix A)."""
    return b"\xfe\x80" + b"\0" * 6 + bytes([hardware[0] ^ 2]) + hardware[1:3] + b"\xff\xfe" + hardware[3:]
