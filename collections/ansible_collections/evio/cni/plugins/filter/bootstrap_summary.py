# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that says in one line what a run of bootstrap.yml has made of each node."""

from __future__ import annotations

DOCUMENTATION = r"""
name: bootstrap_summary
short_description: Say in one line what a run has made of each node
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Turns the facts that the roles of C(bootstrap.yml) have left on each host into a line of text.
options:
  _input:
    description: The hosts' entries of C(hostvars).
    type: list
    elements: dict
    required: true
  finished:
    description: Names of the hosts that the run has not lost.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
msg: "{{ ansible_play_hosts_all | map('extract', hostvars) | evio.cni.bootstrap_summary(finished=ansible_play_hosts) }}"
"""

RETURN = r"""
_value:
  description: One line for each host.
  type: list
  elements: str
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def bootstrap_summary(hosts: Iterable[Mapping[str, Any]], finished: Iterable[str]) -> list[str]:
    """Return for each host its addresses and how it reaches the others; or that the run did not finish it."""
    names = set(finished)
    rows = [
        (
            str(host["inventory_hostname"]),
            str(host.get("__evio_overlay_address") or host.get("evio_host_overlay_address") or "-"),
            _pods(host) if host["inventory_hostname"] in names else "NOT FINISHED: look for its name above",
            _reached(host) if host["inventory_hostname"] in names else "",
        )
        for host in hosts
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]


def _pods(host: Mapping[str, Any]) -> str:
    subnets = (host.get("__evio_node_subnet") or {}).get("cidrs")
    if not subnets:
        return "no pod network"
    mtu = host.get("__evio_overlay_mtu")
    return f"pods {', '.join(subnets)}{f', MTU {mtu}' if mtu else ''}"


def _reached(host: Mapping[str, Any]) -> str:
    peers = (host.get("__evio_reachability") or {}).get("peers") or []
    if not peers:
        return ""
    reached = [peer for peer in peers if peer["reachable"]]
    kinds = Counter("direct" if peer["path"] == "direct" else "by a relay" for peer in reached if peer["path"])
    ways = (
        f" ({', '.join(f'{number} {kind}' for kind, number in sorted(kinds.items(), reverse=True))})" if kinds else ""
    )
    return f"reaches {len(reached)} of {len(peers)} nodes{ways}"


class FilterModule:
    """Register the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"bootstrap_summary": bootstrap_summary}
