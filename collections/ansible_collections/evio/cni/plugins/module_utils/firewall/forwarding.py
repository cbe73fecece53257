# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let the host's firewalls accept the packets of pods and of the overlay, and name the chains that drop them.

A drop is final, whatever a chain in another table accepts: the accepting rule must be in the chain that drops. It is
put into the chains of iptables and iptables-legacy, before the rule that drops and behind what the site has decided
before; firewalld is told by its own program. A chain that somebody has written for nft is the site's: it is named.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from ..cidr import ip_version
from ..kernel import iptables_legacy, nft
from . import firewalld, iptables_rules, nft_rules
from .network_rules import TABLE
from .verdict import BaseChain, Fate, Packet, Rule, fate_of

_IN, _OUT, _WITHIN = "iifname", "oifname", "within"
"""Matches of rules that accept what is forwarded: by the interface it comes in by, leaves by, or both."""

_FORWARD, _INPUT = "forward", "input"

CLUSTER, INTERNET, HOST_PORT, AGENTS = "cluster", "internet", "host port", "agents"
"""What a packet is for: from pod or node to another, from a pod to the internet, from outside to a pod, from another
node's agent or WireGuard to this node's."""

_DROPS = {
    CLUSTER: "forwarded packets, so pods do not reach each other",
    INTERNET: "what pods send to the internet",
    AGENTS: "the overlay's packets to this node",
}
"""By what the packet is for, what a chain drops. HOST_PORT is not named: many a site lets the answers in alone."""

_PREFIX = "evio.cni"
"""Begins the comments of our rules."""

_FAMILIES = ("ip", "ip6")

_INTERNET = {4: "8.8.8.8", 6: "2001:4860:4860::8888"}
"""By IP version, an address of the internet for packets that are only thought of."""

_STRANGER = {4: "172.31.255.254", 6: "fd31:255:254::1"}
"""By IP version, an address that is no pod's."""


@dataclass(frozen=True)
class Need:
    """A packet that the host must accept, and the rule that accepts it and its like."""

    packet: Packet
    match: str
    """``iifname``, ``oifname``, ``within``, or ``input`` for packets to a UDP port of this node."""
    interface: str | None
    """The interface that the rule names; None for every interface."""
    port: int | None = None
    """The rule's UDP port."""
    reach: str = CLUSTER
    """What the packet is for: CLUSTER, INTERNET, HOST_PORT, or AGENTS."""
    stranger: Packet | None = None
    """The same packet of something that is no pod. A chain that accepts this one drops pods on purpose."""

    @property
    def hook(self) -> str:
        return _INPUT if self.match == _INPUT else _FORWARD

    @property
    def comment(self) -> str:
        """The comment by which we recognise our rule."""
        return " ".join(map(str, filter(None, (_PREFIX, self.match, self.interface, self.port))))

    @property
    def _interface_keys(self) -> list[str]:
        """The keys of nft that the rule compares with the interface."""
        if not self.interface:
            return []
        return {_OUT: [_OUT], _WITHIN: [_IN, _OUT]}.get(self.match, [_IN])

    @property
    def nft_rule(self) -> str:
        interface = "".join(f'{key} "{self.interface}" ' for key in self._interface_keys)
        port = f"udp dport {self.port} " if self.port else ""
        return f"{interface}{port}counter accept"

    @property
    def iptables_rule(self) -> list[str]:
        options = {_IN: "-i", _OUT: "-o"}
        interface = [word for key in self._interface_keys for word in (options[key], str(self.interface))]
        port = ["-p", "udp", "--dport", str(self.port)] if self.port else []
        return [*interface, *port, "-m", "comment", "--comment", self.comment, "-j", "ACCEPT"]


@dataclass(frozen=True)
class Blocked:
    """A chain that drops packets and into which we put no rule."""

    chain: str
    """Its family, table and name."""
    reach: str
    """What the packets are for."""
    remedy: str
    """The command that makes the chain accept them."""

    def __str__(self) -> str:
        return f"{self.chain} drops {_DROPS[self.reach]}; remedy: {self.remedy}"


