# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin inventory_names_info: refuses misspelt variables and groups; inventory/spelling has the rules.

It runs in Ansible's own process, where the names are: a module would be sent all of them, and would need a connection
to the control machine with the users and rights that the inventory sets for the nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ..module_utils.errors import EvioError
from ..module_utils.inventory.spelling import (
    GROUPS,
    check_extra_variables,
    check_groups,
    check_run,
    check_variables,
)
from ..plugin_utils.role_options import role_options


class ActionModule(ActionBase):
    """Check the names of all groups, and of the variables of each host of the playbooks' groups."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            argument_spec={
                "extra_names": {"type": "list", "elements": "str", "default": []},
                "run_groups": {"type": "list", "elements": "str", "default": list(GROUPS)},
            }
        )
        variables = task_vars or {}
        groups = variables["groups"]
        hosts = dict.fromkeys(host for group in GROUPS for host in groups.get(group, ()))
        # raw_get reads a host's variables without their templates: names cost about 1 ms a host.
        found = {host: _own_names(variables["hostvars"].raw_get(host)) for host in hosts}
        in_inventory = {name for names in found.values() for name in names}
        found["variables of the play"] = [name for name in _own_names(variables) if name not in in_inventory]
        sources = [*(variables.get("ansible_inventory_sources") or ()), variables.get("playbook_dir") or "."]
        try:
            check_groups(groups, arguments["extra_names"], _group_files(sources))
            check_run(groups, variables["ansible_play_hosts_all"], arguments["run_groups"])
            known = set(role_options())
            check_variables(known, found, arguments["extra_names"])
            check_extra_variables(known, load_extra_vars(self._loader), arguments["extra_names"])
        except EvioError as error:
            raise AnsibleActionFail(str(error)) from None
        return {**result, "changed": False, "hosts": len(hosts)}


def _group_files(sources: Iterable[str]) -> list[str]:
    """Return the groups that have files in group_vars, in these directories or beside these inventory files."""
    directories = {Path(source) if Path(source).is_dir() else Path(source).parent for source in sources}
    return [path.stem for directory in directories for path in (directory / "group_vars").glob("*")]


def _own_names(variables: Any) -> list[str]:
    """Return names that may be this collection's. Facts of roles begin with two underscores and are not meant."""
    return [name for name in variables if isinstance(name, str) and name[:1] in "eEvV"]
