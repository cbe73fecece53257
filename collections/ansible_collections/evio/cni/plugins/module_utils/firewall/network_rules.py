# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node's nftables rules for a network: masquerade, and on userspace bridges a drop rule for pods' host ends.

The rules name the node's subnet and not single pods, so DEL has nothing to undo. The first ADD after a boot puts them
in place; each further ADD asks the kernel, by one netlink message per chain, whether they are still there. The rules of
the overlay's interface, in the same table, are ``overlay_rules``.
"""

from __future__ import annotations

import _socket
from _struct import pack, unpack_from

from ..cidr import AF_INET6, family, split_cidr
from ..kernel.netlink import NETLINK_NETFILTER, NetlinkError, NetlinkSocket, attr_string, parse_attributes
from ..kernel.numbers import ENOENT
from ..names import HOST_IFNAME, short_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cni.netconf import NetConf

TABLE, FAMILY = "evio_cni", "inet"
"""Our table of nftables."""

HOST_ENDS = "host-ends"
"""Our chain that drops packets which this kernel sees on pods' host ends."""

_HOST_ENDS_RULE = f'iifname "{HOST_IFNAME}*" drop comment "pods reach this node by its bridge alone"'

_NAT_HOOK = "type nat hook postrouting priority srcnat; policy accept;"

_RAW_HOOK = "type filter hook prerouting priority raw; policy accept;"

_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
"""By IP version."""

_NFT_MSG_GETCHAIN = (10 << 8) | 4
"""NFNL_SUBSYS_NFTABLES (linux/netfilter/nfnetlink.h) and the message of linux/netfilter/nf_tables.h."""

_NFPROTO_INET = 1

_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_USE = 1, 3, 6


class NetworkRules:
    """The rules of one network. ``chains`` has the hook and the rules of each chain, by the chain's name."""

    __slots__ = ("_kept", "_prefix", "chains")

    def __init__(self, prefix: str, chains: dict[str, tuple[str, list[str]]], kept: str = "") -> None:
        """``prefix`` begins the names of the network's chains: another chain with this prefix is outdated.

        ``kept`` begins the names of chains that are not: those of other pods.
        """
        self._prefix = prefix
        self._kept = kept
        self.chains = chains

    def missing(self) -> list[str]:
        """Return the names of the chains that the kernel does not have with all their rules. Raises NetlinkError."""
        if not self.chains:
            return []  # Without asking: the kernel may have no netfilter then.
        netlink = NetlinkSocket(NETLINK_NETFILTER)
        try:
            return [name for name, (_hook, rules) in self.chains.items() if rule_count(netlink, name) < len(rules)]
        finally:
            netlink.close()

    def ensure(self) -> bool:
        """Put missing rules in place and delete the network's outdated chains; return whether any were missing.

        Raises NetlinkError and NftError.
        """
        if not self.missing():
            return False
        # Rare path, once per boot: the import of json and subprocess takes longer than a whole ADD.
        from ..kernel import nft

        others = [name for name in nft.chains(TABLE, FAMILY) if name not in self.chains]
        outdated = [name for name in others if name.startswith(self._prefix)]
        nft.apply(self._ruleset([name for name in outdated if not (self._kept and name.startswith(self._kept))]))
        return True

    def _ruleset(self, outdated: list[str]) -> str:
        """Return the commands for nft: one transaction, which can be repeated."""
        lines = [f"add table {FAMILY} {TABLE}"]
        for name, (hook, rules) in self.chains.items():
            lines.append(f"add chain {FAMILY} {TABLE} {name} {{ {hook} }}")
            lines.append(f"flush chain {FAMILY} {TABLE} {name}")
            lines += (f"add rule {FAMILY} {TABLE} {name} {rule}" for rule in rules)
        for name in outdated:
            lines += [f"flush chain {FAMILY} {TABLE} {name}", f"delete chain {FAMILY} {TABLE} {name}"]
        return "\n".join(lines) + "\n"


