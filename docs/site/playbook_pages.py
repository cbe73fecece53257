# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pages of the collection's playbooks, written from the playbooks' opening comments, plays, and roles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from antsibull_docs_parser import md, parser

COLLECTION = Path(__file__).resolve().parents[2] / "collections/ansible_collections/evio/cni"
PLAYBOOKS = COLLECTION / "playbooks"
SHORTCUTS = COLLECTION.parents[3] / "playbooks"
_IMPORT = "ansible.builtin.import_playbook"
_ROLE_TASKS = ("ansible.builtin.import_role", "ansible.builtin.include_role")
_PREFIX = "evio.cni."


class Variable(NamedTuple):
    """A variable that a role of a playbook reads."""

    name: str
    default: str
    """The default as YAML; empty without one."""
    meaning: str
    """The first paragraph of its description, as Markdown."""
    roles: list[str]
    """Names of the roles that describe it."""


def write_pages(directory: Path) -> None:
    """Write ``index.md`` and a page for each playbook that people run into a new directory."""
    directory.mkdir()
    names = runnable()
    rows = "".join(f"| [{name}]({name}.md) | {purpose(name)} |\n" for name in names)
    contents = "\n".join(names)
    (directory / "index.md").write_text(
        "# Playbooks\n\nIn a clone of the repository, `playbooks/NAME.yml` runs the playbook `evio.cni.NAME`.\n\n"
        f"| playbook | what it does |\n|---|---|\n{rows}\n```{{toctree}}\n:hidden:\n\n{contents}\n```\n"
    )
    for name in names:
        (directory / f"{name}.md").write_text(page(name))


def runnable() -> list[str]:
    """Return the names of the playbooks that people run: those of the repository's own directory ``playbooks``."""
    return sorted(path.stem for path in SHORTCUTS.glob("*.yml"))


def purpose(name: str) -> str:
    """Return in a few words what a playbook is for: the name of its play in the repository's own directory."""
    return str(yaml.safe_load((SHORTCUTS / f"{name}.yml").read_text())[0]["name"])


def opening_comment(name: str) -> str:
    """Return the comment with which a playbook opens, as Markdown. Raises ValueError if it has none."""
    lines = (PLAYBOOKS / f"{name}.yml").read_text().splitlines()
    comment: list[str] = []
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").removeprefix(" "))
    if not comment:
        raise ValueError(f"the playbook {name} opens without a comment that says what it does")
    # Variables, with the value that follows a colon, files, commands and their options are code.
    code = r"ansible-playbook [^\n]*|evio_\w+: \w+|evio_\w+|[\w/]+\.(?:yml|md)|--?\w+(?: evio_[\w=,]+)?"
    return re.sub(rf"(?<![\w`/=-])({code})", r"`\1`", "\n".join(comment))


def page(name: str) -> str:
    """Return the page of a playbook: what it does, its plays, and the variables of its roles."""
    found = list(plays(name))
    text = f"# {name}\n\n{opening_comment(name)}\n"
    if "ansible-playbook" not in text:
        text += f"\n    ansible-playbook -i inventories/mysite playbooks/{name}.yml\n"
    text += "\n## Plays\n\n| play | hosts | roles |\n|---|---|---|\n"
    for play in found:
        roles = ", ".join(role_link(role) for role in roles_of(play)) or "none"
        text += f"| {play['name']} | {hosts(play)} | {roles} |\n"
    text += "\n## Variables\n\nThe page of a role has the whole description.\n\n"
    text += "| variable | meaning | role |\n|---|---|---|\n"
    used = sorted({role for play in found for role in roles_of(play)})
    for variable in variables(used):
        default = f" Default: `{variable.default}`" if variable.default else ""
        roles = ", ".join(role_link(role) for role in variable.roles)
        text += f"| `{variable.name}` | {variable.meaning}{default} | {roles} |\n"
    return text


def plays(name: str) -> Iterator[dict[str, Any]]:
    """Yield the plays of a playbook in their order, with those of the playbooks that it imports."""
    for play in yaml.safe_load((PLAYBOOKS / f"{name}.yml").read_text()):
        if _IMPORT in play:
            yield from plays(Path(play[_IMPORT]).stem)
        else:
            yield play


def hosts(play: dict[str, Any]) -> str:
    """Return the groups of a play's hosts as Markdown, without the expressions that leave out some of them."""
    groups = re.sub(r"\{\{.*?\}\}", "", str(play["hosts"])).strip(":&! ")
    return f"`{groups}`" if groups else "chosen while it runs"


def roles_of(play: dict[str, Any]) -> list[str]:
    """Return the collection's roles that a play runs, wherever it names them, each once."""
    named = [role if isinstance(role, str) else role["role"] for role in play.get("roles", [])]
    named += list(_roles_of_tasks([play.get(key, []) for key in ("pre_tasks", "tasks", "post_tasks", "handlers")]))
    return list(dict.fromkeys(role.removeprefix(_PREFIX) for role in named))


def _roles_of_tasks(node: Any) -> Iterator[str]:
    """Yield the roles that tasks import or include, in blocks too."""
    if isinstance(node, list):
        for item in node:
            yield from _roles_of_tasks(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _ROLE_TASKS:
                yield value["name"]
            else:
                yield from _roles_of_tasks(value)


def variables(roles: list[str]) -> list[Variable]:
    """Return the variables that roles describe to people, by name. The first role gives meaning and default."""
    merged: dict[str, Variable] = {}
    for role in roles:
        specs = yaml.safe_load((COLLECTION / f"roles/{role}/meta/argument_specs.yml").read_text())["argument_specs"]
        for entry_point in specs.values():
            for name, option in entry_point.get("options", {}).items():
                if name.startswith("__"):
                    continue
                known = merged.get(name, Variable(name, "", _meaning(option["description"]), []))
                default = known.default or _as_yaml(option.get("default"))
                where = known.roles if role in known.roles else [*known.roles, role]
                merged[name] = known._replace(default=default, roles=where)
    return [merged[name] for name in sorted(merged)]


def _as_yaml(value: Any) -> str:
    """Return a value on one line of YAML that a cell of a table can hold; empty for None."""
    if value is None:
        return ""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip().replace("|", "\\|")


def _meaning(description: str | list[str]) -> str:
    """Return the first paragraph of a description, which has Ansible's markup, as Markdown on one line."""
    first = description if isinstance(description, str) else description[0]
    return md.to_md(parser.parse(first, parser.Context())).replace("\n", " ")


def role_link(role: str) -> str:
    """Return a link to a role's page, which antsibull-docs writes."""
    return f"[{role}](../collection/{role}_role.rst)"
