# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packets that pass through the node between an interface of ours and others: past firewalls that drop by default.

A rule in a table of our own cannot help: in nftables a drop is final whatever another table accepts. So the accepts go
into iptables' own chain, as docker's and kubelet's do; a firewall of another make is named and left to its owner.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

COMMENT = "evio.cni"
_KEYS = ("iifname", "oifname")
_TIMEOUT = 10.0


def accept_forwarding(interface: str) -> list[str]:
    """Accept what is forwarded from and to the interface; the chains that still drop it, by name."""
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in _dropping_chains()
        if not _is_iptables(chain) or not _insert_accepts(chain, interface)
    ]


def withdraw_forwarding(interface: str) -> None:
    """Take our accepts for the interface out of the firewall again."""
    comments = {_comment(key, interface) for key in _KEYS}
    for family in ("ip", "ip6"):
        location = [family, "filter", "FORWARD"]
        for item in _nft_json("--handle", "list", "chain", *location):
            rule = item.get("rule", {})
            if rule.get("comment") in comments:
                _nft("delete", "rule", *location, "handle", str(rule["handle"]))


def is_accepted(interface: str) -> bool:
    """Whether no chain of iptables drops what is forwarded from and to the interface; others are not our business."""
    return not any(_is_iptables(chain) and _missing_accepts(chain, interface) for chain in _dropping_chains())


def _is_iptables(chain: dict[str, Any]) -> bool:
    return chain["family"] in ("ip", "ip6") and (chain["table"], chain["name"]) == ("filter", "FORWARD")


def _dropping_chains() -> list[dict[str, Any]]:
    """The base chains of the forward hook whose policy is drop; none where there is no nftables."""
    return [
        item["chain"]
        for item in _nft_json("list", "chains")
        if "chain" in item and item["chain"].get("hook") == "forward" and item["chain"].get("policy") == "drop"
    ]


def _missing_accepts(chain: dict[str, Any], interface: str) -> list[str]:
    """Which of ours are not in the chain: by incoming interface, by outgoing."""
    rules = _nft_json("list", "chain", *_location(chain))
    comments = {item["rule"].get("comment") for item in rules if "rule" in item}
    return [key for key in _KEYS if _comment(key, interface) not in comments]


def _insert_accepts(chain: dict[str, Any], interface: str) -> bool:
    accepted = True
    for key in _missing_accepts(chain, interface):
        comment = f'"{_comment(key, interface)}"'
        rule = [*_location(chain), key, f'"{interface}"', "counter", "accept", "comment", comment]
        accepted = _nft("insert", "rule", *rule) is not None and accepted
    return accepted


def _location(chain: dict[str, Any]) -> list[str]:
    return [chain["family"], chain["table"], chain["name"]]


def _comment(key: str, interface: str) -> str:
    return f"{COMMENT} {key} {interface}"


def _nft_json(*arguments: str) -> list[dict[str, Any]]:
    output = _nft("--json", *arguments)
    try:
        items: list[dict[str, Any]] = json.loads(output)["nftables"] if output else []
    except (ValueError, KeyError):
        return []
    return items


def _nft(*arguments: str) -> str | None:
    """What nft printed; None if it failed or is not there."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if nft is None:
        return None
    try:
        result = subprocess.run([nft, *arguments], capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None
