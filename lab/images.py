"""Build the lab's two container images from one static busybox, without a registry or a daemon.

Archives (docker-archive, for `ctr images import`) are reproducible: the same busybox gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from commands import LabError
from state import Lab

PAUSE = "evio.lab/pause:1"
BUSYBOX = "evio.lab/busybox:1"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""The architecture in an image's configuration, by uname's name of the machine."""
_SLEEP = ["/bin/sh", "-c", 'trap "exit 0" TERM INT; while :; do sleep 3600 & wait $!; done']
"""The pause image's command: wait until a signal ends it."""


def prepare(lab: Lab, rootfs: Path) -> dict[str, Path]:
    """Return the archive of each image by the image's name; write those that are missing or outdated."""
    busybox = rootfs / "bin/busybox"
    archives = {name: lab.images / f"{name.split('/')[1].replace(':', '-')}.tar" for name in (PAUSE, BUSYBOX)}
    for name, path in archives.items():
        content = archive(name, busybox, _SLEEP if name == PAUSE else ["/bin/sh"])
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return archives


def archive(name: str, busybox: Path, command: list[str]) -> bytes:
    """Return a docker-archive of one image: a layer with busybox and a link for each applet, and its command."""
    layer = _layer(busybox)
    digest = hashlib.sha256(layer).hexdigest()
    config = _json(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        }
    )
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{digest}/layer.tar"
    manifest = _json([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}])
    return _tar([(config_name, config), (layer_name, layer), ("manifest.json", manifest)])


def _layer(busybox: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for directory in ("bin", "etc", "srv", "tmp"):
            _add(tar, directory, kind=tarfile.DIRTYPE, mode=0o755)
        _add(tar, "bin/busybox", busybox.read_bytes(), mode=0o755)
        for applet in _applets(busybox):
            _add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox", mode=0o777)
    return buffer.getvalue()


def _applets(busybox: Path) -> list[str]:
    try:
        listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"{busybox} does not run: {error}") from error
    return sorted(set(listed.stdout.split()) - {"busybox"})


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
