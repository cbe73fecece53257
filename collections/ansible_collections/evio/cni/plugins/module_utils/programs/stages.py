# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the stages of the CNI plugin: one file holds the byte code of all modules that one step of a call needs.

Finding, opening and reading forty modules one by one takes a tenth of an ADD. The stages lie beside the modules, are
made for one version of Python and are named by it. ``stage_import`` reads them; another Python, and all other programs,
import the modules as usual.
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

_PROGRAM = "evio_program.main"
_ADD = (
    (_PROGRAM,),
    ("evio_cni.plugin.add",),
    ("evio_cni.kernel.netns", "evio_cni.state.fence", "evio_cni.kernel.boot", "evio_cni.state.journal"),
    ("evio_cni.plugin.add_host_side",),
    ("evio_cni.cni.interfaces", "evio_cni.plugin.add_pod_side"),
)
_DEL = ((_PROGRAM,), ("evio_cni.plugin.delete",), ("evio_cni.ipam.delegate",), ("evio_cni.ovs.ports",))
_OTHERS = ("evio_cni.plugin.check", "evio_cni.plugin.status", "evio_cni.plugin.gc")
_CALLS = (_ADD, _DEL, *(((_PROGRAM,), (name,)) for name in _OTHERS))
"""Each call's stages, in order: the modules that the call imports at this point. A stage is named by the first of them,
and also holds all modules that they import at their top level, apart from those of the call's earlier stages."""

_IMPORTER = "evio_cni.programs.stage_import"

LAUNCH = f"""\
import marshal
try:
    with open(f"{{sys.path[0]}}/{{sys.implementation.cache_tag}}.stages/{_IMPORTER}", "rb", 0) as importer:
        exec(marshal.loads(importer.read()))
    install(sys.path[0])
except FileNotFoundError:
    pass
"""
"""Lines of a launcher that switch stages on. ``sys.path`` must begin with the directory of the launcher's version."""


def write_stages(directory: str, final: str) -> None:
    """Write the stages of the code in ``directory``, for the Python that runs this function.

    ``final`` is the path that the directory will be renamed to: tracebacks name it. Raises OSError.
    """
    code = _Code(Path(directory), Path(final))
    stages = Path(directory) / f"{sys.implementation.cache_tag}.stages"
    stages.mkdir()
    os.chmod(stages, 0o755)
    contents: dict[str, list[str]] = {}
    for call in _CALLS:
        loaded: set[str] = set()
        for stage in call:
            order = (name for entry in stage for name in code.import_order(entry))
            contents[stage[0]] = [name for name in dict.fromkeys(order) if name not in loaded]
            loaded.update(contents[stage[0]])
    for entry, names in contents.items():
        # The first stage also makes the packages of the others' entries: Python looks for a package before its module.
        inside = [*names, *contents] if entry == _PROGRAM else names
        packages = sorted({package for name in inside for package in _packages(name)})
        _write(stages / entry, (packages, [(name, code.compiled(name)) for name in names]))
    _write(stages / _IMPORTER, code.compiled(_IMPORTER))


class _Code:
    """The modules and packages below a directory, by their full names."""

    def __init__(self, directory: Path, final: Path) -> None:
        self._directory = directory
        self._final = final
        self._trees: dict[str, ast.Module] = {}

    def import_order(self, name: str, seen: set[str] | None = None) -> Iterator[str]:
        """Yield a module and all modules that it imports at its top level, directly or not; imported modules first."""
        seen = set() if seen is None else seen
        seen.add(name)
        for imported in self._imports(name):
            if imported not in seen:
                yield from self.import_order(imported, seen)
        yield name

    def compiled(self, name: str) -> Any:
        """Return a module's code object, without docstrings, function annotations, and imports for type checkers.

        No call needs them, and each would have to load them.
        """
        tree = ast.Module([node for node in self._tree(name).body if not _is_needless(node)], [])
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                node.returns = None
            elif isinstance(node, ast.arg):
                node.annotation = None
        flags = __future__.annotations.compiler_flag
        return compile(tree, str(self._final / _path(name)), "exec", flags=flags, dont_inherit=True, optimize=2)

    def _imports(self, name: str) -> Iterator[str]:
        for statement in self._tree(name).body:
            if not isinstance(statement, ast.ImportFrom):
                continue
            # A level of 1 is the module's own package, each further level the package above.
            package = name.rsplit(".", statement.level)[0] if statement.level else ""
            source = ".".join(filter(None, (package, statement.module)))
            for candidate in (source, *(f"{source}.{alias.name}" for alias in statement.names)):
                if "." in candidate and (self._directory / _path(candidate)).is_file():
                    yield candidate

    def _tree(self, name: str) -> ast.Module:
        if name not in self._trees:
            self._trees[name] = ast.parse((self._directory / _path(name)).read_bytes(), name)
        return self._trees[name]


def _is_needless(statement: ast.stmt) -> bool:
    """Return whether a statement at a module's top level is for the compiler or for type checkers alone."""
    if isinstance(statement, ast.If):
        return isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING"
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _packages(name: str) -> Iterator[str]:
    """Yield the packages around a module, apart from the outermost, which ``stage_import`` makes itself."""
    package = name.rpartition(".")[0]
    while "." in package:
        yield package
        package = package.rpartition(".")[0]


def _path(name: str) -> str:
    return name.replace(".", "/") + ".py"


def _write(path: Path, content: Any) -> None:
    path.write_bytes(marshal.dumps(content))
    os.chmod(path, 0o644)
