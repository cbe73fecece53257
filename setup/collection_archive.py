#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build the collection as ansible-galaxy does, with the same bytes for the same commit, and print the archive's path.

It has the files that git knows or would add, whatever else lies in the tree. ansible-galaxy writes the build's time and
the order of the directory's entries into an archive; here both come from the commit and from the files' names.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
COLLECTION = REPOSITORY / "collections/ansible_collections/evio/cni"
_MANIFEST, _FILES = "MANIFEST.json", "FILES.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=REPOSITORY / "build", help="default: build/")
    directory = parser.parse_args().directory
    with tempfile.TemporaryDirectory(prefix="evio-collection-") as scratch:
        copy, built = Path(scratch, "copy"), Path(scratch, "built")
        _copy_known_files(copy)
        _run("ansible-galaxy", "collection", "build", str(copy), "--output-path", str(built), cwd=scratch)
        (archive,) = built.iterdir()
        content = reproducible(archive.read_bytes(), mtime=int(_git("log", "-1", "--format=%ct")))
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / archive.name
    temporary = target.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, target)
    print(target)


def reproducible(archive: bytes, *, mtime: int) -> bytes:
    """Return a collection's archive with its entries in the order of their names, all of the time ``mtime`` (Unix)."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        entries = {entry.name: entry for entry in packed.getmembers()}
        contents = {name: packed.extractfile(entry).read() for name, entry in entries.items() if entry.isfile()}
    # The manifest has the digest of the list of files.
    files = json.loads(contents[_FILES])
    files["files"].sort(key=lambda file: file["name"])
    contents[_FILES] = _json(files)
    manifest = json.loads(contents[_MANIFEST])
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(contents[_FILES]).hexdigest()
    contents[_MANIFEST] = _json(manifest)
    first = [_MANIFEST, _FILES]
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=mtime) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as packed,
    ):
        for name in first + sorted(entries.keys() - set(first)):
            entry = entries[name]
            entry.mtime, entry.pax_headers = mtime, {}
            entry.size = len(contents.get(name, b""))
            packed.addfile(entry, io.BytesIO(contents.get(name, b"")))
    return buffer.getvalue()


def _json(value: object) -> bytes:
    """Return a manifest as ansible-galaxy writes it."""
    return json.dumps(value, indent=True).encode()


def _copy_known_files(target: Path) -> None:
    """Copy the collection's files that git knows or would add."""
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, names):
        source = COLLECTION / name
        if source.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
            # Whatever the umask of the clone was.
            (target / name).chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _git(*arguments: str) -> str:
    return _run("git", *arguments, cwd=COLLECTION)


def _run(*command: str, cwd: str | Path) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    except FileNotFoundError:
        sys.exit(f"collection: {command[0]} is not installed: run `make setup`, or install ansible-core and git")
    if done.returncode:
        sys.exit(f"collection: {command[0]} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