def forwarding_needs(interface: str, packets: Iterable[Packet]) -> list[Need]:
    """Return a need for each packet that comes in by the interface, and for each that leaves by it."""
    needs = []
    for packet in packets:
        if packet.incoming == interface:
            needs.append(Need(packet, _IN, interface))
        if packet.outgoing == interface:
            needs.append(Need(packet, _OUT, interface))
    return needs


def pod_needs(bridge: str, addresses: Iterable[str]) -> list[Need]:
    """Return what the pod bridge needs: packets between pods, from pods to the internet, to a hostPort or NodePort.

    ``addresses`` are one or more of pods or gateways, of each IP version; with or without a prefix length.
    """
    needs: dict[int, list[Need]] = {}
    for address in addresses:
        pod = address.partition("/")[0]
        version = ip_version(pod)
        link, internet, stranger = uplink(version), _INTERNET[version], _STRANGER[version]
        out, back = Packet(pod, internet, bridge, link), Packet(internet, pod, link, bridge)
        # Packets between pods of the node pass its kernel: ovs/pod_steering.
        needs[version] = [
            Need(Packet(pod, str(ip_address(pod) + 1), bridge, bridge), _WITHIN, bridge),
            Need(out, _IN, bridge, reach=INTERNET, stranger=replace(out, source=stranger, incoming="")),
            Need(back, _OUT, bridge, reach=HOST_PORT, stranger=replace(back, destination=stranger, outgoing="")),
        ]
    return [need for those in needs.values() for need in those]


def input_need(packet: Packet, interface: str | None = None) -> Need:
    """Return what a UDP packet to this node needs: a rule for its port, by one interface or by every interface."""
    return Need(packet, _INPUT, interface, packet.destination_port, AGENTS)


def uplink(version: int = 4) -> str | None:
    """Return the interface of the default route of an IP version; None where there is none, or it is not known."""
    try:
        with open("/proc/net/route" if version == 4 else "/proc/net/ipv6_route", encoding="ascii") as listed:
            routes = [line.split() for line in listed]
    except OSError:
        return None
    for fields in routes:
        if version == 4 and fields[1:2] == ["00000000"] and fields[7:8] == ["00000000"]:
            return fields[0]
        if version == 6 and fields[0] == "0" * 32 and fields[1] == "00" and fields[-1] != "lo":
            return fields[-1]
    return None


def accept(needs: Iterable[Need]) -> list[Blocked]:
    """Insert the missing rules; return the chains that certainly drop a packet all the same."""
    needs = list(needs)
    drops = list(_drops(needs))
    is_changed = False
    for chain, need, fate in drops:
        with contextlib.suppress(nft.NftError, iptables_legacy.IptablesError):
            if _is_insertable(chain):
                is_changed |= _insert(chain, need)
            elif _is_for_firewalld(chain, need, fate):
                is_changed |= firewalld.accept(need.interface, need.port)
    return _certain(_drops(needs) if is_changed else drops)


def blocked(needs: Iterable[Need]) -> list[Blocked]:
    """Return the chains that certainly drop a packet, and change nothing."""
    return _certain(_drops(list(needs)))


def lacks_rules(needs: Iterable[Need]) -> bool:
    """Return whether ``accept`` would insert a rule, or change firewalld's configuration."""
    return any(
        _is_insertable(chain) or (_is_for_firewalld(chain, need, fate) and firewalld.is_running())
        for chain, need, fate in _drops(list(needs))
    )


def withdraw(interface: str, port: int | None = None) -> None:
    """Delete our rules for the interface, and those for the UDP port."""
    comments = {f"{_PREFIX} {match} {interface}" for match in (_IN, _OUT, _WITHIN)}

    def is_ours(comment: str) -> bool:
        return (
            comment in comments
            or comment.startswith(f"{_PREFIX} {_INPUT} {interface} ")
            or (port is not None and comment == f"{_PREFIX} {_INPUT} {port}")
        )

    for chain in [*_chains(_FORWARD), *_chains(_INPUT)]:
        if _is_insertable(chain):
            _delete(chain, [rule for rule in chain.rules if is_ours(rule.comment)])
    firewalld.withdraw(interface, port)


