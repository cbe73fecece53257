"""The images that kubeadm's cluster runs, made of Kubernetes' static programs and of Debian's etcd and iptables.

Their names are those that `kubeadm config images list` prints. CoreDNS is not among them: Debian has no package of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import images
from commands import LabError, run
from images import Image

_CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_XTABLES = "usr/sbin/xtables-nft-multi"
_IPTABLES = [f"{version}tables{tool}" for version in ("ip", "ip6") for tool in ("", "-save", "-restore")]


def for_every_node(programs: Path, rootfs: Path) -> tuple[Image, ...]:
    """Return the images that every node runs: a pod's sandbox, kube-proxy, and the containers of the lab's pods."""
    names = _names(programs)
    return (
        images.pause(names["pause"], rootfs),
        _proxy(names, programs, rootfs),
        images.busybox(images.BUSYBOX, rootfs),
    )


def for_control_plane(programs: Path, rootfs: Path) -> tuple[Image, ...]:
    """Return the images of the control plane's static pods."""
    names = _names(programs)
    static = [
        Image(names[program], [program], {f"usr/local/bin/{program}": programs / program}) for program in _CONTROL_PLANE
    ]
    etcd = {"usr/bin/etcd": rootfs / "usr/bin/etcd", **_libraries(rootfs, ["usr/bin/etcd"])}
    return (*static, Image(names["etcd"], ["etcd"], etcd))


def _names(programs: Path) -> dict[str, str]:
    """Return the images' names that this kubeadm expects, by the last part of their repository's name."""
    kubeadm = str(programs / "kubeadm")
    version = run(kubeadm, "version", "--output=short").strip()
    listed = run(kubeadm, "config", "images", "list", f"--kubernetes-version={version}").split()
    return {name.rpartition("/")[2].partition(":")[0]: name for name in listed}


def _proxy(names: dict[str, str], programs: Path, rootfs: Path) -> Image:
    """Return kube-proxy's image: it runs iptables, whose matches are libraries, and conntrack for Services with UDP."""
    matches = [str(path.relative_to(rootfs)) for path in rootfs.glob("usr/lib/*/xtables/*.so")]
    debian = [_XTABLES, "usr/sbin/conntrack", *matches]
    files = {path: rootfs / path for path in debian} | _libraries(rootfs, debian)
    files["usr/local/bin/kube-proxy"] = programs / "kube-proxy"
    links = {f"usr/sbin/{name}": Path(_XTABLES).name for name in _IPTABLES}
    return Image(names["kube-proxy"], ["kube-proxy"], files, links)


def _libraries(rootfs: Path, programs: Iterable[str]) -> dict[str, Path]:
    """Return the libraries that these files of the root file system are linked to, by their paths in an image."""
    listed = run("chroot", str(rootfs), "ldd", *(f"/{path}" for path in programs))
    return {path.lstrip("/"): _resolved(rootfs, path) for path in _paths(listed)}


def _paths(listed: str) -> Iterator[str]:
    """Yield the paths in ldd's lines: "name => /path (address)", or "/path (address)" for the program's loader."""
    for line in listed.splitlines():
        if line.rstrip().endswith("=> not found"):
            raise LabError(f"the root file system lacks a library: {line.strip()}")
        path = line.rpartition("=>")[2].strip().partition(" (")[0]
        if line.startswith("\t") and path.startswith("/"):
            yield path


def _resolved(rootfs: Path, path: str) -> Path:
    """Return the file that this path leads to inside the root file system, whose links may be absolute."""
    return rootfs / run("chroot", str(rootfs), "readlink", "--canonicalize", path).strip().lstrip("/")
