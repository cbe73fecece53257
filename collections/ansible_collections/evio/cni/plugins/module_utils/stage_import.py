# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Importing a call's modules by stages: a finder and loader (importlib.abc) in front of Python's own.

The first module of a stage brings all the others of it, in their order, past the machinery that finds each by itself.
Runs before anything else is imported. What is in which stage: stages.
"""

from __future__ import annotations

import _imp
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_PACKAGES = ("evio_cni", "evio_program")
_EXTENSIONS = ("_json", "_ctypes")
"""Modules of the interpreter's own that are files: it would look for them in every directory of its path."""


class StageImport:
    """Of the stages that are beside the code in a directory."""

    def __init__(self, directory: str) -> None:
        self._stages = f"{directory}/{sys.implementation.cache_tag}.stages"

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """The module, if a stage begins with it or it is an extension that is where they are at the usual places."""
        if name in _EXTENSIONS:
            return _extension(name)
        if not name.startswith(_PACKAGES):
            return None
        try:
            descriptor = posix.open(f"{self._stages}/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            content = posix.read(descriptor, posix.fstat(descriptor).st_size)
        finally:
            posix.close(descriptor)
        return _spec(name, self, loader_state=content)

    def create_module(self, _spec: ModuleSpec) -> None:
        """As usual."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the code of the whole stage; the module's own is its last."""
        for name, code in marshal.loads(module.__spec__.loader_state):  # type: ignore[union-attr]
            if name == module.__name__:
                exec(code, module.__dict__)
            elif name not in sys.modules:
                _add(_module(name), code)


def install(directory: str) -> None:
    """Import by stages from now on, and what has none from the packages in the directory."""
    for name in _PACKAGES:
        package = sys.modules[name] = _module(name)
        package.__path__ = [f"{directory}/{name}"]
    sys.meta_path.insert(0, StageImport(directory))


def _extension(name: str) -> ModuleSpec | None:
    path = f"{sys.path[-1]}/{name}{_imp.extension_suffixes()[0]}"
    try:
        posix.stat(path)
    except OSError:
        return None
    loader = sys.modules["_frozen_importlib_external"].ExtensionFileLoader(name, path)
    return _spec(name, loader, origin=path)


def _spec(name: str, loader: Any, **more: Any) -> ModuleSpec:
    module_spec: Any = type(sys.__spec__)
    spec: ModuleSpec = module_spec(name, loader, **more)
    return spec


def _module(name: str) -> ModuleType:
    module = type(sys)(name)
    module.__package__ = name.partition(".")[0]
    return module


def _add(module: ModuleType, code: Any) -> None:
    exec(code, module.__dict__)
    package, _dot, name = module.__name__.partition(".")
    sys.modules[module.__name__] = module
    setattr(sys.modules[package], name, module)
