# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What kubeadm has done on this host, and which versions of kubeadm and kubelet are installed.

What follows from it for the cluster as a whole is left to inventory/kubernetes.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from dataclasses import dataclass

from .. import paths
from ..atomic_file import read_text
from ..errors import EvioError

KUBERNETES_DIR = "/etc/kubernetes"

ABSENT = "absent"
"""The host is in no cluster."""
INITIALISING = "initialising"
"""`kubeadm init` of an earlier run has not ended. It is run again, and goes on with what it finds."""
JOINING = "joining"
"""`kubeadm join` of an earlier run was interrupted before the host was in the cluster. kubeadm is reset first."""
WORKER = "worker"
CONTROL_PLANE = "control_plane"

_MANIFESTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""Static pods of every control-plane host."""
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_SERVER = re.compile(r"(?m)^\s*server:\s*[\"']?(\S+?)[\"']?\s*$")
_SECONDS = 20.0
"""Limit for a program that prints its version."""


class KubeadmError(EvioError):
    """A program of Kubernetes cannot be run, or prints what nobody expects."""


@dataclass(frozen=True)
class KubeadmHost:
    """One host, as kubeadm has left it."""

    state: str
    """ABSENT, INITIALISING, JOINING, WORKER or CONTROL_PLANE."""
    is_noted: bool
    """Whether the note is there that the role ``kubernetes`` writes before it runs kubeadm, and removes afterwards."""
    server: str | None
    """URL of the API server in kubelet's kubeconfig; None if the host is in no cluster."""
    has_etcd: bool
    """Whether the static pod of a stacked etcd is there."""
    has_address: bool
    """Whether an interface of the host has its host overlay address, at which that etcd listens."""
    kubeadm: str | None
    """Version of kubeadm, such as 1.30.2; None if kubeadm is not installed."""
    kubelet: str | None
    """Version of kubelet; None if kubelet is not installed."""


def read_host(address: str, *, directory: str = KUBERNETES_DIR, begun: str = paths.KUBEADM_BEGUN) -> KubeadmHost:
    """Return what kubeadm has done on this host. Raises KubeadmError.

    ``address`` is the host overlay address, ``begun`` the file with the note of the role ``kubernetes``.
    """
    return KubeadmHost(
        state=_state(directory, begun),
        is_noted=os.path.exists(begun),
        server=_server(f"{directory}/kubelet.conf"),
        has_etcd=os.path.exists(f"{directory}/manifests/etcd.yaml"),
        has_address=_is_local(address),
        kubeadm=_version("kubeadm", "version", "--output=short"),
        kubelet=_version("kubelet", "--version"),
    )


def api_version(kubeadm: str) -> str:
    """Return the newest API version of configuration files that this kubeadm reads. Raises KubeadmError.

    kubeadm 1.15 came with v1beta2, 1.22 with v1beta3, 1.31 with v1beta4.
    """
    number = minor(kubeadm)
    if number < (1, 15):
        raise KubeadmError(f"kubeadm {kubeadm} is older than 1.15, the oldest whose configuration files can be written")
    if number < (1, 22):
        return "kubeadm.k8s.io/v1beta2"
    return "kubeadm.k8s.io/v1beta3" if number < (1, 31) else "kubeadm.k8s.io/v1beta4"


def minor(version: str) -> tuple[int, int]:
    """Return major and minor number of a version such as 1.30.2. Raises KubeadmError."""
    match = _VERSION.match(version)
    if match is None:
        raise KubeadmError(f"{version!r} is no version of Kubernetes")
    return int(match[1]), int(match[2])


def _state(directory: str, begun: str) -> str:
    verb = (_read(begun) or "").strip()
    if verb == "init":
        return INITIALISING
    # The key of the API server tells a control-plane host from a worker to which somebody has copied admin.conf. The
    # manifests do not: operators move them away for a while to stop a static pod.
    is_control_plane = os.path.exists(f"{directory}/pki/apiserver.key")
    is_complete = os.path.exists(f"{directory}/kubelet.conf")
    if verb == "join" and is_control_plane:
        is_complete &= all(os.path.exists(f"{directory}/manifests/{name}.yaml") for name in _MANIFESTS)
    if not is_complete:
        return JOINING if verb == "join" else ABSENT
    return CONTROL_PLANE if is_control_plane else WORKER


def _server(kubeconfig: str) -> str | None:
    match = _SERVER.search(_read(kubeconfig) or "")
    return match[1] if match else None


def _read(path: str) -> str | None:
    try:
        return read_text(path)
    except OSError as error:
        raise KubeadmError(f"cannot read {path}: {error.strerror}") from error


def _is_local(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _version(program: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KubeadmError(f"{program} {' '.join(arguments)}: {error}") from error
    match = _VERSION.search(done.stdout)
    if done.returncode != 0 or match is None:
        said = (done.stderr or done.stdout).strip()[:500]
        raise KubeadmError(f"{program} {' '.join(arguments)} does not print its version: {said}")
    return match[0].removeprefix("v")
