# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inputs of the roles and their entry points: people set evio_..., roles set __evio_..., and each is described."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
PLAYBOOKS = ROLES.parent / "playbooks"
ROLE_NAMES = sorted(role.name for role in ROLES.iterdir())
GROUPS = {"evio_nodes", "evio_control_plane", "evio_pod_nodes", "evio_signalling"}
TASK_FILES = {
    "evio_ca",
    "evio_config",
    "evio_package",
    "evio_restart",
    "evio_service",
    "evio_controller",
    "evio_rosters",
}
"""Names of task files, of EdgeVPN.io's program and of a module of prosody, that look like variables."""


@cache
def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def inputs(role: str) -> set[str]:
    """The options that the role's argument_specs describe, without the facts of other roles."""
    specs = load(ROLES / role / "meta/argument_specs.yml")["argument_specs"]
    return {name for spec in specs.values() for name in spec["options"] if not name.startswith("__")}


def all_inputs() -> set[str]:
    return {name for role in ROLE_NAMES for name in inputs(role)}


def tasks(role: str) -> Iterator[dict[str, Any]]:
    """All tasks of the role, those in blocks too."""
    for path in sorted((ROLES / role / "tasks").glob("*.yml")):
        yield from _flat(load(path))


def _flat(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        yield entry
        for part in ("block", "rescue", "always"):
            yield from _flat(entry.get(part, []))


def variables_set_by(role: str) -> set[str]:
    names = set(load(ROLES / role / "vars/main.yml") or {})
    for task in tasks(role):
        names |= set(task.get("vars", {})) | set(task.get("ansible.builtin.set_fact", {}))
        names |= {task["register"]} if "register" in task else set()
        names |= {task["loop_control"]["loop_var"]} if "loop_var" in task.get("loop_control", {}) else set()
    return names


def text(role: str) -> str:
    """The role's files that read variables, without their comments."""
    paths = [path for part in ("tasks", "vars", "defaults", "templates") for path in (ROLES / role / part).glob("*")]
    return "\n".join(re.sub(r"(?m)^\s*#.*$", "", path.read_text()) for path in paths)


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_every_default_is_described_in_the_argument_specs(role: str) -> None:
    assert set(load(ROLES / role / "defaults/main.yml") or {}) <= inputs(role)


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_variables_that_a_role_sets_begin_with_two_underscores(role: str) -> None:
    assert {name for name in variables_set_by(role) if not name.startswith("__evio_")} == set()


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_variables_that_a_role_reads_are_inputs(role: str) -> None:
    read = set(re.findall(r"(?<![\w.])evio_\w+", text(role)))
    assert read - all_inputs() - GROUPS - TASK_FILES == set()


def test_no_variable_of_a_role_is_an_input_with_underscores() -> None:
    facts = {name.removeprefix("__") for role in ROLE_NAMES for name in variables_set_by(role)}
    assert facts & all_inputs() == set()


def called_roles(value: Any) -> Iterator[tuple[str, str]]:
    """The roles that plays and tasks call, each with the name of its entry point."""
    if isinstance(value, list):
        for entry in value:
            yield from called_roles(entry)
    elif isinstance(value, dict):
        for module in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
            if module in value:
                yield value[module]["name"].removeprefix("evio.cni."), value[module].get("tasks_from", "main")
        for entry in value.values():
            yield from called_roles(entry)


def test_each_entry_point_that_is_called_is_in_the_argument_specs() -> None:
    files = [*PLAYBOOKS.glob("*.yml"), *ROLES.glob("*/tasks/*.yml")]
    called = {call for path in files for call in called_roles(load(path))}
    described = {
        (role, entry_point)
        for role in ROLE_NAMES
        for entry_point in load(ROLES / role / "meta/argument_specs.yml")["argument_specs"]
    }
    assert ("cluster", "check") in called
    assert called - described == set()


def variables_set_by_playbooks() -> set[str]:
    """What the plays' own vars and tasks set."""
    plays = [play for path in PLAYBOOKS.glob("*.yml") for play in load(path)]
    entries = [entry for play in plays for part in ("tasks", "pre_tasks") for entry in _flat(play.get(part, []))]
    names = {name for entry in [*plays, *entries] for name in entry.get("vars", {})}
    names |= {name for entry in entries for name in entry.get("ansible.builtin.set_fact", {})}
    return names | {entry["register"] for entry in entries if "register" in entry}


def test_every_variable_with_two_underscores_that_is_read_is_set_somewhere() -> None:
    # A misspelt or former name beside `default({})` fails in no run: its condition is just never true.
    playbooks = [re.sub(r"(?m)^\s*#.*$", "", path.read_text()) for path in PLAYBOOKS.glob("*.yml")]
    read = set(re.findall(r"(?<!\w)__evio_\w+", "\n".join([*playbooks, *(text(role) for role in ROLE_NAMES)])))
    known = variables_set_by_playbooks().union(*(variables_set_by(role) for role in ROLE_NAMES))
    assert "__evio_host" in read & known
    assert read - known == set()


def inputs_of_type(kind: str) -> set[str]:
    specs = [load(ROLES / role / "meta/argument_specs.yml")["argument_specs"].values() for role in ROLE_NAMES]
    options = [option for entries in specs for entry in entries for option in entry["options"].items()]
    return {name for name, option in options if option["type"] == kind and not name.startswith("__")}


def test_boolean_inputs_are_read_as_booleans() -> None:
    # --extra-vars and INI inventories give strings. A module's option of type bool understands them, nothing else does.
    names = inputs_of_type("bool")
    assert {"evio_etcd_managed", "evio_ip_masq"} <= names
    playbooks = [path.read_text() for path in PLAYBOOKS.glob("*.yml")]
    lines = "\n".join([*playbooks, *(text(role) for role in ROLE_NAMES)]).splitlines()
    unread = [
        line
        for line in lines
        for name in re.findall(r"(?<![\w.])evio_\w+", line)
        if name in names
        and "--extra-vars" not in line
        and not re.search(rf"(?<!\w){name}\)? \| bool\b", line)
        and f"['{name}']" not in line
        and not re.fullmatch(rf'\s+\w+: "\{{\{{ {name} \}}\}}"', line)
        and not re.match(rf"{name}:", line)
    ]
    assert unread == []


def test_lists_are_read_by_modules_or_split_at_commas() -> None:
    # --extra-vars and INI inventories give strings. A loop would go through their letters, and a sum would fail.
    names = inputs_of_type("list")
    assert {"evio_turn_addresses", "evio_packages_node"} <= names
    # A list of dictionaries is never one string.
    structured = {"evio_turn_servers"}
    files = "\n".join(text(role) for role in ROLE_NAMES)
    read = {
        name
        for name in names - structured
        for expression in re.findall(r"\{[{%].*?[%}]\}", files, re.DOTALL)
        if re.search(rf"(?<![\w.]){name}\b", expression)
        and not re.fullmatch(rf"\{{\{{ {name} \}}\}}", expression)
        and "split(',')" not in expression
        and f"{name} is defined" not in expression
    }
    assert read == set()


def test_each_input_is_described_with_one_type() -> None:
    types: dict[str, set[str]] = {}
    for role in ROLE_NAMES:
        for spec in load(ROLES / role / "meta/argument_specs.yml")["argument_specs"].values():
            for name, option in spec["options"].items():
                types.setdefault(name, set()).add(option["type"])
    assert {name: found for name, found in types.items() if len(found) > 1} == {}


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_facts_that_other_roles_read_are_listed_in_one_place(role: str) -> None:
    listed = (ROLES / "cluster/vars/main.yml").read_text()
    foreign = {name for other in ROLE_NAMES if other not in (role, "cluster") for name in variables_set_by(other)}
    read = set(re.findall(r"__evio_\w+", text(role))) & foreign - variables_set_by(role)
    assert {name for name in read if name not in listed} == set()


def test_templates_double_no_backslash() -> None:
    """Ansible keeps both. In double quotes YAML has taken one away before."""
    paths = [*ROLES.rglob("*.yml"), *PLAYBOOKS.glob("*.yml")]
    doubled = [f"{path.name}: {value}" for path in paths for value in _strings(load(path)) if _DOUBLED.search(value)]
    assert doubled == []


def test_no_template_uses_the_filter_that_loses_the_order() -> None:
    """Ansible's filter `difference` makes sets: the first of several hosts was another one in each run."""
    paths = [*ROLES.rglob("*.yml"), *PLAYBOOKS.glob("*.yml")]
    assert [path.name for path in paths for value in _strings(load(path)) if "difference(" in value] == []


_DOUBLED = re.compile(r"\{\{.*\\\\", re.DOTALL)
"""A template with two backslashes."""


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _strings(item)
