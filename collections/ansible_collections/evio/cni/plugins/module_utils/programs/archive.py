# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The archive of the programs, packed on the control machine from the collection's own files.

The collection holds the programs' sources, in the role ``programs``, beside the library that they import. So every copy
of the collection has them, and there is no built file that could be missing or older. ``installation`` installs the
archive on a host.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ..atomic_file import read_text
from .command_links import SHARE
from .installation import COLLECTION_VERSION, LIBRARY, PROGRAMS, InstallationError

NAME = "evio-programs.zip"
"""The archive's usual file name."""

_LIBRARY_DIR = Path(__file__).resolve().parents[1]
_COLLECTION_DIR = _LIBRARY_DIR.parents[1]
_PROGRAMS_DIR = _COLLECTION_DIR / "roles/programs/files"
_ENTRY = b"""\
from pathlib import Path

from evio_install.main import main

main(Path(__file__).parent)
"""
"""The archive's __main__.py: the archive itself is a program, which installs its content."""


def build() -> bytes:
    """Return the archive of this collection's programs. Raises InstallationError if the collection is incomplete."""
    files = {f"{LIBRARY}/{path.relative_to(_LIBRARY_DIR)}": path.read_bytes() for path in _LIBRARY_DIR.rglob("*.py")}
    for path in _PROGRAMS_DIR.rglob("*.py"):
        relative = path.relative_to(_PROGRAMS_DIR)
        files[str(relative)] = path.read_bytes()
        files[f"{relative.parts[0]}/__init__.py"] = b""
    for path in (_PROGRAMS_DIR / SHARE).rglob("*"):
        if path.is_file():
            files[str(path.relative_to(_PROGRAMS_DIR))] = path.read_bytes()
    for module in PROGRAMS.values():
        source = f"{module.replace('.', '/')}.py"
        if source not in files:
            raise InstallationError(f"{_PROGRAMS_DIR / source} is not there: install the collection evio.cni again")
    return pack({**files, "__main__.py": _ENTRY, COLLECTION_VERSION: f"{collection_version()}\n".encode()})


def collection_version(directory: Path = _COLLECTION_DIR) -> str:
    """Return the version of the collection in a directory: its sources have galaxy.yml, what is installed a manifest.

    Raises InstallationError.
    """
    try:
        source, manifest = read_text(directory / "galaxy.yml"), read_text(directory / "MANIFEST.json")
        if source is not None and (match := re.search(r"(?m)^version: *(\S+)$", source)):
            return match[1]
        if manifest is not None:
            return str(json.loads(manifest)["collection_info"]["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InstallationError(f"cannot read the version of the collection in {directory}: {error!r}") from error
    raise InstallationError(
        f"{directory} has neither galaxy.yml nor MANIFEST.json with a version: install the collection evio.cni again"
    )


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of these files, given by their paths in it; the same files always give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[path])
    return buffer.getvalue()
