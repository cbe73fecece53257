"""The built images have the parts and digests that a container runtime expects, and builds are reproducible."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import images

ROOT = Path("/")


def _archive(name: str) -> bytes:
    return images.archive(images.busybox(name, ROOT))


def _members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]


def test_archive_is_reproducible() -> None:
    assert _archive("a/b:1") == _archive("a/b:1")


def test_archive_names_its_parts_by_their_digests() -> None:
    members = _members(_archive("evio.lab/x:1"))
    (manifest,) = json.loads(members["manifest.json"])
    assert manifest["RepoTags"] == ["evio.lab/x:1"]
    config = members[manifest["Config"]]
    assert manifest["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
    (layer_name,) = manifest["Layers"]
    layer_digest = hashlib.sha256(members[layer_name]).hexdigest()
    assert json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{layer_digest}"]


def test_layer_has_what_the_lab_runs_in_pods() -> None:
    members = _members(_archive("evio.lab/x:1"))
    (manifest,) = json.loads(members["manifest.json"])
    with tarfile.open(fileobj=io.BytesIO(members[manifest["Layers"][0]])) as layer:
        for applet in ("sh", "ping", "wget", "httpd", "awk", "sha256sum", "timeout", "ip"):
            assert layer.getmember(f"bin/{applet}").linkname == "busybox"
        assert layer.getmember("bin/busybox").mode == 0o755
        assert {entry.mtime for entry in layer} == {0}


def test_merged_archive_has_all_images_and_a_shared_layer_once(tmp_path: Path) -> None:
    names = ["evio.lab/x:1", "evio.lab/y:2"]
    paths = [tmp_path / f"{number}.tar" for number in range(2)]
    for path, name in zip(paths, names, strict=True):
        path.write_bytes(images.archive(images.busybox(name, ROOT, command=[name])))
    images.merge(paths, tmp_path / "both.tar")
    with tarfile.open(tmp_path / "both.tar") as tar:
        members = tar.getnames()
    parts = _members((tmp_path / "both.tar").read_bytes())
    manifest = json.loads(parts["manifest.json"])
    assert [entry["RepoTags"] for entry in manifest] == [[name] for name in names]
    assert [json.loads(parts[entry["Config"]])["config"]["Cmd"] for entry in manifest] == [[name] for name in names]
    assert manifest[0]["Layers"] == manifest[1]["Layers"]
    assert len(members) == len(set(members)) == 4
