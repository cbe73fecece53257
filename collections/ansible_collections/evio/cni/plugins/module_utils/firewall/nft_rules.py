# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nftables' rules as ``nft --json`` prints them (libnftables-json(5)), made into rules that verdict evaluates. Pure.

Rules of iptables-nft are among them: nft prints their interfaces and addresses, and the names of other matches.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from .verdict import ACCEPT, CONTINUE, DROP, ELSEWHERE, GOTO, JUMP, RETURN, BaseChain, Packet, Rule

_UNKNOWN = object()
"""The value of something that is not known of the packet."""

_ABSENT = object()
"""The value of something that the packet does not have, as an IPv6 address: no match on it is true."""

_NO_MATCH = frozenset(
    {"counter", "log", "mangle", "notrack", "comment", "flow", "set", "map", "ct helper", "ct timeout", "dup", "fwd"}
)
"""Statements that neither match nor end the rule."""

_TRANSLATIONS = ("snat", "dnat", "masquerade", "redirect")
"""Statements that end a chain of type nat: the packet goes on."""

_XT_VERDICTS = {
    **dict.fromkeys(("DROP", "REJECT"), DROP),
    **dict.fromkeys(("NFQUEUE", "QUEUE"), ELSEWHERE),
    **dict.fromkeys(("SNAT", "DNAT", "MASQUERADE", "REDIRECT", "NETMAP", "TPROXY"), ACCEPT),
}
"""Targets of iptables that end a chain, and the verdicts that they give."""


def base_chains(objects: Iterable[Mapping[str, Any]], hook: str) -> list[BaseChain]:
    """Return the chains at a hook, with their rules, from the objects of one or more listed tables."""
    rules: dict[tuple[str, str, str], list[Rule]] = {}
    sets: dict[tuple[str, str, str], Any] = {}
    bases = []
    for item in objects:
        for kind, found in item.items():
            if kind in ("set", "map"):
                sets[found["family"], found["table"], found["name"]] = found.get("elem", [])
            elif kind == "chain":
                rules.setdefault((found["family"], found["table"], found["name"]), [])
                if found.get("hook") == hook:
                    bases.append(found)
    for item in objects:
        if found := item.get("rule"):
            place = (found["family"], found["table"], found["chain"])
            rules.setdefault(place, []).append(_rule(found, sets))
    return [
        BaseChain(
            base["family"],
            base["table"],
            base["name"],
            DROP if base.get("policy") == "drop" else ACCEPT,
            rules[base["family"], base["table"], base["name"]],
            {name: those for (family, table, name), those in rules.items() if (family, table) == _table(base)},
            hook=hook,
            priority=base.get("prio", 0),
        )
        for base in bases
    ]


def _table(found: Mapping[str, Any]) -> tuple[str, str]:
    return found["family"], found["table"]


def _rule(found: Mapping[str, Any], sets: Mapping[tuple[str, str, str], Any]) -> Rule:
    table = _table(found)

    def elements(name: str) -> Any:
        return sets.get((*table, name.lstrip("@")), _UNKNOWN)

    def apply(packet: Packet) -> tuple[bool | None, str, str]:
        return _apply(found.get("expr", []), packet, elements)

    return Rule(apply, found.get("handle", 0), found.get("comment", ""))


def _apply(statements: Iterable[Any], packet: Packet, elements: Any) -> tuple[bool | None, str, str]:
    applies: bool | None = True
    for statement in statements:
        kind, content = _statement(statement)
        if kind in _NO_MATCH:
            continue
        if kind in (ACCEPT, DROP, RETURN, CONTINUE, JUMP, GOTO, "reject", "queue"):
            return applies, *_verdict(kind, content)
        if kind in _TRANSLATIONS:
            return applies, ACCEPT, ""
        if kind == "xt":
            content = content if isinstance(content, dict) else {}
            if content.get("type") == "target":
                if content.get("name") in _XT_VERDICTS:
                    return applies, _XT_VERDICTS[content["name"]], ""
                continue
            if content.get("name") != "comment":
                applies = None
        elif kind == "vmap":
            matched, verdict, target = _by_map(content, packet, elements)
            if matched is not False:
                return (applies if matched else None), verdict, target
            # No element: the rule goes on with its next statement.
        else:
            matches = _matches(content, packet, elements) if kind == "match" else None
            if matches is False:
                return False, CONTINUE, ""
            applies = applies if matches else None
    return applies, CONTINUE, ""


def _verdict(kind: str, content: Any) -> tuple[str, str]:
    if kind == "reject":
        return DROP, ""
    if kind == "queue":
        return ELSEWHERE, ""
    return kind, content["target"] if kind in (JUMP, GOTO) else ""


