# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which packets of pods go to the node's kernel instead of straight to another port of the bridge: all between pods.

kube-proxy and portmap translate a Service's address in the node's kernel. A pod's answer must pass the same kernel, or
nothing translates it back; and the kernel must see both directions of the connections that it does not translate, or
its conntrack calls their packets invalid. Pods keep their addresses: nothing is masqueraded for this.

Pure: computes flows. Those of one port are installed with its port security; those of the bridge, which all pods need,
with the first pod's: port_flows. docs/concepts.md compares this with other ways.
"""

from __future__ import annotations

from ..cidr import is_cidr, is_in, split_cidr
from .cookies import bridge_cookie
from .openflow import (
    DROP,
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ICMPV4_TYPE,
    ICMPV6_TYPE,
    IP_PROTO,
    IPV4_DST,
    IPV4_SRC,
    IPV6_DST,
    IPV6_SRC,
    NORMAL,
    Flow,
    goto_table,
    masked,
    to_local,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf

_TABLE = 0x6A
"""Where packets to the kernel get the bridge's MAC: ports' flows need not know it."""

_BY_KERNEL, _STEERED = 0x69F2, 0x69F0
"""Priorities. Flows of port security have higher ones, the bridge's NORMAL flow a lower one, 0."""

_REDIRECT = 0x6AFF
"""Priority of the flows that drop the kernel's redirects, above those of port security."""

_UNICAST = masked(ETH_DST, b"\0" * 6, b"\1" + b"\0" * 5)

_VERSIONS = {
    4: (b"\x08\x00", IPV4_SRC, IPV4_DST, [(IP_PROTO, b"\x01"), (ICMPV4_TYPE, b"\x05")]),
    16: (b"\x86\xdd", IPV6_SRC, IPV6_DST, [(IP_PROTO, b"\x3a"), (ICMPV6_TYPE, b"\x89")]),
}
"""By an address's length in bytes: EtherType, fields of source and destination, and the match of a redirect."""

_DISCOVERY = (b"\x87", b"\x88")
"""Neighbour solicitation and advertisement (RFC 4861), which no router forwards."""


class Steering:
    """What is steered on a network's bridge, for each family that the bridge is the gateway of."""

    __slots__ = ("_catches_all", "_links", "_own")

    def __init__(self, conf: NetConf) -> None:
        # The bridge's address is in no VLAN, and isolated pods must not reach each other by the kernel either.
        is_steered = conf.vlan is None and not conf.trunks and not conf.is_isolated
        self._links = [split_cidr(gateway) for gateway in conf.gateways] if is_steered else []
        """Packed gateway and prefix length of what is on the bridge's link, by family."""
        self._own = [_own_subnet(conf, link) for link in self._links]
        """Of each of them, the part whose addresses are those of this node's pods."""
        self._catches_all = not conf.port_security or self._own != self._links
        """Whether packets for pods come from ports without port security: of pods, or of tunnels to other nodes."""

    def of_port(self, priority: int, sender: list[tuple[int, bytes]], source: bytes) -> list[Flow]:
        """Return the flow that steers what a pod's port sends from one of its addresses; none if nothing is steered.

        ``sender`` are the fields by which port security knows the pod's frames.
        """
        ethertype, from_field, to_field, _redirect = _VERSIONS[len(source)]
        return [
            Flow(
                priority,
                [*sender, (ETH_TYPE, ethertype), (from_field, source), _UNICAST, _inside(to_field, *link)],
                goto_table(_TABLE),
            )
            for link in self._links
            if len(link[0]) == len(source)
        ]

    def of_bridge(self, mac: str) -> list[Flow]:
        """Return the flows that the bridge with this MAC needs beside those of the ports."""
        if not self._links:
            return []
        bridge = bytes.fromhex(mac.replace(":", ""))
        flows = [Flow(0, [], to_local(bridge), table=_TABLE)]
        for link, own in zip(self._links, self._own, strict=True):
            ethertype, from_field, to_field, redirect = _VERSIONS[len(link[0])]
            packet, to_link = [(ETH_TYPE, ethertype)], _inside(to_field, *link)
            # The kernel would tell a pod to send packets for a Service to the pod that it has translated them to.
            flows.append(Flow(_REDIRECT, [(ETH_SRC, bridge), *packet, *redirect], DROP))
            if not self._catches_all:
                continue
            flows.append(Flow(_BY_KERNEL, [(ETH_SRC, bridge), *packet, to_link], NORMAL))
            if to_field == IPV6_DST:
                for kind in _DISCOVERY:
                    message = [(IP_PROTO, b"\x3a"), (ICMPV6_TYPE, kind)]
                    flows.append(Flow(_BY_KERNEL, [*packet, *message, to_link], NORMAL))
            flows.append(Flow(_STEERED, [*packet, _UNICAST, _inside(to_field, *own)], goto_table(_TABLE)))
            if own != link:
                outgoing = [*packet, _UNICAST, _inside(from_field, *own), to_link]
                flows.append(Flow(_STEERED, outgoing, goto_table(_TABLE)))
        return flows

    def cookie(self, mac: str) -> int:
        """Return the cookie of the flows of ``of_bridge``: another MAC or another subnet gives another cookie."""
        return bridge_cookie(f"{mac} {self._links} {self._own}")


def _inside(field: int, address: bytes, length: int) -> tuple[int, bytes]:
    """Match addresses of a network, which is given by any address of it and the prefix length."""
    bits = len(address) * 8
    mask = (1 << bits) - (1 << bits - length)
    network = int.from_bytes(address, "big") & mask
    return masked(field, network.to_bytes(len(address), "big"), mask.to_bytes(len(address), "big"))


def _own_subnet(conf: NetConf, link: tuple[bytes, int]) -> tuple[bytes, int]:
    """Return the part of the link whose addresses are this node's: with EdgeVPN.io, other nodes' pods are on it too."""
    for cidr in _subnets(conf):
        if is_cidr(cidr):
            address, length = split_cidr(cidr)
            if len(address) == len(link[0]) and length > link[1] and is_in(address, *link):
                return address, length
    return link


def _subnets(conf: NetConf) -> list[object]:
    """Return the node's subnets as the configuration has them, unchecked."""
    named = conf.raw.get("nodeSubnets")
    if isinstance(named, list):
        return named
    ranges = conf.raw["ipam"].get("ranges")
    firsts = [each[0] for each in ranges if isinstance(each, list) and each] if isinstance(ranges, list) else []
    return [first.get("subnet") for first in firsts if isinstance(first, dict)]
