# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin inventory_values_info: refuses values of variables that the roles' argument_specs do not allow.

It runs in Ansible's own process, where the variables of all hosts are. Ansible's own check evaluates all options of a
role for each host that runs the role; this one evaluates a value that all hosts share once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ..module_utils.inventory.limits import value_fault
from ..module_utils.inventory.spelling import GROUPS
from ..plugin_utils.role_options import role_options

_MOST_NAMED = 10
"""Wrong values that the message tells of."""

_NEVER = object()


class ActionModule(ActionBase):
    """Check the values that the hosts of the playbooks' groups have."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        variables = task_vars or {}
        groups, hostvars = variables["groups"], variables["hostvars"]
        hosts = dict.fromkeys(host for group in GROUPS for host in groups.get(group, ()))
        options = {name: _given(option) for name, option in role_options().items() if not name.startswith("__")}
        shared: dict[str, Any] = {}
        problems: list[str] = []
        for host in hosts:
            raw = hostvars.raw_get(host)
            names = [name for name in raw.keys() & options.keys() if shared.setdefault(name, _NEVER) != raw[name]]
            shared.update({name: raw[name] for name in names if shared[name] is _NEVER})
            problems += [f"{host}: {problem}" for problem in _problems(names, hostvars[host], options)]
        if problems:
            rest = len(problems) - _MOST_NAMED
            more = [f"and {rest} more"] if rest > 0 else []
            raise AnsibleActionFail("\n".join([*problems[:_MOST_NAMED], *more]))
        return {**result, "changed": False}


def _given(option: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of an option that is given: neither required nor with a default."""
    return {key: value for key, value in option.items() if key not in ("required", "default")}


def _problems(names: list[str], variables: Mapping[str, Any], options: Mapping[str, dict[str, Any]]) -> list[str]:
    values = {}
    for name in sorted(names):
        try:
            values[name] = variables[name]
        except AnsibleError:
            # It needs a variable that only exists later in the run. The module that gets the value checks it then.
            continue
    # None is no value: the roles' defaults and modules decide what it means.
    given = {name: value for name, value in values.items() if value is not None}
    checked = ArgumentSpecValidator({name: options[name] for name in given}).validate(given)
    if checked.error_messages:
        return [str(message) for message in checked.error_messages]
    # Numbers and lists that were given as text, as by --extra-vars, are numbers and lists here.
    faults = (value_fault(name, value) for name, value in checked.validated_parameters.items())
    return [fault for fault in faults if fault is not None]
