# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin inventory_values_info: refuses values of variables that the roles' argument_specs do not allow.

It runs in Ansible's own process, where the variables of all hosts are. Ansible's own check evaluates all options of a
role for each host that runs the role; this one evaluates a value that all hosts share once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ..module_utils.inventory.limits import dictionary_fault, keep_fault, value_fault
from ..module_utils.inventory.spelling import GROUPS
from ..plugin_utils.role_options import installed_packages, role_options

_MOST_NAMED = 10
"""Wrong values that the message tells of."""

_NEVER = object()

_KEEP = "evio_teardown_keep"
_PACKAGES = "evio_packages"
"""Begins the names of the variables that list packages."""


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
        kept: dict[str, list[str]] = {}
        for host in hosts:
            raw = hostvars.raw_get(host)
            names = [name for name in raw.keys() & options.keys() if shared.setdefault(name, _NEVER) != raw[name]]
            shared.update({name: raw[name] for name in names if shared[name] is _NEVER})
            values = _given_values(names, hostvars[host])
            problems += [f"{host}: {problem}" for problem in _problems(values, options)]
            if values.get(_KEEP):
                kept[host] = _words(values[_KEEP])
        if kept:
            packages = _known_packages(hosts, hostvars)
            faults = {host: keep_fault(words, packages) for host, words in kept.items()}
            problems += [f"{host}: {fault}" for host, fault in faults.items() if fault is not None]
        if problems:
            rest = len(problems) - _MOST_NAMED
            more = [f"and {rest} more"] if rest > 0 else []
            raise AnsibleActionFail("\n".join([*problems[:_MOST_NAMED], *more]))
        return {**result, "changed": False}


def _given(option: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of an option that is given: neither required nor with a default."""
    return {key: value for key, value in option.items() if key not in ("required", "default")}


def _given_values(names: list[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of these variables of a host, without those that need a variable of later in the run."""
    values = {}
    for name in sorted(names):
        try:
            values[name] = variables[name]
        except AnsibleError:
            # The module that gets the value checks it.
            continue
    # None is no value: the roles' defaults and modules decide what it means.
    return {name: value for name, value in values.items() if value is not None}


def _problems(given: Mapping[str, Any], options: Mapping[str, dict[str, Any]]) -> list[str]:
    dictionaries = {name: value for name, value in given.items() if options[name].get("type") == "dict"}
    faults = [fault for name, value in dictionaries.items() if (fault := dictionary_fault(name, value)) is not None]
    if faults:
        return faults
    checked = ArgumentSpecValidator({name: options[name] for name in given}).validate(dict(given))
    if checked.error_messages:
        return [str(message) for message in checked.error_messages]
    # Numbers and lists that were given as text, as by --extra-vars, are numbers and lists here.
    found = (value_fault(name, value) for name, value in checked.validated_parameters.items())
    return [fault for fault in found if fault is not None]


def _known_packages(hosts: Iterable[str], hostvars: Any) -> set[str]:
    """Return the packages that the roles install by default, and those that the inventory lists."""
    packages = set(installed_packages())
    for host in hosts:
        names = [name for name in hostvars.raw_get(host) if str(name).startswith(_PACKAGES)]
        packages.update(word for value in _given_values(names, hostvars[host]).values() for word in _words(value))
    return packages


def _words(value: Any) -> list[str]:
    """Return the words of a list, or of a text with commas, as the roles read it."""
    entries = value if isinstance(value, list) else [value]
    return [word for entry in entries for word in map(str.strip, str(entry).split(",")) if word]
