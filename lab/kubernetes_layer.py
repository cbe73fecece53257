"""What Kubernetes' packages bring to a host: a layer over the nodes' root file system, for `lab/lab up --kubernetes`.

The layer has kubeadm, kubelet and kubectl, the files of kubernetes_host/, and archives of container images instead of a
registry. It is kept until one of its sources changes. `setup/kubernetes` builds the programs.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import images
import kubernetes_images
from commands import LabError, attempt
from images import Image
from state import REPOSITORY, Lab

_BUILDER = REPOSITORY / "setup/kubernetes"
_HOST_FILES = REPOSITORY / "lab/kubernetes_host"
_HOST_PROGRAMS = ("kubeadm", "kubelet", "kubectl")
_IMAGES = "usr/share/lab-images"
"""Directory of the images' archives in a node: crictl of kubernetes_host/ imports them from there."""
_SERVICES = ("kubelet",)
"""Units that the packages enable."""


def prepare(lab: Lab, rootfs: Path) -> Path:
    """Return the layer's directory; build it, some seconds, if a source of it is new.

    Raises LabError unless Kubernetes is built: that takes minutes, and `make test-kubernetes` does it.
    """
    programs = _programs()
    layer = lab.cache / f"kubernetes-{_fingerprint(rootfs, programs)}"
    if not layer.exists():
        for outdated in lab.cache.glob("kubernetes-*"):
            shutil.rmtree(outdated)
        print("== Kubernetes: a layer with its programs and images over the nodes' root file system", flush=True)
        unfinished = layer.with_name(layer.name + ".unfinished")
        _build(unfinished, programs, rootfs)
        unfinished.rename(layer)
    return layer


def _programs() -> Path:
    """Return the directory of Kubernetes' programs."""
    found = attempt(str(_BUILDER), "--cached")
    if found.returncode != 0:
        raise LabError(found.stderr.strip())
    return Path(found.stdout.strip())


def _fingerprint(rootfs: Path, programs: Path) -> str:
    """Return a hash of all that the layer is made of."""
    sources = [Path(module.__file__ or "") for module in (images, kubernetes_images)] + [Path(__file__)]
    sources += sorted(path for path in _HOST_FILES.rglob("*") if path.is_file())
    parts = [rootfs.name.encode()]
    parts += [str(path.relative_to(REPOSITORY)).encode() + path.read_bytes() for path in sources]
    parts += [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode() for path in sorted(programs.iterdir())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _build(layer: Path, programs: Path, rootfs: Path) -> None:
    shutil.copytree(_HOST_FILES, layer)
    for program in _HOST_PROGRAMS:
        _copy(programs / program, layer / "usr/bin" / program)
    for service in _SERVICES:
        wanted = layer / f"etc/systemd/system/multi-user.target.wants/{service}.service"
        wanted.parent.mkdir(exist_ok=True)
        wanted.symlink_to(f"/usr/lib/systemd/system/{service}.service")
    on_every_node = kubernetes_images.for_every_node(programs, rootfs)
    for image in (*on_every_node, *kubernetes_images.for_control_plane(programs, rootfs)):
        _write(image, layer / _IMAGES)
    (layer / _IMAGES / "on-every-node").write_text("".join(f"{image.name}\n" for image in on_every_node))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _write(image: Image, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{image.name.replace('/', '_').replace(':', '_')}.tar").write_bytes(images.archive(image))
