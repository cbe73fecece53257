# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module programs goes back to a version that the node still has, and takes away only links that it has made."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

from ansible_collections.evio.cni.plugins.module_utils.programs.archive import pack
from ansible_collections.evio.cni.plugins.module_utils.programs.installation import (
    COLLECTION_VERSION,
    PROGRAMS,
    install,
    version_of,
)

from .ansible_module import check_do_again, run_module


def archive(word: str) -> bytes:
    files = {f"{module.partition('.')[0]}/__init__.py": b"" for module in PROGRAMS.values()}
    files[COLLECTION_VERSION] = {"old": b"0.1.0\n", "new": b"0.2.0\n"}.get(word, b"")
    program = f"def main():\n    print({word!r})\n".encode()
    return pack(files | {module.replace(".", "/") + ".py": program for module in PROGRAMS.values()})


def digest(word: str) -> str:
    return hashlib.sha256(archive(word)).hexdigest()


def places(directory: Path) -> dict[str, Any]:
    return {"bin_dir": str(directory / "bin"), "lib_dir": str(directory / "lib")}


def runs(directory: Path) -> str:
    return subprocess.run([directory / "bin/evio"], capture_output=True, text=True, check=True).stdout.strip()


def test_node_goes_back_to_the_version_before_that_of_the_archive_once(tmp_path: Path) -> None:
    for word in ("old", "new"):
        install(archive(word), **places(tmp_path))
    arguments = {"digest": digest("new"), "release": "previous", **places(tmp_path)}
    results = check_do_again("programs", **arguments)
    assert {result["version"] for result in results} == {version_of(digest("old"))}
    assert runs(tmp_path) == "old"
    # A node that never had the archive's version keeps its own.
    kept = run_module("programs", **{**arguments, "digest": digest("broken")})
    assert (kept["changed"], kept["version"]) == (False, version_of(digest("old")))


def test_version_can_be_chosen_by_its_name_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for word in ("old", "new"):
        install(archive(word), **places(tmp_path))
    chosen = {"digest": digest("new"), **places(tmp_path)}
    assert run_module("programs", release=version_of(digest("old")), **chosen)["changed"] is True
    assert runs(tmp_path) == "old"
    for release in (version_of(digest("none")), "0.3.0"):
        refused = run_module("programs", release=release, **chosen)
        assert refused["failed"] is True
        assert f"{release} is not in {tmp_path}/lib; there is: {version_of(digest('old'))} (0.1.0), " in refused["msg"]
    assert runs(tmp_path) == "old"


def test_version_can_be_chosen_by_that_of_the_collection(tmp_path: Path) -> None:
    for word in ("old", "new"):
        install(archive(word), **places(tmp_path))
    results = check_do_again("programs", digest=digest("new"), release="0.1.0", **places(tmp_path))
    assert {result["version"] for result in results} == {version_of(digest("old"))}
    assert runs(tmp_path) == "old"


def test_removal_takes_away_the_links_that_are_named_and_lead_to_the_distribution(tmp_path: Path) -> None:
    source = tmp_path / "distribution"
    source.mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("host-local", "loopback", "portmap"):
        (source / name).touch()
    (tmp_path / "bin/host-local").symlink_to(source / "host-local")
    (tmp_path / "bin/loopback").symlink_to(tmp_path / "another")
    (tmp_path / "bin/portmap").symlink_to(source / "portmap")
    arguments = {"links": ["host-local", "loopback"], "links_dir": str(source), **places(tmp_path)}
    check_do_again("programs", state="absent", **arguments)
    assert sorted(path.name for path in (tmp_path / "bin").iterdir()) == ["loopback", "portmap"]
