#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the programs' manual pages and shell completions from their argument parsers, beside the programs' sources.

argparse-manpage and shtab do the work. The pages are kept in git, because a control machine that packs the programs has
neither; a test tells when they have to be written again.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

REPOSITORY = Path(__file__).resolve().parents[1]
COLLECTION = REPOSITORY / "collections/ansible_collections/evio/cni"
SHARE = COLLECTION / "roles/programs/files/share"
_LIBRARY = "evio_cni"
_SECTION = "8"
"""The manual's section of commands for system administration (man(1))."""
_WHAT = {
    "evio": "show and repair the pod network of a node",
    "evio-config-gen": "claim a node's subnet of the pod network and write its CNI configuration",
}
"""What apropos(1) finds."""
_COMPLETED = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
"""What is completed, by the metavar of an option."""


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, content in pages().items():
        path = SHARE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(path.relative_to(REPOSITORY))


def pages() -> dict[str, str]:
    """Return the content of each page by its path below ``share``."""
    # argparse wraps to the terminal's width.
    os.environ["COLUMNS"] = "100"
    files = {}
    for parser in _parsers():
        for action in _actions(parser):
            if action.metavar in _COMPLETED:
                action.complete = _COMPLETED[action.metavar]  # type: ignore[attr-defined]  # shtab's attribute
        name = parser.prog
        files[f"man/man{_SECTION}/{name}.{_SECTION}"] = _manual(parser)
        files[f"bash-completion/completions/{name}"] = shtab.complete(parser, "bash")
        files[f"zsh/site-functions/_{name}"] = shtab.complete(parser, "zsh")
    return {path: "".join(f"{line.rstrip()}\n" for line in text.splitlines()) for path, text in files.items()}


def _parsers() -> list[argparse.ArgumentParser]:
    _provide_library()
    overlay = importlib.import_module("evio_program.overlay_commands").build_parser()
    return [
        importlib.import_module("evio_program.commands").build_parser(overlay),
        importlib.import_module("evio_config_gen.options").build_parser(),
    ]


def _provide_library() -> None:
    """Let the programs import the library by the name that it has on hosts."""
    programs = str(COLLECTION / "roles/programs/files")
    if _LIBRARY not in sys.modules:
        sys.path.append(programs)
        package = importlib.util.spec_from_loader(_LIBRARY, loader=None, is_package=True)
        assert package is not None
        package.submodule_search_locations = [str(COLLECTION / "plugins/module_utils")]
        sys.modules[_LIBRARY] = importlib.util.module_from_spec(package)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _manual(parser: argparse.ArgumentParser) -> str:
    page = Manpage(parser)
    page.section = _SECTION
    page.source = "evio.cni"
    page.manual = "System administration"
    page.description = _WHAT[parser.prog]
    # The same sources give the same page on every day.
    page.date = ""
    return str(page)


if __name__ == "__main__":
    main()
