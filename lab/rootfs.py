"""The nodes' root file systems: one of each Debian release, built by mmdebstrap and kept until its recipe changes.

The packages that roles install are part of them, read from the roles' own lists, because nodes reach no package mirror.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from commands import LabError, attempt, run_reported
from state import REPOSITORY, Lab
from topology import RELEASES

_PACKAGE_LISTS = REPOSITORY / "collections/ansible_collections/evio/cni/roles/prerequisites/defaults/main.yml"
_ROLES_PACKAGES = (
    "evio_packages_node",
    "evio_packages_control_plane",
    "evio_packages_etcd",
    "evio_packages_pod_node",
)
# fmt: off
_HOST_PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt", "ca-certificates", "kmod",
    "iproute2", "iputils-ping", "procps", "tcpdump", "ethtool", "netcat-openbsd", "iperf3", "busybox-static",
]
# fmt: on
"""A bare Debian host that Ansible can reach, and tools for a person who looks for a fault there."""
_KUBERNETES_NEEDS = ["conntrack", "ebtables", "iptables", "ipset", "socat"]
"""Packages that Kubernetes' own packages depend on. All labs have them, so that a release has one root file system."""

_HOOK = REPOSITORY / "lab/node_rootfs.sh"
_INIT = REPOSITORY / "lab/node_init.sh"
INIT_PATH = "/usr/local/sbin/lab-init"
"""Path of node_init.sh in a node, where the hook installs it."""

_TIMEOUT = 900.0
"""Seconds for mmdebstrap; 60 are usual, the rest is for a slow mirror."""


def prepare(lab: Lab, release: str) -> Path:
    """Return the directory of a release's root file system; build it, about a minute, if the recipe is new."""
    packages = sorted({*_HOST_PACKAGES, *_KUBERNETES_NEEDS, *_roles_packages()})
    rootfs = lab.cache / _name(release, packages)
    if not rootfs.exists():
        with _lock(lab):
            # Another process may have built it meanwhile: tests have labs of their own, and one cache.
            if not rootfs.exists():
                _remove_outdated(lab, {_name(known, packages) for known in RELEASES})
                _build(release, rootfs, packages, lab.state / "rootfs.log")
    return rootfs


@contextmanager
def _lock(lab: Lab) -> Iterator[None]:
    """Be the only process that builds and removes root file systems in this cache."""
    lab.cache.mkdir(parents=True, exist_ok=True)
    with (lab.cache / "rootfs.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _name(release: str, packages: list[str]) -> str:
    recipe = "\n".join([release, *packages, _HOOK.read_text(), _INIT.read_text()])
    return f"rootfs-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def _roles_packages() -> list[str]:
    lists = yaml.safe_load(_PACKAGE_LISTS.read_text())
    return [package for name in _ROLES_PACKAGES for package in lists[name]]


def _remove_outdated(lab: Lab, current: set[str]) -> None:
    """Remove the root file systems of earlier recipes, and what an interrupted build has left."""
    for rootfs in lab.cache.glob("rootfs-*"):
        if rootfs.name not in current:
            shutil.rmtree(rootfs)


def _build(release: str, rootfs: Path, packages: list[str], log: Path) -> None:
    """Build under another name, so that a directory of the final name is always complete."""
    print(f"== root file system: Debian {release} with {len(packages)} packages and their dependencies", flush=True)
    unfinished = rootfs.with_name(rootfs.name + ".unfinished")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    argv = [
        # Its mounts and processes are in namespaces of their own, so that mmdebstrap leaves none when it is killed.
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        "mmdebstrap",
        "--verbose",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        f"--customize-hook={_HOOK}",
        "",
        str(unfinished),
        "-",
    ]
    if shutil.which("mmdebstrap") is None:
        raise LabError("mmdebstrap is not installed: run setup/machine")
    run_reported("building the root file system", argv, log, stdin=_mirrors(release, log), timeout=_TIMEOUT)
    unfinished.rename(rootfs)


def _mirrors(release: str, log: Path) -> str:
    """Return the Debian mirrors that this machine's apt uses, as lines of a sources.list for a release.

    A mirror of Debian has all releases: those of another release than this machine's are at the same addresses.
    """
    for refresh in (False, True):
        if refresh:
            run_reported("updating apt's package lists", ["apt-get", "update", "-q"], log, stdin="", timeout=300)
        targets = attempt(
            "apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI) $(COMPONENT)",
            "Created-By: Packages", "Origin: Debian",
        )  # fmt: skip
        known = sorted({tuple(line.split()) for line in targets.stdout.splitlines()})
        for named in (release, *RELEASES):
            lines = [
                f"deb {address} {release}{suite.removeprefix(named)} {component}\n"
                for suite, address, component in known
                if suite.partition("-")[0] == named
            ]
            if lines:
                return "".join(lines)
    raise LabError(f"apt knows no mirror of Debian {RELEASES[0]} here: add one to /etc/apt and run apt-get update")
