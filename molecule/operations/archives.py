#!/usr/bin/env python3
"""Write two archives of the collection's programs into a directory: archives.py DIRECTORY.

changed.zip is another version of the same programs. With broken.zip all works but STATUS, which says that the node is
not ready for pods.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

from ansible_collections.evio.cni.plugins.module_utils.programs.archive import build, pack

BROKEN_STATUS = b"""

def cmd_status(*_arguments, **_options):
    raise RuntimeError("this version is broken")
"""


def main() -> None:
    """Write both archives."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(build())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name, path, more in (
        ("changed", "evio_cni/__init__.py", b"# A version of its own.\n"),
        ("broken", "evio_cni/plugin/status.py", BROKEN_STATUS),
    ):
        (directory / f"{name}.zip").write_bytes(pack({**files, path: files[path] + more}))


if __name__ == "__main__":
    main()
