# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The code of the plugin's calls in stages: a file has all the modules that one step of a call needs, read at once.

To find, open and read two dozen modules one by one takes a tenth of an ADD. The files are made beside the modules for
one version of Python and are named by it (stage_import reads them); under another, and for all other rooms, Python
imports as it always does.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FIRST = "evio_program.main"
_ADD = (_FIRST, "evio_cni.attachment", "evio_cni.attempt", "evio_cni.wiring", "evio_cni.pod_side")
_DEL = (_FIRST, "evio_cni.detachment", "evio_cni.ipam", "evio_cni.unplugging")
_OTHERS = ("evio_cni.checking", "evio_cni.status", "evio_cni.collection")
_CALLS = (_ADD, _DEL, *((_FIRST, name) for name in _OTHERS))
"""Importing one of these modules begins a stage, which has all that it imports and the stages before it do not have."""
_LOADER = "evio_cni.stage_import"

LAUNCH = """\
import marshal
try:
    with open(f"{sys.path[0]}/{sys.implementation.cache_tag}.stages/evio_cni.stage_import", "rb", 0) as loader:
        exec(marshal.loads(loader.read()))
    install(sys.path[0])
except FileNotFoundError:
    pass
"""
"""What a launcher does once sys.path begins with the directory of its code."""


def write(directory: str, final: str) -> None:
    """Make the stages of the code below a directory, for the Python that runs this.

    ``final`` is where the directory will be, for tracebacks.
    """
    trees = _Trees(Path(directory), Path(final))
    stages = Path(directory) / f"{sys.implementation.cache_tag}.stages"
    stages.mkdir()
    os.chmod(stages, 0o755)
    for call in _CALLS:
        there: set[str] = set()
        for entrance in call:
            names = [name for name in trees.order(entrance) if name not in there]
            there.update(names)
            _write(stages / entrance, [(name, trees.code(name)) for name in names])
    _write(stages / _LOADER, trees.code(_LOADER))


class _Trees:
    """The syntax trees of our own modules, by their names."""

    def __init__(self, directory: Path, final: Path) -> None:
        self._directory = directory
        self._final = final
        self._read: dict[str, ast.Module] = {}

    def order(self, name: str, seen: set[str] | None = None) -> Iterator[str]:
        """The module after all those that it imports when it is imported itself."""
        seen = set() if seen is None else seen
        seen.add(name)
        for one in self._imports(name):
            if one not in seen:
                yield from self.order(one, seen)
        yield name

    def code(self, name: str) -> Any:
        """A module's code without what no call needs: its docstrings, and the import of ``__future__``."""
        tree = ast.Module([one for one in self._tree(name).body if not _is_import(one, "__future__")], [])
        flags = __future__.annotations.compiler_flag
        path = str(self._final / _file(name))
        return compile(tree, path, "exec", flags=flags, dont_inherit=True, optimize=2)

    def _imports(self, name: str) -> Iterator[str]:
        package = name.partition(".")[0]
        for statement in self._tree(name).body:
            if not isinstance(statement, ast.ImportFrom):
                continue
            place = ".".join(filter(None, (package if statement.level else "", statement.module or "")))
            for candidate in (place, *(f"{place}.{alias.name}" for alias in statement.names)):
                if "." in candidate and (self._directory / _file(candidate)).is_file():
                    yield candidate

    def _tree(self, name: str) -> ast.Module:
        if name not in self._read:
            self._read[name] = ast.parse((self._directory / _file(name)).read_bytes(), name)
        return self._read[name]


def _is_import(statement: ast.stmt, module: str) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == module


def _file(name: str) -> str:
    return name.replace(".", "/") + ".py"


def _write(path: Path, content: Any) -> None:
    path.write_bytes(marshal.dumps(content))
    os.chmod(path, 0o644)
