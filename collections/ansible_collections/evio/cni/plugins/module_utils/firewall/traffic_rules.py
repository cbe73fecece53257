# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nftables' rules that tell the overlay's agent to which nodes this node and its pods send packets.

The kernel keeps a set of destinations: a node's address, or the subnet of its pods. A packet to a destination that is
not in the set puts it there for some seconds, and its header is logged to the agent. Further packets cost one look into
the set. The rules are in a table of their own, and they neither drop nor change a packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from ..cidr import AF_INET6, family, split_cidr
from ..kernel import nft
from ..kernel.netlink import NETLINK_NETFILTER, NetlinkSocket
from ..names import short_hash
from .network_rules import FAMILY, rule_count

TABLE = "evio_traffic"

REPORT_SECONDS = 10
"""Seconds after which packets to a destination are reported again."""

_MOST_DESTINATIONS = 65536

_PRIORITY = "priority filter + 10; policy accept;"


class TrafficRules:
    """The rules for one overlay."""

    def __init__(self, interface: str, host_cidr: str, pod_cidrs: Iterable[str], subnets: Iterable[str], group: int):
        """``subnets`` are the pod subnets of nodes, inside ``pod_cidrs``; ``group`` is the log group of the agent."""
        lengths = {family(subnet): split_cidr(subnet)[1] for subnet in sorted(subnets, key=lambda s: split_cidr(s)[1])}
        rules = [_report(host_cidr, None, group)]
        # The longest prefix tells all nodes apart. A node with a larger subnet has several destinations then.
        rules += (_report(cidr, lengths[family(cidr)], group) for cidr in pod_cidrs if family(cidr) in lengths)
        self._rules = len(rules)
        self._chain = f"report-{short_hash(' '.join([interface, *rules]))}"
        self._content = [
            f"add set {FAMILY} {TABLE} {name} {{ type {kind}; flags dynamic,timeout; timeout {REPORT_SECONDS}s; "
            f"size {_MOST_DESTINATIONS}; }}"
            for name, kind in (("sent4", "ipv4_addr"), ("sent6", "ipv6_addr"))
        ]
        self._content.append(f"add chain {FAMILY} {TABLE} {self._chain}")
        self._content += (f"add rule {FAMILY} {TABLE} {self._chain} {rule}" for rule in rules)
        for hook, match in (
            ("output", f'oifname "{interface}"'),
            # What a relay passes from one node to another is not its own.
            ("forward", f'oifname "{interface}" iifname != "{interface}"'),
        ):
            self._content.append(f"add chain {FAMILY} {TABLE} {hook} {{ type filter hook {hook} {_PRIORITY} }}")
            self._content.append(f"add rule {FAMILY} {TABLE} {hook} {match} jump {self._chain}")

    def are_in_place(self) -> bool:
        """Return whether the kernel has these rules. Raises NetlinkError."""
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            return rule_count(netlink, self._chain, TABLE) == self._rules + 2 and all(
                rule_count(netlink, hook, TABLE) == 1 for hook in ("output", "forward")
            )

    def install(self) -> None:
        """Put the rules in place, in place of all others of the table: all that is sent is reported anew.

        Raises NftError.
        """
        lines = [f"add table {FAMILY} {TABLE}", f"delete table {FAMILY} {TABLE}", f"add table {FAMILY} {TABLE}"]
        nft.apply("\n".join([*lines, *self._content]) + "\n")


def remove_traffic_rules() -> None:
    """Delete the table, if there is one. Raises NftError."""
    nft.apply(f"add table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n")


def _report(network: str, length: int | None, group: int) -> str:
    """Return the rule that reports packets to a network, by the first ``length`` bits of the destination or all."""
    ip, name, none = ("ip6", "sent6", "::") if family(network) == AF_INET6 else ("ip", "sent4", "0.0.0.0")
    key = f"{ip} daddr" if length is None else f"{ip} daddr & {ip_network(f'{none}/{length}').netmask}"
    report = f"log group {group} snaplen 64 queue-threshold 1"
    return f"{ip} daddr {network} {key} != @{name} add @{name} {{ {key} }} {report}"
