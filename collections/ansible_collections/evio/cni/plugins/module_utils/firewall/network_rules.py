# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node's nftables rules for a network: what pods send out of the overlays gets the node's address (masquerade), and
where the datapath is vswitchd's, this kernel drops what it sees of pods' frames itself.

They speak of the node's subnet and not of pods, so a pod's DEL has nothing to undo. They are there from the first ADD
after a boot on; each ADD asks the kernel, by one netlink message a chain, whether they still are.
"""

from __future__ import annotations

import _socket
from _struct import pack, unpack_from

from ..cidr import AF_INET, AF_INET6, split_cidr
from ..kernel.netlink import NETLINK_NETFILTER, NetlinkError, NetlinkSocket, attr_string, attributes
from ..names import HOST_IFNAME, short_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf

TABLE, FAMILY = "evio_cni", "inet"
_NFT_MSG_GETCHAIN = (10 << 8) | 4
"""NFNL_SUBSYS_NFTABLES of linux/netfilter/nfnetlink.h, and its message."""
_NFPROTO_INET = 1
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_USE = 1, 3, 6
_ENOENT = 2
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_NAT = "type nat hook postrouting priority srcnat; policy accept;"
_EARLY = "type filter hook prerouting priority raw; policy accept;"
HOST_ENDS = "host-ends"
_CLOSED = f'iifname "{HOST_IFNAME}*" drop comment "pods reach this node by its bridge alone"'


class NodeRules:
    """The rules of one network: each of its chains, by name, with its hook and what is in it."""

    __slots__ = ("_network", "chains")

    def __init__(self, network: str, chains: dict[str, tuple[str, list[str]]]) -> None:
        self._network = network
        self.chains = chains

    def missing(self) -> list[str]:
        """Those of the chains that the kernel does not have with all their rules. Raises NetlinkError."""
        netlink = NetlinkSocket(NETLINK_NETFILTER)
        try:
            return [name for name, (_hook, rules) in self.chains.items() if _count(netlink, name) < len(rules)]
        finally:
            netlink.close()

    def ensure(self) -> bool:
        """Put the rules in place, and away with those that the network had before; False if they were there."""
        if not self.missing():
            return False
        from ..kernel import nft

        stale = [name for name in nft.chains(TABLE, FAMILY) if name.startswith(_prefix(self._network))]
        nft.apply(self.ruleset([name for name in stale if name not in self.chains]))
        return True

    def ruleset(self, stale: list[str]) -> str:
        """What nft is told, as one transaction that may be repeated."""
        lines = [f"add table {FAMILY} {TABLE}"]
        for name, (hook, rules) in self.chains.items():
            lines.append(f"add chain {FAMILY} {TABLE} {name} {{ {hook} }}")
            lines.append(f"flush chain {FAMILY} {TABLE} {name}")
            lines += (f"add rule {FAMILY} {TABLE} {name} {rule}" for rule in rules)
        for name in stale:
            lines += [f"flush chain {FAMILY} {TABLE} {name}", f"delete chain {FAMILY} {TABLE} {name}"]
        return "\n".join(lines) + "\n"


def rules_of(conf: NetConf, addresses: list[str]) -> NodeRules:
    """The network's rules: for the gateways' subnets, or where there is no gateway for those of a pod's addresses.

    A chain that speaks of subnets is named by its content: one of that name is the one that is wanted.
    """
    chains = {}
    if conf.ip_masq:
        subnets = list(dict.fromkeys(_network(address) for address in (conf.gateways or addresses)))
        content = " ".join([conf.bridge, *subnets, "-", *conf.cluster_cidrs])
        chains[_prefix(conf.name) + short_hash(content)] = (_NAT, _masquerade(conf, subnets))
    if conf.datapath_type == "netdev":
        chains[HOST_ENDS] = (_EARLY, [_CLOSED])
    return NodeRules(conf.name, chains)


def _masquerade(conf: NetConf, subnets: list[str]) -> list[str]:
    rules = []
    for subnet in subnets:
        family = 6 if ":" in subnet else 4
        word = "ip6" if family == 6 else "ip"
        kept = [cidr for cidr in [subnet, *conf.cluster_cidrs] if (6 if ":" in cidr else 4) == family]
        for cidr in dict.fromkeys([*kept, _MULTICAST[family]]):
            rules.append(f"{word} saddr {subnet} {word} daddr {cidr} accept")
        rules.append(f'{word} saddr {subnet} oifname != "{conf.bridge}" masquerade comment "{conf.name[:60]}"')
    return rules


def _count(netlink: NetlinkSocket, chain: str) -> int:
    """How many rules are in a chain; -1 where there is none."""
    query = (
        pack("=BBH", _NFPROTO_INET, 0, 0) + attr_string(_NFTA_CHAIN_TABLE, TABLE) + attr_string(_NFTA_CHAIN_NAME, chain)
    )
    try:
        answer = netlink.ask("rules of the node", _NFT_MSG_GETCHAIN, query)
    except NetlinkError as error:
        if error.errno == _ENOENT:
            return -1
        raise
    return int(unpack_from(">I", attributes(answer, 4).get(_NFTA_CHAIN_USE, b"\0\0\0\0"))[0])


def _prefix(network: str) -> str:
    return f"net-{short_hash(network)}-"


def _network(cidr: str) -> str:
    """The network of an address: ``10.244.3.0/24`` of ``10.244.3.1/24``."""
    address, length = split_cidr(cidr)
    bits = len(address) * 8
    masked = int.from_bytes(address, "big") >> (bits - length) << (bits - length)
    family = AF_INET if bits == 32 else AF_INET6
    return f"{_socket.inet_ntop(family, masked.to_bytes(len(address), 'big'))}/{length}"
