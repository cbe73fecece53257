# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Install the programs for this machine into ``build/bin`` and ``build/lib``, and write their archive beside them.

The packages beside this file are links into the collection, which holds the programs' only source: the role
``programs`` packs them on the control machine. The image of the DaemonSet is built from the archive.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LIBRARY = ROOT / "collections/ansible_collections/evio/cni/plugins/module_utils"
_PACKAGE = "evio_cni"


def main() -> None:
    """Build the archive, and install it for this machine."""
    archive, installation = (_import_from_library(f"programs.{name}") for name in ("archive", "installation"))
    content = archive.build()
    path = BUILD / archive.NAME
    if not path.exists() or path.read_bytes() != content:
        _import_from_library("atomic_file").write_atomic(path, content, mode=0o644)
    done = installation.install(content, bin_dir=str(BUILD / "bin"), lib_dir=str(BUILD / "lib"))
    sys.stdout.write(f"build/bin: {', '.join(installation.PROGRAMS)} ({'built' if done.changed else 'up to date'})\n")


def _import_from_library(name: str) -> ModuleType:
    """Import a module of the library under the package name that the library has on hosts."""
    if _PACKAGE not in sys.modules:
        package = importlib.util.spec_from_loader(_PACKAGE, loader=None, is_package=True)
        if package is None:
            raise RuntimeError(f"cannot make the package {_PACKAGE}")
        package.submodule_search_locations = [str(LIBRARY)]
        sys.modules[_PACKAGE] = importlib.util.module_from_spec(package)
    return importlib.import_module(f"{_PACKAGE}.{name}")


if __name__ == "__main__":
    main()
