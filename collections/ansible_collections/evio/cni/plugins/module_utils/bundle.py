# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The code of the rooms that ADD and DEL go through, in one file that a launcher reads at once.

To find, open and read two dozen modules one by one takes a tenth of an ADD. The file is made beside the modules for one
version of Python and is named by it; under another, and for all other rooms, Python imports as it always does.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import marshal
import os
import sys
from pathlib import Path

_ENTRANCES = ("evio_program.main", "evio_cni.attachment", "evio_cni.wiring", "evio_cni.detachment", "evio_cni.offload")
"""Importing these imports all the others."""
_PACKAGES = ("evio_cni", "evio_program")

LAUNCH = """\
import marshal
try:
    with open(f"{sys.path[0]}/{sys.implementation.cache_tag}.bundle", "rb", 0) as bundle:
        exec(*marshal.loads(bundle.read()))
except FileNotFoundError:
    pass
"""
"""What a launcher does once sys.path begins with the directory of its code."""

_FIND = """\
import marshal, sys
class Bundle:
    def find_spec(name, path=None, target=None):
        if name in CODE:
            spec = type(sys.__spec__)(name, Bundle)
            if name in PACKAGES:
                spec.submodule_search_locations = [f"{sys.path[0]}/{name}"]
            return spec
    def create_module(spec):
        return None
    def exec_module(module):
        exec(marshal.loads(CODE[module.__name__]), module.__dict__)
sys.meta_path.insert(0, Bundle)
"""
"""A finder and loader of modules (importlib.abc) in front of Python's own; what a call does not need stays bytes."""


def write(directory: str, final: str) -> None:
    """Make the bundle of the code below a directory, for the Python that runs this and has it first in its path.

    ``final`` is where the directory will be, for tracebacks.
    """
    for name in _ENTRANCES:
        importlib.import_module(name)
    own = {name: module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in _PACKAGES}
    code = {name: _compile(Path(place), place.replace(directory, final)) for name, place in own.items() if place}
    del code[__name__]
    names = {"__name__": "bundle", "CODE": code, "PACKAGES": _PACKAGES}
    path = Path(directory) / f"{sys.implementation.cache_tag}.bundle"
    path.write_bytes(marshal.dumps((compile(_FIND, path.name, "exec", dont_inherit=True), names)))
    os.chmod(path, 0o644)


def _compile(path: Path, name: str) -> bytes:
    """A module's code without what no call needs: its docstrings, and the import of ``__future__``."""
    tree = ast.parse(path.read_bytes(), name)
    tree.body = [one for one in tree.body if not (isinstance(one, ast.ImportFrom) and one.module == "__future__")]
    flags = __future__.annotations.compiler_flag
    return marshal.dumps(compile(tree, name, "exec", flags=flags, dont_inherit=True, optimize=2))