def rules_of(conf: NetConf, addresses: list[str]) -> NetworkRules:
    """Return the rules of a network: for its gateways' subnets, or without gateways for those of a pod's addresses.

    The name of a chain with subnets contains a hash of its content: if the name is there, so is the content.
    """
    chains = {}
    prefix = _prefix(conf.name)
    kept = _kept_prefix(conf)
    subnets = list(dict.fromkeys(_subnet(address) for address in (conf.gateways or addresses)))
    if conf.ip_masq and subnets:
        content = " ".join([conf.bridge, *subnets, "-", *conf.cluster_cidrs])
        chains[(kept or prefix) + short_hash(content)] = (_NAT_HOOK, _masquerade(conf, subnets))
    if conf.datapath_type == "netdev":
        chains[HOST_ENDS] = (_RAW_HOOK, [_HOST_ENDS_RULE])
    return NetworkRules(prefix, chains, kept)


def rules_of_pods(conf: NetConf, pods: list[list[str]]) -> NetworkRules:
    """Return the rules that pods with these addresses need together; without pods, those that every pod needs."""
    distinct = (pods if not conf.gateways else []) or [[]]
    chains = [rules_of(conf, addresses).chains for addresses in distinct]
    # An ADD that is running has a chain that the caller does not know.
    return NetworkRules(
        _prefix(conf.name), {name: chain for one in chains for name, chain in one.items()}, _kept_prefix(conf)
    )


def delete_unused_chains(conf: NetConf, pods: Callable[[], list[list[str]] | None]) -> None:
    """Delete the chains of subnets in which a network without gateways has no pods any more.

    ``pods`` returns the addresses of each pod, or None while an ADD may run whose addresses are not known yet. It is
    called when the chains are listed: whoever has made one of them is known by then. Raises NftError.
    """
    kept = _kept_prefix(conf)
    if not kept:
        return
    from ..kernel import nft

    listed = [name for name in nft.chains(TABLE, FAMILY) if name.startswith(kept)]
    addresses = pods()
    if addresses is None:
        return
    used = rules_of_pods(conf, addresses).chains
    unused = [name for name in listed if name not in used]
    if unused:
        nft.apply("".join(f"{verb} chain {FAMILY} {TABLE} {name}\n" for name in unused for verb in ("flush", "delete")))


def _masquerade(conf: NetConf, subnets: list[str]) -> list[str]:
    """Return rules that masquerade what a subnet sends to anywhere but itself, the cluster and multicast groups."""
    rules = []
    for subnet in subnets:
        version = family(subnet)
        ip, multicast = ("ip6", _MULTICAST[6]) if version == AF_INET6 else ("ip", _MULTICAST[4])
        cluster = [cidr for cidr in conf.cluster_cidrs if family(cidr) == version]
        for cidr in dict.fromkeys([subnet, *cluster, multicast]):
            rules.append(f"{ip} saddr {subnet} {ip} daddr {cidr} accept")
        rules.append(f'{ip} saddr {subnet} oifname != "{conf.bridge}" masquerade comment "{conf.name[:60]}"')
    return rules


def rule_count(netlink: NetlinkSocket, chain: str, table: str = TABLE) -> int:
    """Return how many rules and jumps a chain of an inet table has, or -1 where there is no such chain.

    Raises NetlinkError.
    """
    query = (
        pack("=BBH", _NFPROTO_INET, 0, 0) + attr_string(_NFTA_CHAIN_TABLE, table) + attr_string(_NFTA_CHAIN_NAME, chain)
    )
    try:
        answer = netlink.ask("rules of the node", _NFT_MSG_GETCHAIN, query)
    except NetlinkError as error:
        if error.errno == ENOENT:
            return -1
        raise
    return int(unpack_from(">I", parse_attributes(answer, 4).get(_NFTA_CHAIN_USE, b"\0\0\0\0"))[0])


def _kept_prefix(conf: NetConf) -> str:
    """Return how the names of chains begin that one pod's ADD keeps for other pods.

    Without gateways, pods of several subnets have a chain for each, and one pod's ADD does not know the others.
    """
    if conf.gateways:
        return ""
    return f"{_prefix(conf.name)}{short_hash(' '.join([conf.bridge, '-', *conf.cluster_cidrs]))}-"


def _prefix(network: str) -> str:
    return f"net-{short_hash(network)}-"


def _subnet(cidr: str) -> str:
    """Return the subnet of an address: ``10.244.3.0/24`` for ``10.244.3.1/24``."""
    address, length = split_cidr(cidr)
    host_bits = len(address) * 8 - length
    first = int.from_bytes(address, "big") >> host_bits << host_bits
    return f"{_socket.inet_ntop(family(address), first.to_bytes(len(address), 'big'))}/{length}"
