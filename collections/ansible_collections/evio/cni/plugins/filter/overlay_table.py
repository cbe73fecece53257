# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that makes a table of what each node has measured in the host overlay."""

from __future__ import annotations

DOCUMENTATION = r"""
name: overlay_table
short_description: Show how the nodes reach each other
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Turns the results of M(evio.cni.overlay_ready_info) on all hosts into lines of text.
options:
  _input:
    description: The hosts' entries of C(hostvars), each with the module's result in C(__evio_reachability).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
msg: "{{ ansible_play_hosts | map('extract', hostvars) | evio.cni.overlay_table }}"
"""

RETURN = r"""
_value:
  description: One line for each pair of nodes.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def overlay_table(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one line for each pair: source, target, path, round trip; "not measured" if no node has measured."""
    rows = [
        (str(host["inventory_hostname"]), peer["name"], _path(peer), _answer(peer))
        for host in hosts
        for peer in host.get("__evio_reachability", {}).get("peers", [])
    ]
    if not rows:
        return ["not measured"]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        f"{source:{widths[0]}} -> {target:{widths[1]}}  {path:{widths[2]}}  {answer:>{widths[3]}}"
        for source, target, path, answer in rows
    ]


def _path(peer: Mapping[str, Any]) -> str:
    if peer["path"] is None:
        return "reached" if peer["reachable"] else "no way"
    return "direct" if peer["path"] == "direct" else f"by relay {peer['path']}"


def _answer(peer: Mapping[str, Any]) -> str:
    if peer["reachable"]:
        return f"{peer['rtt_ms']:.1f} ms"
    return "NO ANSWER TO LARGE PACKETS" if peer["small_only"] else "NO ANSWER"


class FilterModule:
    """Register the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"overlay_table": overlay_table}
