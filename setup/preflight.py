#!/usr/bin/python3
"""Check that this machine can carry the lab, before anything is installed or built: name all that is missing at once.

Only Python's standard library is used, because nothing else is installed yet. setup/machine installs the packages.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
}
"""Those without which the lab does not come up, found by dropping each; with their numbers (linux/capability.h)."""

INOTIFY_RESERVE = 8
"""Instances that are left for the machine itself and for a node that reboots."""

MIB = 1 << 20
PACKAGES_BYTES = 900 * MIB
"""The packages of packages.txt on a minimal Debian: 680 MiB installed, the rest downloaded archives."""
VENV_BYTES = 450 * MIB
"""The virtual environment, 350 MiB, and what pip downloads."""
ROOTFS_BYTES = 800 * MIB
"""The root file system of a Debian release's nodes, 540 MiB, and the archives that mmdebstrap unpacks."""


@dataclass(frozen=True)
class PerNode:
    """What one node of the lab takes."""

    inotify: int
    """inotify instances that its root holds: systemd 5, systemd-logind 1, containerd 1, wireguard-go 1."""
    memory: int
    """Bytes: with two pods it uses 170 MiB."""
    disk: int
    """Bytes that it writes: etcd's logs, container images, logs."""


PLAIN = PerNode(inotify=8, memory=250 * MIB, disk=150 * MIB)
WITH_KUBERNETES = PerNode(inotify=15, memory=700 * MIB, disk=500 * MIB)
"""kubelet holds 4 inotify instances, kube-proxy and a systemd with more units the rest. The control plane uses 600 MiB
of memory and as much disk for its images: these are the means of three nodes."""


@dataclass(frozen=True)
class Facts:
    """What the checks look at. None: it could not be tried, because this process is not root's."""

    is_root: bool
    capabilities: frozenset[int]
    """Numbers of the capabilities that root's programs have here."""
    distribution: str
    """ID and VERSION_ID of os-release, for example "debian 12"."""
    has_apt: bool
    has_mirror: bool
    """Whether apt's sources name the release that the nodes run."""
    tun_error: str | None
    """Why /dev/net/tun cannot be opened; empty if it can."""
    overlay_error: str | None
    """Why an overlay cannot be mounted on the repository's file system; empty if it can."""
    has_writable_cgroups: bool
    inotify_free: int | None
    """inotify instances that this user can still open; counted up to the number the lab needs."""
    memory_available: int
    """Bytes."""
    disk_free: dict[str, int]
    """Free bytes of each file system, by a path in it."""
    disk_needed: dict[str, int]
    """Bytes that set-up and lab will write to each of those file systems."""


def missing(facts: Facts, nodes: int, per_node: PerNode = PLAIN) -> list[str]:
    """Return what a lab of this many nodes lacks, each with its remedy; an empty list if nothing is missing."""
    return [
        *_missing_distribution(facts),
        *_missing_rights(facts),
        *_missing_kernel_features(facts),
        *_missing_resources(facts, nodes, per_node),
    ]


def read_facts(nodes: int, per_node: PerNode = PLAIN, releases: int = 1) -> Facts:
    """Read the facts of this machine.

    ``nodes`` is how many the lab is to have beyond those that are up, ``releases`` how many Debian releases they run.
    """
    is_root = os.geteuid() == 0
    disk_needed = _disk_needed(nodes, per_node, releases)
    return Facts(
        is_root=is_root,
        capabilities=_capabilities("CapEff" if is_root else "CapBnd"),
        distribution=_distribution(),
        has_apt=shutil.which("apt-get") is not None,
        has_mirror=_has_mirror(),
        tun_error=_tun_error() if is_root else None,
        overlay_error=_overlay_error() if is_root else None,
        has_writable_cgroups=_has_writable_cgroups(Path("/proc/self/mounts").read_text()),
        inotify_free=_inotify_free(inotify_needed(nodes, per_node)) if is_root else None,
        memory_available=_memory_available(Path("/proc/meminfo").read_text()),
        disk_free={path: shutil.disk_usage(path).free for path in disk_needed},
        disk_needed=disk_needed,
    )


