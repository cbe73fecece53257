# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Accept packets that the node forwards from and to an interface of ours, where the host's firewall drops by default.

In nftables a drop is final, whatever a chain in another table accepts. So the accepting rules go into iptables' own
chain FORWARD, as docker's and kubelet's do. Any other firewall that drops is reported to its administrator by name.
"""

from __future__ import annotations

import contextlib
from typing import Any

from ..kernel import nft

_FAMILIES = ("ip", "ip6")

_MATCHES = ("iifname", "oifname")
"""One rule for packets that come in by the interface, one for packets that go out by it."""


def accept_forwarding(interface: str) -> list[str]:
    """Insert the missing rules; return the names of the chains that drop the interface's packets all the same."""
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in _dropping_chains()
        if not _is_iptables(chain) or not _insert_rules(chain, interface)
    ]


def withdraw_forwarding(interface: str) -> None:
    """Delete our rules for the interface; without nftables there are none."""
    comments = {_comment(match, interface) for match in _MATCHES}
    for family in _FAMILIES:
        for rule in _rules(family, "filter", "FORWARD"):
            if rule.get("comment") in comments:
                # A rule that somebody deleted meanwhile is no failure.
                with contextlib.suppress(nft.NftError):
                    nft.apply(f"delete rule {family} filter FORWARD handle {rule['handle']}\n")


def is_accepted(interface: str) -> bool:
    """Return whether no chain of iptables drops packets from and to the interface. Other firewalls do not count."""
    return not any(_is_iptables(chain) and _missing_matches(chain, interface) for chain in _dropping_chains())


def _dropping_chains() -> list[dict[str, Any]]:
    """Return the base chains of the forward hook whose policy is drop; none where nftables is not installed."""
    return [
        item["chain"]
        for item in _list_objects("chains")
        if "chain" in item and item["chain"].get("hook") == "forward" and item["chain"].get("policy") == "drop"
    ]


def _is_iptables(chain: dict[str, Any]) -> bool:
    return chain["family"] in _FAMILIES and (chain["table"], chain["name"]) == ("filter", "FORWARD")


def _insert_rules(chain: dict[str, Any], interface: str) -> bool:
    location = f"{chain['family']} {chain['table']} {chain['name']}"
    rules = [
        f'insert rule {location} {match} "{interface}" counter accept comment "{_comment(match, interface)}"\n'
        for match in _missing_matches(chain, interface)
    ]
    if rules:
        try:
            nft.apply("".join(rules))
        except nft.NftError:
            return False
    return True


def _missing_matches(chain: dict[str, Any], interface: str) -> list[str]:
    """Return for which matches the chain lacks our rule."""
    comments = {rule.get("comment") for rule in _rules(chain["family"], chain["table"], chain["name"])}
    return [match for match in _MATCHES if _comment(match, interface) not in comments]


def _comment(match: str, interface: str) -> str:
    """Return the comment by which we recognise our rule."""
    return f"evio.cni {match} {interface}"


def _rules(family: str, table: str, chain: str) -> list[dict[str, Any]]:
    return [item["rule"] for item in _list_objects("chain", family, table, chain) if "rule" in item]


def _list_objects(*what: str) -> list[dict[str, Any]]:
    try:
        return nft.list_objects(*what)
    except nft.NftError:
        return []