def _drops(needs: list[Need]) -> Iterator[tuple[BaseChain, Need, Fate]]:
    """Yield each chain that drops a need's packet."""
    for hook in {need.hook: None for need in needs}:
        for chain in _chains(hook):
            for need in needs:
                if need.hook == hook and chain.sees(need.packet):
                    fate = fate_of(need.packet, chain)
                    if fate.is_dropped and not _is_on_purpose(need, chain):
                        yield chain, need, fate


def _is_on_purpose(need: Need, chain: BaseChain) -> bool:
    return need.stranger is not None and not fate_of(need.stranger, chain).is_dropped


def _certain(drops: Iterable[tuple[BaseChain, Need, Fate]]) -> list[Blocked]:
    found = [
        Blocked(str(chain), need.reach, _remedy(chain, need))
        for chain, need, fate in drops
        if fate.is_certain and need.reach in _DROPS
    ]
    return list(dict.fromkeys(found))


def _chains(hook: str) -> list[BaseChain]:
    """Return the filter chains at a hook, of nftables and of iptables-legacy; none where their programs are missing."""
    found: list[BaseChain] = []
    with contextlib.suppress(nft.NftError):
        tables = {
            (item["chain"]["family"], item["chain"]["table"])
            for item in nft.list_objects("chains")
            if item.get("chain", {}).get("hook") == hook
            and item["chain"]["family"] in ("inet", *_FAMILIES)
            and item["chain"]["table"] != TABLE
        }
        for family, table in sorted(tables):
            # A table that was deleted meanwhile drops nothing.
            with contextlib.suppress(nft.NftError):
                found += nft_rules.base_chains(nft.list_objects("table", family, table), hook)
    for family in _FAMILIES:
        with contextlib.suppress(iptables_legacy.IptablesError):
            chain = iptables_rules.base_chain(iptables_legacy.save(family), family, hook)
            found += [chain] if chain is not None else []
    return found


def _is_insertable(chain: BaseChain) -> bool:
    """Return whether we put rules into the chain: it is iptables' own, in one of its two variants."""
    return chain.family in _FAMILIES and (chain.table, chain.name) in (("filter", "FORWARD"), ("filter", "INPUT"))


def _is_for_firewalld(chain: BaseChain, need: Need, fate: Fate) -> bool:
    return fate.is_certain and need.reach in _DROPS and firewalld.is_chain(chain)


def _insert(known: BaseChain, need: Need) -> bool:
    """Insert the need's rule before the rule that drops its packet, and delete it elsewhere in the chain.

    Returns whether the rule was missing: another need's rule may accept the packet by now.
    """
    for chain in _chains(need.hook):
        if str(chain) != str(known):
            continue
        fate = fate_of(need.packet, chain)
        if not fate.is_dropped:
            return False
        if chain.is_legacy:
            number = fate.rule.handle if fate.rule else len(chain.rules) + 1
            iptables_legacy.run(chain.family, ["-I", chain.name, str(number), *need.iptables_rule])
        else:
            verb, place = ("insert", f" handle {fate.rule.handle}") if fate.rule else ("add", "")
            location = f"{chain.family} {chain.table} {chain.name}"
            nft.apply(f'{verb} rule {location}{place} {need.nft_rule} comment "{need.comment}"\n')
        _delete(chain, [rule for rule in chain.rules if rule.comment == need.comment])
        return True
    return False


def _delete(chain: BaseChain, rules: Iterable[Rule]) -> None:
    """Delete these rules of ours; one that somebody has deleted meanwhile is no failure."""
    for rule in rules:
        with contextlib.suppress(nft.NftError, iptables_legacy.IptablesError):
            if chain.is_legacy:
                iptables_legacy.delete(chain.family, chain.name, rule.comment)
            else:
                nft.apply(f"delete rule {chain.family} {chain.table} {chain.name} handle {rule.handle}\n")


def _remedy(chain: BaseChain, need: Need) -> str:
    if firewalld.is_chain(chain):
        return firewalld.remedy(need.interface, need.port)
    if _is_insertable(chain):
        program = {"ip": "iptables", "ip6": "ip6tables"}[chain.family] + ("-legacy" if chain.is_legacy else "")
        return f"{program} -I {chain.name} {shlex.join(need.iptables_rule)}"
    rule = need.nft_rule.replace("counter ", "")
    return f"nft insert rule {chain.family} {chain.table} {chain.name} {shlex.quote(rule)}, there and in its file"