def _by_map(content: Mapping[str, Any], packet: Packet, elements: Any) -> tuple[bool | None, str, str]:
    """Return whether an element of a verdict map matches, and its verdict; where that is not known, ELSEWHERE."""
    value = _value(content["key"], packet)
    data = content["data"]
    entries = elements(data) if isinstance(data, str) else data.get("set", [])
    if value is _UNKNOWN or entries is _UNKNOWN:
        return None, ELSEWHERE, ""
    for key, verdict in entries:
        matched = _equals(value, key)
        if matched is None:
            return None, ELSEWHERE, ""
        if matched:
            kind, target = _statement(verdict)
            return True, *_verdict(kind, target)
    return False, CONTINUE, ""


def _matches(match: Mapping[str, Any], packet: Packet, elements: Any) -> bool | None:
    value, right = _value(match["left"], packet), match["right"]
    if value is _ABSENT:
        return False
    if value is _UNKNOWN or match["op"] not in ("==", "!=", "in"):
        return None
    if isinstance(right, str) and right.startswith("@"):
        right = elements(right)
    if right is _UNKNOWN:
        return None
    equal = _equals(value, right)
    return equal if equal is None or match["op"] != "!=" else not equal


def _value(left: Any, packet: Packet) -> Any:
    """Return the packet's value of the left side of a match."""
    if not isinstance(left, dict) or len(left) != 1:
        return _UNKNOWN
    [(kind, content)] = left.items()
    if kind == "meta":
        return _or_unknown(_meta(content.get("key"), packet))
    if kind == "ct":
        if not packet.is_tracked:
            return _UNKNOWN
        # Neither marked nor translated.
        known = {"state": "new", "status": "", "mark": 0, "direction": "original"}
        return known.get(content.get("key"), _UNKNOWN)
    if kind == "&" and isinstance(content, list) and _value(content[0], packet) == 0:
        return 0
    if kind == "payload":
        return _payload(str(content.get("protocol")), str(content.get("field")), packet)
    return _UNKNOWN


def _meta(key: Any, packet: Packet) -> Any:
    if key in ("iifname", "iif"):
        return packet.incoming
    if key in ("oifname", "oif"):
        return packet.outgoing
    known = {
        "l4proto": packet.protocol,
        "nfproto": f"ipv{packet.version}",
        "protocol": "ip" if packet.version == 4 else "ip6",
        "mark": 0,
    }
    return known.get(key)


def _payload(protocol: str, field: str, packet: Packet) -> Any:
    if protocol in ("ip", "ip6"):
        if protocol != ("ip" if packet.version == 4 else "ip6"):
            return _ABSENT
        known = {"saddr": packet.source, "daddr": packet.destination, "protocol": packet.protocol}
        known["nexthdr"] = packet.protocol
        return _or_unknown(known.get(field))
    if protocol in ("tcp", "udp", "th"):
        if protocol not in ("th", packet.protocol):
            return _ABSENT
        return _or_unknown({"sport": packet.source_port, "dport": packet.destination_port}.get(field))
    return _ABSENT if protocol in ("icmp", "icmpv6", "sctp", "dccp", "esp", "ah", "udplite", "arp") else _UNKNOWN


def _or_unknown(value: Any) -> Any:
    return _UNKNOWN if value is None else value


def _equals(value: Any, right: Any) -> bool | None:
    """Return whether a value is equal to, or one of, what stands on the right; None where that is not known."""
    if isinstance(right, dict):
        if "set" in right:
            return _equals(value, right["set"])
        if "elem" in right:
            return _equals(value, right["elem"].get("val"))
        if "prefix" in right:
            return _is_in(value, f"{right['prefix']['addr']}/{right['prefix']['len']}")
        if "range" in right:
            return _is_between(value, *right["range"])
        return None
    if isinstance(right, list):
        answers = {_equals(value, one) for one in right}
        return True if True in answers else None if None in answers else False
    if isinstance(right, str) and right == "*":
        return True
    if isinstance(value, str) and isinstance(right, str):
        return fnmatch.fnmatchcase(value, right.replace("[", "[[]").replace("?", "[?]"))
    if isinstance(value, int) and isinstance(right, int):
        return value == right
    # A protocol's number beside its name, for example.
    return None


def _is_in(value: Any, network: str) -> bool | None:
    try:
        return ip_address(value) in ip_network(network, strict=False)
    except ValueError:
        return None


def _is_between(value: Any, first: Any, last: Any) -> bool | None:
    try:
        if isinstance(value, int):
            return int(first) <= value <= int(last)
        return int(ip_address(first)) <= int(ip_address(value)) <= int(ip_address(last))
    except (TypeError, ValueError):
        return None


def _statement(printed: Any) -> tuple[str, Any]:
    """Return a statement's kind and content: nft prints an object with one key, or a word."""
    if isinstance(printed, dict):
        [(kind, content)] = printed.items()
        return kind, content
    return str(printed), None
