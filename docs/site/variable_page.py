#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write ``docs/variables.md``: every variable that people set, from the argument_specs of the collection's roles.

The page is kept in git, for readers who have no site; a test tells when it has to be written again.
"""

from __future__ import annotations

import re
from pathlib import Path

import playbook_pages
import yaml

PAGE = Path(__file__).resolve().parents[1] / "variables.md"
_FIRST = "cluster"
"""The role whose variables concern all others."""
_OPENING = """\
# Variables

Every variable that an inventory can set, by the role that it belongs to; those of `cluster` concern all roles. The
[quick start](quick-start.md) needs few of them. This page is written by `docs/site/variable_page.py` from the roles'
`meta/argument_specs.yml`, with which a bootstrap compares all values before it changes anything. Of a long description
it has the first paragraph; `ansible-doc --type role evio.cni.ROLE` shows the rest.
"""


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """Return the page: a heading and a table for each role. A variable of several roles is in the first of them."""
    names = {path.parents[1].name for path in playbook_pages.COLLECTION.glob("roles/*/meta/argument_specs.yml")}
    sections = [_OPENING]
    listed: set[str] = set()
    for role in (_FIRST, *sorted(names - {_FIRST})):
        own = [variable for variable in playbook_pages.variables([role]) if variable.name not in listed]
        listed.update(variable.name for variable in own)
        if own:
            sections.append(f"## {role}\n\n{_link(role)}\n\n{_table(own)}")
    return "\n".join(sections)


def _table(variables: list[playbook_pages.Variable]) -> str:
    rows = (f"| `{each.name}` | {_default(each.default)} | {_plain(each.meaning)} |\n" for each in variables)
    return "".join(["| variable | default | meaning |\n|---|---|---|\n", *rows])


def _default(text: str) -> str:
    """Return a cell with a default, which is given as YAML; a string is shown without its quotes."""
    value = yaml.safe_load(text)
    shown = value if isinstance(value, str) else text
    return f"`{shown}`" if shown else ""


def _plain(markdown: str) -> str:
    """Return Markdown that reads well as it is: code in backticks, and no escape that a line of text does not need."""
    text = re.sub(r"\\([^a-zA-Z0-9\s<>*|`])", r"\1", markdown)
    return re.sub(r"<code>(?:<strong>)?(.*?)(?:</strong>)?</code>", _code, text)


def _code(found: re.Match[str]) -> str:
    code = re.sub(r"\\([<>*])", r"\1", found[1])
    return f"`{code}`"


def _link(role: str) -> str:
    readme = (playbook_pages.COLLECTION / f"roles/{role}/README.md").relative_to(PAGE.parents[1])
    return f"[What the role does](../{readme})"


if __name__ == "__main__":
    main()
