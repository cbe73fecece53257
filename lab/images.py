"""Build container images as archives, without a registry or a daemon; among them the images of the lab's own pods.

Archives (docker-archive, for `ctr images import`) are reproducible: the same files give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import LabError
from state import Lab

PAUSE = "evio.lab/pause:1"
BUSYBOX = "evio.lab/busybox:1"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""The architecture in an image's configuration, by uname's name of the machine."""
_DIRECTORIES = ("bin", "etc", "srv", "tmp")
"""Directories of every image, beside those of its files."""
_SLEEP = ("/bin/sh", "-c", 'trap "exit 0" TERM INT; while :; do sleep 3600 & wait $!; done')
"""The command of a pause image: wait until a signal ends it."""


@dataclass(frozen=True)
class Image:
    """One image of one layer: its name, its command, and by their paths in the image its files and symbolic links."""

    name: str
    command: Sequence[str]
    files: Mapping[str, Path]
    links: Mapping[str, str] = field(default_factory=dict)


def prepare(lab: Lab, rootfs: Path) -> dict[str, Path]:
    """Return the archives of the images of the lab's own pods by their names; write the missing and the outdated."""
    archives = {}
    for image in (pause(PAUSE, rootfs), busybox(BUSYBOX, rootfs)):
        path = lab.images / f"{image.name.split('/')[1].replace(':', '-')}.tar"
        content = archive(image)
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        archives[image.name] = path
    return archives


def pause(name: str, rootfs: Path) -> Image:
    """Return an image whose command does nothing until a signal ends it: a pod's sandbox runs it."""
    return busybox(name, rootfs, command=_SLEEP)


def busybox(name: str, rootfs: Path, command: Sequence[str] = ("/bin/sh",)) -> Image:
    """Return an image of the root file system's static busybox, with a link for each applet."""
    program = rootfs / "bin/busybox"
    try:
        listed = subprocess.run([program, "--list"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"{program} does not run: {error}") from error
    applets = sorted(set(listed.stdout.split()) - {"busybox"})
    return Image(name, command, {"bin/busybox": program}, {f"bin/{applet}": "busybox" for applet in applets})


def archive(image: Image) -> bytes:
    """Return the docker-archive of an image."""
    layer = _layer(image)
    digest = hashlib.sha256(layer).hexdigest()
    config = _json(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Cmd": list(image.command), "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        }
    )
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{digest}/layer.tar"
    manifest = _json([{"Config": config_name, "RepoTags": [image.name], "Layers": [layer_name]}])
    return _tar([(config_name, config), (layer_name, layer), ("manifest.json", manifest)])


def merge(archives: Sequence[Path], target: Path) -> None:
    """Write docker-archives as one, with all of their images; a file that several of them have is there once."""
    manifest: list[Any] = []
    seen = {"manifest.json", "repositories"}
    unfinished = target.with_name(target.name + ".unfinished")
    with tarfile.open(unfinished, "w") as merged:
        for path in archives:
            with tarfile.open(path) as tar:
                manifest += json.load(tar.extractfile("manifest.json") or io.BytesIO())
                for entry in tar:
                    if entry.name not in seen:
                        merged.addfile(entry, tar.extractfile(entry) if entry.isfile() else None)
                        seen.add(entry.name)
        _add(merged, "manifest.json", _json(manifest), mode=0o644)
    unfinished.rename(target)


def _layer(image: Image) -> bytes:
    above = {str(parent) for path in (*image.files, *image.links) for parent in Path(path).parents} - {"."}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for directory in sorted(above.union(_DIRECTORIES)):
            _add(tar, directory, kind=tarfile.DIRTYPE, mode=0o755)
        for path, source in sorted(image.files.items()):
            _add(tar, path, source.read_bytes(), mode=0o755)
        for path, target in sorted(image.links.items()):
            _add(tar, path, kind=tarfile.SYMTYPE, link=target, mode=0o777)
    return buffer.getvalue()


def _tar(files: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files:
            _add(tar, name, content, mode=0o644)
    return buffer.getvalue()


def _add(
    tar: tarfile.TarFile, name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int
) -> None:
    """Add an entry without times and owners, which would differ from build to build."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.size = kind, link, mode, len(content)
    tar.addfile(entry, io.BytesIO(content))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
