# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which packets of pods go to the node's kernel instead of straight to another port of the bridge: all between pods.

kube-proxy and portmap translate a Service's address in the node's kernel. A pod's answer must pass the same kernel, or
nothing translates it back; and the kernel must see both directions of the connections that it does not translate, or
its conntrack calls their packets invalid. Pods keep their addresses: nothing is masqueraded for this.

Pure: computes the flow of one port, which is installed with its port security. The flows that the whole bridge needs
for this: bridge_steering. docs/concepts.md compares this with other ways.
"""

from __future__ import annotations

from ..cidr import is_cidr, is_in, split_cidr
from .cookies import bridge_cookie
from .openflow import ETH_DST, ETH_TYPE, IPV4_DST, IPV4_SRC, IPV6_DST, IPV6_SRC, Flow, goto_table, masked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf

TO_KERNEL = 0x6A
"""The table in which packets to the kernel get the bridge's MAC: ports' flows need not know it."""

UNICAST = masked(ETH_DST, b"\0" * 6, b"\1" + b"\0" * 5)

IP_FIELDS = {4: (b"\x08\x00", IPV4_SRC, IPV4_DST), 16: (b"\x86\xdd", IPV6_SRC, IPV6_DST)}
"""By an address's length in bytes: EtherType, and the fields of source and destination."""


class Steering:
    """What is steered on a network's bridge, for each family that the bridge is the gateway of."""

    __slots__ = ("links", "own")

    def __init__(self, conf: NetConf) -> None:
        # The bridge's address is in no VLAN, and isolated pods must not reach each other by the kernel either.
        is_steered = conf.vlan is None and not conf.trunks and not conf.is_isolated
        self.links = [split_cidr(gateway) for gateway in conf.gateways] if is_steered else []
        """Packed gateway and prefix length of what is on the bridge's link, by family; empty if nothing is steered."""
        self.own = [_own_subnet(conf, link) for link in self.links]
        """Of each of them, the part whose addresses are those of this node's pods."""

    def of_port(self, priority: int, sender: list[tuple[int, bytes]], source: bytes) -> list[Flow]:
        """Return the flow that steers what a pod's port sends from one of its addresses; none if nothing is steered.

        ``sender`` are the fields by which port security knows the pod's frames.
        """
        ethertype, from_field, to_field = IP_FIELDS[len(source)]
        return [
            Flow(
                priority,
                [*sender, (ETH_TYPE, ethertype), (from_field, source), UNICAST, inside(to_field, *link)],
                goto_table(TO_KERNEL),
            )
            for link in self.links
            if len(link[0]) == len(source)
        ]

    def cookie(self, mac: str) -> int:
        """Return the cookie of the bridge's flows: another MAC of the bridge, or other subnets, give another cookie."""
        return bridge_cookie(f"{mac} {self.links} {self.own}")


def inside(field: int, address: bytes, length: int) -> tuple[int, bytes]:
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
