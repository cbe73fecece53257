"""The root file system that every node starts from: Debian, made once by mmdebstrap and kept until its recipe changes.

Packages that roles install are read from the role that installs them: the lab has no package mirror.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from commands import LabError, attempt, run
from state import REPOSITORY, Lab

_SUITE = "bookworm"
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
"""A bare Debian host that Ansible can reach, and what a person wants there when something does not work."""

_HOOK = REPOSITORY / "lab/node_rootfs.sh"
_INIT = REPOSITORY / "lab/node_init.sh"
INIT_PATH = "/usr/local/sbin/lab-init"
"""Where the hook puts it."""


def prepare(lab: Lab) -> Path:
    """The directory of the root file system, made if this recipe's is not there yet (half a minute)."""
    packages = sorted({*_HOST_PACKAGES, *_roles_packages()})
    recipe = "\n".join([_SUITE, *packages, _HOOK.read_text(), _INIT.read_text()])
    made = lab.cache / f"rootfs-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if not made.exists():
        _remove_others(lab)
        _make(made, packages)
    return made


def _roles_packages() -> list[str]:
    lists = yaml.safe_load(_PACKAGE_LISTS.read_text())
    return [package for name in _ROLES_PACKAGES for package in lists[name]]


def _remove_others(lab: Lab) -> None:
    for old in lab.cache.glob("rootfs-*"):
        shutil.rmtree(old)


def _make(made: Path, packages: list[str]) -> None:
    print(f"== root file system: {len(packages)} Debian packages and what they need, once", flush=True)
    unfinished = made.with_name(made.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    _mmdebstrap(unfinished, packages)
    unfinished.rename(made)


def _mmdebstrap(directory: Path, packages: list[str]) -> None:
    """Run it with its own progress on stderr; 15 minutes are for a slow mirror.

    Its mounts and processes are in namespaces of their own: killed anywhere, it leaves neither in the directory.
    """
    argv = [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        f"--customize-hook={_HOOK}",
        "",
        str(directory),
        "-",
    ]
    if shutil.which("mmdebstrap") is None:
        raise LabError("mmdebstrap is not installed: run setup/machine")
    try:
        done = subprocess.run(argv, input=_mirrors(), text=True, stdout=sys.stderr, timeout=900, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError("mmdebstrap did not end within 15 minutes: is the Debian mirror reachable?") from error
    if done.returncode != 0:
        raise LabError(f"mmdebstrap failed (exit {done.returncode}): see above")


def _mirrors() -> str:
    """The machine's own Debian mirrors, as lines of a sources.list."""
    for refresh in (False, True):
        if refresh:
            run("apt-get", "update", "-q", timeout=300)
        targets = attempt(
            "apt-get", "indextargets", "--format", "$(RELEASE) deb $(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages", "Origin: Debian",
        )  # fmt: skip
        lines = sorted({line.split(" ", 1)[1] for line in targets.stdout.splitlines() if line.startswith(_SUITE)})
        if lines:
            return "\n".join(lines) + "\n"
    raise LabError(f"apt knows no Debian {_SUITE} mirror on this machine: add one to /etc/apt and run apt-get update")
