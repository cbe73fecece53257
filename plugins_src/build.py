# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes the programs out of the library and the packages beside this file.

``build/bin`` and ``build/lib`` have them for this machine; the archive in the role ``programs`` is what nodes get.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = ROOT / "collections/ansible_collections/evio/cni"
LIBRARY = COLLECTION / "plugins/module_utils"
ARCHIVE = COLLECTION / "roles/programs/files/evio-programs.zip"
PROGRAM_PACKAGES = ("evio_program", "evio_config_gen")


def main() -> None:
    installation = _load_installation()
    archive = installation.pack(collect(installation.LIBRARY))
    if not ARCHIVE.exists() or ARCHIVE.read_bytes() != archive:
        ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
        temporary = ARCHIVE.with_suffix(".tmp")
        temporary.write_bytes(archive)
        os.rename(temporary, ARCHIVE)
    changed = installation.install(archive, bin_dir=str(ROOT / "build/bin"), lib_dir=str(ROOT / "build/lib"))
    sys.stdout.write(f"build/bin: {', '.join(installation.PROGRAMS)} ({'made' if changed else 'up to date'})\n")


def collect(library: str) -> dict[str, bytes]:
    """Every file of the archive, by its path in it."""
    files = {f"{library}/{path.relative_to(LIBRARY)}": path.read_bytes() for path in LIBRARY.rglob("*.py")}
    for package in PROGRAM_PACKAGES:
        files[f"{package}/__init__.py"] = b""
        for path in (ROOT / "plugins_src" / package).glob("*.py"):
            files[f"{package}/{path.name}"] = path.read_bytes()
    return files


def _load_installation() -> ModuleType:
    """The library's room for it, loaded as part of a package of the name that it will have on hosts."""
    package = importlib.util.spec_from_loader("evio_cni", loader=None, is_package=True)
    if package is None:
        raise RuntimeError("cannot make the package evio_cni")
    package.submodule_search_locations = [str(LIBRARY)]
    sys.modules["evio_cni"] = importlib.util.module_from_spec(package)
    return importlib.import_module("evio_cni.programs.installation")


if __name__ == "__main__":
    main()