def inotify_needed(nodes: int, per_node: PerNode) -> int:
    """Return how many inotify instances root must be able to open for this many nodes."""
    return nodes * per_node.inotify + INOTIFY_RESERVE if nodes else 0


def main(argv: list[str]) -> int:
    """Print what is missing and return 1, or print that all is there and return 0."""
    parser = argparse.ArgumentParser(description="Check what the lab needs of this machine.")
    parser.add_argument("nodes", nargs="?", type=int, default=3, help="nodes of the lab (default: %(default)s)")
    parser.add_argument("--kubernetes", action="store_true", help="for lab/lab up --kubernetes")
    parser.add_argument(
        "--releases", type=int, default=1, metavar="R", help="Debian releases of the nodes (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    nodes, per_node = arguments.nodes, WITH_KUBERNETES if arguments.kubernetes else PLAIN
    # The nodes of this checkout's lab, if it is up, have what they need.
    to_come = 0 if (REPOSITORY / "lab/.state/lab.json").exists() else nodes
    lacking = missing(read_facts(to_come, per_node, arguments.releases), to_come, per_node)
    if not lacking:
        print(f"== this machine can carry the lab: {nodes} nodes")
        return 0
    print(f"preflight: this machine lacks {len(lacking)} of what a lab of {nodes} nodes needs:", file=sys.stderr)
    for line in lacking:
        print(f"  - {line}", file=sys.stderr)
    return 1


def _missing_distribution(facts: Facts) -> Iterable[str]:
    if facts.distribution != "debian 12" or not facts.has_apt:
        apt = "" if facts.has_apt else ", and apt-get is not found"
        yield f"Debian 12: this is {facts.distribution}{apt}; use a machine or a virtual machine with Debian 12"
    elif not facts.has_mirror:
        yield "a Debian mirror: apt's sources do not name bookworm; add a line for it to /etc/apt/sources.list"


def _missing_rights(facts: Facts) -> Iterable[str]:
    if not facts.is_root:
        yield "root: run it as root (/dev/net/tun, overlay mounts and inotify could not be tried without)"
    names = [name for name, number in CAPABILITIES.items() if number not in facts.capabilities]
    if names:
        yield (
            f"capabilities: {', '.join(names)}; in a container, restart it with --privileged, or use a virtual machine"
        )


def _missing_kernel_features(facts: Facts) -> Iterable[str]:
    if facts.tun_error:
        yield (
            f"/dev/net/tun: {facts.tun_error}; run `modprobe tun`; in a container, restart it with "
            "--device /dev/net/tun"
        )
    if facts.overlay_error:
        yield (
            f"overlay mounts in {REPOSITORY}: {facts.overlay_error}; run `modprobe overlay`, or put the repository on "
            "ext4 or xfs: an overlay cannot be on a container's own file system"
        )
    if not facts.has_writable_cgroups:
        yield (
            "control groups: none is mounted for writing at /sys/fs/cgroup; mount them; in a container, restart it "
            "with --privileged"
        )


def _missing_resources(facts: Facts, nodes: int, per_node: PerNode) -> Iterable[str]:
    needed = inotify_needed(nodes, per_node)
    if facts.inotify_free is not None and facts.inotify_free < needed:
        yield (
            f"inotify instances: {facts.inotify_free} are free for root, {needed} are needed; run "
            "`sysctl -w fs.inotify.max_user_instances=1024`"
        )
    memory = nodes * per_node.memory
    if facts.memory_available < memory:
        yield f"memory: {facts.memory_available // MIB} MiB are available, {memory // MIB} MiB are needed"
    for path, needed in facts.disk_needed.items():
        if facts.disk_free[path] < needed:
            free = facts.disk_free[path] // MIB
            yield f"disk space in {path}: {free} MiB are free, {needed // MIB} MiB are needed; free or add some"


def _capabilities(line: str) -> frozenset[int]:
    """Return the numbers of the set bits in one line of /proc/self/status (proc(5))."""
    found = re.search(rf"^{line}:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    bits = int(found[1], 16) if found else 0
    return frozenset(number for number in range(bits.bit_length()) if bits >> number & 1)


def _distribution() -> str:
    try:
        content = Path("/etc/os-release").read_text()
    except FileNotFoundError:
        return "an unknown distribution"
    fields = dict(line.split("=", 1) for line in content.splitlines() if "=" in line)
    return f"{fields.get('ID', '?')} {fields.get('VERSION_ID', '?')}".replace('"', "")


def _has_mirror() -> bool:
    try:
        listed = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(RELEASE)", "Created-By: Packages"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "bookworm" in listed.stdout.split()


def _tun_error() -> str:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def _overlay_error() -> str:
    """Mount an overlay in a mount namespace of its own, on the file system that the nodes' files will be on."""
    state = REPOSITORY / "lab/.state"
    state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state, prefix="preflight-") as directory:
        for name in ("lower", "upper", "work", "root"):
            Path(directory, name).mkdir()
        options = "lowerdir=lower,upperdir=upper,workdir=work"
        done = subprocess.run(
            ["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "overlay", "root"],
            cwd=directory, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    return done.stderr.strip().splitlines()[0] if done.returncode != 0 else ""


def _has_writable_cgroups(mounts: str) -> bool:
    """Judge by the lines of /proc/self/mounts: device, mount point, type, options."""
    fields = [line.split() for line in mounts.splitlines()]
    options = [options.split(",") for _, _, kind, options, *_ in fields if kind in ("cgroup", "cgroup2")]
    return bool(options) and all("rw" in each for each in options)


def _inotify_free(needed: int) -> int:
    """Open instances until that many are open or the kernel refuses; return how many that were."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptors: list[int] = []
    try:
        while len(descriptors) < needed:
            descriptor = libc.inotify_init1(os.O_CLOEXEC)
            if descriptor < 0:
                if ctypes.get_errno() != errno.EMFILE:
                    raise OSError(ctypes.get_errno(), "inotify_init1")
                break
            descriptors.append(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return len(descriptors)


def _memory_available(meminfo: str) -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _disk_needed(nodes: int, per_node: PerNode, releases: int) -> dict[str, int]:
    """Return the bytes still to be written, by a path in each file system, without what exists already."""
    needed: dict[int, tuple[str, int]] = {}
    for path, size in (
        (Path("/usr"), 0 if _has_packages() else PACKAGES_BYTES),
        (REPOSITORY, 0 if _has_venv() else VENV_BYTES),
        (_existing(REPOSITORY / "lab/.state/cache"), max(releases - _rootfs_count(), 0) * ROOTFS_BYTES),
        (_existing(REPOSITORY / "lab/.state"), nodes * per_node.disk),
    ):
        device = path.stat().st_dev
        first, before = needed.get(device, (str(path), 0))
        needed[device] = (first, before + size)
    return dict(needed.values())


def _has_packages() -> bool:
    try:
        listed = subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\\n"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    except OSError:
        return False
    lines = (REPOSITORY / "setup/packages.txt").read_text().splitlines()
    wanted = {f"installed {line}" for line in lines if line and not line.startswith("#")}
    return wanted <= set(listed.stdout.splitlines())


def _has_venv() -> bool:
    """Judge by the copy of requirements.txt that setup/machine leaves in a complete virtual environment."""
    stamp = REPOSITORY / ".venv/requirements.txt"
    return stamp.exists() and stamp.read_bytes() == (REPOSITORY / "setup/requirements.txt").read_bytes()


def _rootfs_count() -> int:
    return sum(path.suffix == "" for path in (REPOSITORY / "lab/.state/cache").glob("rootfs-*"))


def _existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    return path if path.exists() else _existing(path.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
