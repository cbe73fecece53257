#!/usr/bin/env python3
"""Write the index of a directory of Debian packages, so that apt takes it for a repository: repository.py DIRECTORY."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Write the file Packages, with a stanza for each package."""
    directory = Path(sys.argv[1])
    stanzas = []
    for path in sorted(directory.glob("*.deb")):
        fields = subprocess.run(["dpkg-deb", "--field", str(path)], capture_output=True, text=True, check=True).stdout
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        place = f"Filename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n"
        stanzas.append(fields.rstrip("\n") + "\n" + place)
    (directory / "Packages").write_text("\n".join(stanzas))


if __name__ == "__main__":
    main()
