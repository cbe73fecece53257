# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Import the CNI plugin's modules by stages: a finder and loader (importlib.abc) that runs before Python's own.

The import of a stage's entry module also runs all other modules of the stage, in order and without searching for each.
This file runs before anything else is imported. ``stages`` says which modules a stage holds.
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
"""Extension modules of the standard library that the plugin uses. Python would search for them in every directory of
its path."""


class StageImporter:
    """Finds and loads the stages of the code in ``directory``."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._stages = f"{directory}/{sys.implementation.cache_tag}.stages"

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Find the entry module of a stage, or an extension module at its usual place; else leave it to Python."""
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
        """Let Python create the module object."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the code of the whole stage, the module's own code among it."""
        packages, modules = marshal.loads(module.__spec__.loader_state)  # type: ignore[union-attr]
        for name in packages:
            if name not in sys.modules:
                _add(_package(name, self._directory))
        for name, code in modules:
            if name == module.__name__:
                exec(code, module.__dict__)
            elif name not in sys.modules:
                other = _module(name)
                _add(other)
                exec(code, other.__dict__)


def install(directory: str) -> None:
    """Import by stages from now on. What is in no stage is imported as usual, from the packages in ``directory``."""
    for name in _PACKAGES:
        sys.modules[name] = _package(name, directory)
    sys.meta_path.insert(0, StageImporter(directory))


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


def _package(name: str, directory: str) -> ModuleType:
    package = type(sys)(name)
    package.__package__ = name
    package.__path__ = [f"{directory}/{name.replace('.', '/')}"]
    return package


def _module(name: str) -> ModuleType:
    module = type(sys)(name)
    module.__package__ = name.rpartition(".")[0]
    return module


def _add(module: ModuleType) -> None:
    package, _dot, name = module.__name__.rpartition(".")
    sys.modules[module.__name__] = module
    setattr(sys.modules[package], name, module)
