# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a firewall's base chain does with a packet: accept it or drop it, as far as its rules say so. Pure.

Rules come from nft_rules and iptables_rules. A match that these do not understand may be true or false: then a drop
does not count, and an accept makes the verdict of the whole chain uncertain. So what is called a certain drop is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

ACCEPT, DROP, RETURN, JUMP, GOTO, CONTINUE, ELSEWHERE = (
    "accept",
    "drop",
    "return",
    "jump",
    "goto",
    "continue",
    "elsewhere",
)
"""Verdicts of a rule. A rejected packet is dropped; ELSEWHERE is the verdict of a program, by a queue."""

FORWARD, INPUT, PREROUTING, POSTROUTING = "forward", "input", "prerouting", "postrouting"
"""Hooks, as nftables names them."""

_CONNTRACK, _SOURCE_NAT = -200, 100
"""NF_IP_PRI_CONNTRACK and NF_IP_PRI_NAT_SRC of linux/netfilter_ipv4.h: at which priority connections are looked up at
the hook prerouting, and source addresses translated at postrouting."""

_MOST_RULES = 20_000
"""Rules that one evaluation looks at. A larger ruleset gives no verdict."""

_MOST_JUMPS = 16
"""Depth of jumps that the kernel allows: NFT_JUMP_STACK_SIZE of net/netfilter/nf_tables.h."""


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection, without a mark. None stands for what is not known."""

    source: str
    """An address, as ``destination``. One of the two is known: it says the IP version."""
    destination: str | None = None
    incoming: str | None = None
    """The interface by which it comes."""
    outgoing: str | None = None
    """The interface by which it leaves; None for a packet to this node."""
    protocol: str = "tcp"
    source_port: int | None = 40000
    destination_port: int | None = 8080
    """Ports that no firewall has a rule of its own for: they stand for all others."""
    is_tracked: bool = True
    """Whether conntrack has seen the packet. Before that, nothing is known of its connection."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_address(self.source).version


@dataclass(frozen=True)
class Rule:
    """A rule as a function of the packet: whether it applies (None: not known), the verdict, and its target."""

    apply: Callable[[Packet], tuple[bool | None, str, str]]
    handle: int = 0
    """nftables' handle; with iptables the rule's number in its chain, from 1."""
    comment: str = ""


@dataclass(frozen=True)
class BaseChain:
    """A chain that the kernel calls from a hook, and the chains that it can jump to."""

    family: str
    """``ip``, ``ip6`` or ``inet``."""
    table: str
    name: str
    policy: str
    """ACCEPT or DROP."""
    rules: Sequence[Rule]
    others: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    """The table's other chains by name."""
    is_legacy: bool = False
    """Whether it belongs to iptables-legacy, whose rules nftables does not see."""
    hook: str = FORWARD
    priority: int = 0
    """Where it stands among the chains of its hook: those with lower numbers get packets first."""

    def __str__(self) -> str:
        return f"{'iptables-legacy' if self.is_legacy else self.family} {self.table} {self.name}"

    def sees(self, packet: Packet) -> bool:
        """Return whether the chain gets packets of this IP version."""
        return self.family in ("inet", "ip" if packet.version == 4 else "ip6")

    @property
    def is_before_conntrack(self) -> bool:
        """Whether packets come here before their connection is looked up."""
        return self.hook == PREROUTING and self.priority <= _CONNTRACK

    @property
    def is_after_source_nat(self) -> bool:
        """Whether packets may come here with another source address, or not at all because theirs was translated."""
        return self.hook == POSTROUTING and self.priority >= _SOURCE_NAT


@dataclass(frozen=True)
class Fate:
    """What a base chain does with a packet."""

    is_dropped: bool
    is_certain: bool = True
    """False where a rule that was not understood may accept the packet first."""
    rule: Rule | None = None
    """The rule of the base chain that drops the packet, or jumps to the rule that does; None for the policy."""


def fate_of(packet: Packet, chain: BaseChain) -> Fate:
    """Return what the chain does with the packet."""
    walk = _Walk(replace(packet, is_tracked=not chain.is_before_conntrack), chain.others)
    try:
        verdict, rule = walk.chain(chain.rules, 0)
    except (AttributeError, LookupError, TypeError, ValueError):
        # A rule of a shape that is not known here, as a later nftables may print it.
        return Fate(is_dropped=False, is_certain=False)
    if walk.is_exhausted:
        return Fate(is_dropped=False, is_certain=False)
    is_dropped = (verdict or chain.policy) == DROP
    return Fate(is_dropped, not walk.may_be_accepted if is_dropped else True, rule if verdict == DROP else None)


class _Walk:
    """One packet's way through the chains."""

    def __init__(self, packet: Packet, others: Mapping[str, Sequence[Rule]]) -> None:
        self._packet = packet
        self._others = others
        self._left = _MOST_RULES
        self.may_be_accepted = False

    @property
    def is_exhausted(self) -> bool:
        return self._left <= 0

    def chain(self, rules: Sequence[Rule], depth: int) -> tuple[str | None, Rule | None]:
        """Return ACCEPT or DROP and the rule that says so, or None for a chain that ends without a verdict."""
        for rule in rules:
            self._left -= 1
            if self.is_exhausted or depth > _MOST_JUMPS:
                self._left = 0
                return None, None
            applies, verdict, target = rule.apply(self._packet)
            if applies is False or verdict == CONTINUE:
                continue
            if verdict in (JUMP, GOTO):
                inner, _rule = self.chain(self._others.get(target, ()), depth + 1)
                if applies and inner is not None:
                    return inner, rule
                if applies and verdict == GOTO:
                    return None, None
                # A jump that may happen: what is accepted there may be accepted here. A goto also skips the rest.
                self.may_be_accepted |= inner == ACCEPT or (applies is None and verdict == GOTO and inner is None)
            elif applies and verdict in (ACCEPT, DROP):
                return verdict, rule
            elif applies and verdict == RETURN:
                return None, None
            else:
                self.may_be_accepted |= verdict != DROP
        return None, None
