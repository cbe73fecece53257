# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that makes a table of what the preflight has found on each host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: preflight_table
short_description: Show what the preflight has found
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
positional: etcd
description:
  - Turns the results of M(evio.cni.preflight_info) on all hosts into lines of text, errors first. Checks that are in
    order on all hosts are one line.
options:
  _input:
    description: The hosts' entries of C(hostvars), each with the module's result in C(__evio_preflight).
    type: list
    elements: dict
    required: true
  etcd:
    description: Result of M(evio.cni.subnet_pool_info), if etcd is to be there already.
    type: dict
"""

EXAMPLES = r"""
msg: "{{ ansible_play_hosts | map('extract', hostvars) | evio.cni.preflight_table }}"
"""

RETURN = r"""
_value:
  description: >-
    Two lines for each error and warning, what was found and its remedy; then the pairs of nodes without direct ways,
    and the checks that are in order.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..module_utils.node.quick_checks import ERROR, OK, WARNING
from ..module_utils.overlay.nat_mapping import DEPENDENT

_MOST_NODES = 8


def preflight_table(hosts: Iterable[Mapping[str, Any]], etcd: Mapping[str, Any] | None = None) -> list[str]:
    """Return the lines of all hosts; the same sentence of many hosts is one line."""
    results = {str(host["inventory_hostname"]): host.get("__evio_preflight") or {} for host in hosts}
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for name, result in results.items():
        if "rows" not in result:
            reason = " ".join(str(result.get("msg") or "it was not asked").split())[:300]
            found.setdefault((ERROR, "host", f"it did not answer: {reason}", "ansible -m ping"), []).append(name)
        for row in result.get("rows", ()):
            found.setdefault((row["state"], row["check"], row["what"], row["remedy"]), []).append(name)
    if etcd and not etcd.get("skipped"):
        fault = None if "pools" in etcd else " ".join(str(etcd.get("msg")).split())[:300]
        row = (OK, "etcd", "", "") if fault is None else (ERROR, "etcd", fault, "see evio_etcd_endpoints")
        found.setdefault(row, []).append("the first control-plane host")
    lines = []
    for state in (ERROR, WARNING):
        for (row_state, check, what, remedy), names in found.items():
            if row_state == state:
                lines += [f"{state.upper():<8} {check:<11} {_some(names)}: {what}", f"{'':<20} -> {remedy}"]
    apart = [name for name, result in results.items() if result.get("nat") == DEPENDENT]
    if len(apart) > 1:
        lines.append(f"no direct way between {_some(apart)}: their NATs take another port for each destination")
    checks = list(dict.fromkeys(check for _state, check, _what, _remedy in found))
    bad = {check for state, check, _what, _remedy in found if state != OK}
    good = [check for check in checks if check not in bad]
    return [*lines, f"in order on all hosts: {', '.join(good)}"] if good else lines


def _some(names: list[str]) -> str:
    rest = len(names) - _MOST_NODES
    return ", ".join(names[:_MOST_NODES]) + (f" and {rest} more" if rest > 0 else "")


class FilterModule:
    """Register the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"preflight_table": preflight_table}
