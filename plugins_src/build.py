# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build the programs from the library and the packages beside this file.

It installs them into ``build/bin`` and ``build/lib`` of this machine, and writes the archive that the role ``programs``
installs on nodes.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = ROOT / "collections/ansible_collections/evio/cni"
LIBRARY = COLLECTION / "plugins/module_utils"
ARCHIVE = COLLECTION / "roles/programs/files/evio-programs.zip"
PROGRAM_PACKAGES = ("evio_program", "evio_config_gen", "evio_install")
_PACKAGE = "evio_cni"
_ENTRY = """\
from pathlib import Path

from evio_install.main import main

main(Path(__file__).parent)
"""
"""The archive's __main__.py: the archive itself is a program, which installs its content."""


def main() -> None:
    """Build the archive, and install it for this machine."""
    installation = _import_from_library("programs.installation")
    archive = installation.pack(collect(installation.LIBRARY))
    if not ARCHIVE.exists() or ARCHIVE.read_bytes() != archive:
        _import_from_library("atomic_file").write_atomic(ARCHIVE, archive, mode=0o644)
    done = installation.install(archive, bin_dir=str(ROOT / "build/bin"), lib_dir=str(ROOT / "build/lib"))
    sys.stdout.write(f"build/bin: {', '.join(installation.PROGRAMS)} ({'built' if done.changed else 'up to date'})\n")


def collect(library: str) -> dict[str, bytes]:
    """Return the archive's files by their paths in it; ``library`` is the library's package name there."""
    files = {f"{library}/{path.relative_to(LIBRARY)}": path.read_bytes() for path in LIBRARY.rglob("*.py")}
    files["__main__.py"] = _ENTRY.encode()
    for package in PROGRAM_PACKAGES:
        files[f"{package}/__init__.py"] = b""
        for path in (ROOT / "plugins_src" / package).glob("*.py"):
            files[f"{package}/{path.name}"] = path.read_bytes()
    return files


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
