# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""iptables' rules as ``iptables-legacy-save`` prints them, made into rules that verdict evaluates. Pure.

iptables-nft needs no such reading: its rules are nftables'.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from .verdict import (
    ACCEPT,
    CONTINUE,
    DROP,
    ELSEWHERE,
    FORWARD,
    GOTO,
    INPUT,
    JUMP,
    POSTROUTING,
    PREROUTING,
    RETURN,
    BaseChain,
    Packet,
    Rule,
)

FILTER = "filter"

TABLES = {
    PREROUTING: ("raw", "mangle"),
    INPUT: ("mangle", FILTER),
    FORWARD: ("mangle", FILTER),
    POSTROUTING: ("mangle",),
}
"""By hook, the tables of iptables that may drop there. iptables refuses to drop in table nat."""

_PRIORITIES = {"raw": -300, "mangle": -150, FILTER: 0}
"""NF_IP_PRI_* of linux/netfilter_ipv4.h, by table."""

_TARGETS = {
    "ACCEPT": ACCEPT,
    "DROP": DROP,
    "REJECT": DROP,
    "RETURN": RETURN,
    "QUEUE": ELSEWHERE,
    "NFQUEUE": ELSEWHERE,
    "TPROXY": ACCEPT,
}

_Condition = Callable[[Packet], "bool | None"]


def base_chain(text: str, family: str, table: str, hook: str) -> BaseChain | None:
    """Return the chain of a table at a hook, with its rules, from what iptables-save prints of it; None without one."""
    name, policy = hook.upper(), None
    chains: dict[str, list[Rule]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            chain, target = line[1:].split()[:2]
            chains[chain] = []
            policy = target if chain == name else policy
        elif line.startswith("-A "):
            chain, rest = _words(line)[1], _words(line)[2:]
            rules = chains.setdefault(chain, [])
            rules.append(_rule(rest, len(rules) + 1))
    if policy is None:
        return None
    others = {chain: rules for chain, rules in chains.items() if chain != name}
    return BaseChain(
        family,
        table,
        name,
        DROP if policy == "DROP" else ACCEPT,
        chains[name],
        others,
        is_legacy=True,
        hook=hook,
        priority=_PRIORITIES[table],
    )


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _rule(words: list[str], number: int) -> Rule:
    conditions: list[_Condition] = []
    verdict, target, comment, is_negated = CONTINUE, "", "", False
    queue = iter(words)
    for word in queue:
        if word == "!":
            is_negated = True
            continue
        if word in ("-j", "-g"):
            name = next(queue, "")
            is_chain = word == "-g" or name not in _TARGETS
            verdict, target = ((GOTO if word == "-g" else JUMP), name) if is_chain else (_TARGETS[name], "")
            # What follows are the target's own options.
            break
        if word == "--comment":
            comment = next(queue, "")
        elif word == "-m":
            next(queue, "")
        elif word in _CONDITIONS:
            conditions.append(_condition(_CONDITIONS[word], next(queue, ""), is_negated))
        elif word.startswith("-"):
            # A match that is not known here, with or without a value.
            conditions.append(lambda _packet: None)
        is_negated = False

    def apply(packet: Packet) -> tuple[bool | None, str, str]:
        answers = [condition(packet) for condition in conditions]
        return (False if False in answers else None if None in answers else True), verdict, target

    return Rule(apply, number, comment)


def _condition(matches: Callable[[Packet, str], bool | None], value: str, is_negated: bool) -> _Condition:
    def condition(packet: Packet) -> bool | None:
        try:
            answer = matches(packet, value)
        except ValueError:
            return None
        return answer if answer is None else answer != is_negated

    return condition


def _is_interface(name: str | None, pattern: str) -> bool | None:
    if name is None:
        return None
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _is_in(address: str | None, network: str) -> bool | None:
    return None if address is None else ip_address(address) in ip_network(network, strict=False)


def _is_port(port: int | None, listed: str) -> bool | None:
    if port is None:
        return None
    ranges = [part.partition(":") for part in listed.split(",")]
    return any(int(first or 0) <= port <= int(last or (65535 if colon else first)) for first, colon, last in ranges)


_CONDITIONS: dict[str, Callable[[Packet, str], bool | None]] = {
    "-i": lambda packet, value: _is_interface(packet.incoming, value),
    "-o": lambda packet, value: _is_interface(packet.outgoing, value),
    "-s": lambda packet, value: _is_in(packet.source, value),
    "-d": lambda packet, value: _is_in(packet.destination, value),
    "-p": lambda packet, value: value == packet.protocol,
    "--dport": lambda packet, value: _is_port(packet.destination_port, value),
    "--dports": lambda packet, value: _is_port(packet.destination_port, value),
    "--sport": lambda packet, value: _is_port(packet.source_port, value),
    "--sports": lambda packet, value: _is_port(packet.source_port, value),
    "--ctstate": lambda packet, value: "NEW" in value.split(",") if packet.is_tracked else None,
    "--state": lambda packet, value: "NEW" in value.split(",") if packet.is_tracked else None,
}
