# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What kubeadm has to do on the hosts of a run: decided from what each host says, before anything is changed.

Pure. How a host is read is kubernetes/kubeadm's subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import EvioError
from ..kubernetes.kubeadm import ABSENT, CONTROL_PLANE, INITIALISING, JOINING, WORKER, KubeadmHost, api_version, minor

_JOINED = (WORKER, CONTROL_PLANE)


class KubernetesPlanError(EvioError):
    """kubeadm cannot do on these hosts what the inventory asks for; nothing was changed."""


@dataclass(frozen=True)
class KubernetesPlan:
    """What kubeadm has to do."""

    primary: str
    """The control-plane host that creates the cluster, or admits the other hosts to it."""
    initialises: bool
    """Whether `kubeadm init` has to run on ``primary``."""
    joining: tuple[str, ...]
    """The hosts of the run on which `kubeadm join` has to run."""
    reset_first: tuple[str, ...]
    """Those of them on which an interrupted join has to be reset first."""
    etcd_is_expected: bool
    """Whether the stacked etcd of ``primary`` should answer already."""
    api_version: str
    """API version of kubeadm's configuration files."""
    version: str
    """Version of kubeadm on ``primary``."""


def plan_kubernetes(
    hosts: Mapping[str, KubeadmHost],
    *,
    run: Sequence[str],
    control_plane: Sequence[str],
    members: Sequence[str],
    endpoint: str,
) -> KubernetesPlan:
    """Return what kubeadm has to do on the hosts of this run. Raises an EvioError.

    ``hosts`` has the hosts that have answered: those of the run, and control-plane hosts outside of it.
    ``control_plane`` and ``members`` are the inventory's control-plane hosts, and all hosts that shall be in the
    cluster. ``endpoint`` is the API server's ``host:port``.
    """
    for name in run:
        _check_programs(name, hosts[name])
    initialised = [name for name in control_plane if name in hosts and hosts[name].state == CONTROL_PLANE]
    begun = [name for name in control_plane if name in hosts and hosts[name].state == INITIALISING]
    primary = (initialised or begun or control_plane)[0]
    if primary not in hosts:
        raise KubernetesPlanError(
            f"{primary}: this control-plane host cannot be reached, so no host can join the cluster; bring it up first"
        )
    _check_programs(primary, hosts[primary])
    initialises = not initialised
    if initialises:
        _check_new_cluster(hosts, run, control_plane, primary)
    joining = tuple(name for name in run if name in members and name != primary and hosts[name].state not in _JOINED)
    _check_joined(hosts, run, control_plane, endpoint)
    version = str(hosts[primary].kubeadm)
    for name in joining:
        _check_version(name, hosts[name], primary, version)
    return KubernetesPlan(
        primary=primary,
        initialises=initialises,
        joining=joining,
        reset_first=tuple(name for name in joining if hosts[name].state == JOINING),
        etcd_is_expected=not initialises and hosts[primary].has_etcd and hosts[primary].has_address,
        api_version=api_version(version),
        version=version,
    )


def _check_programs(name: str, host: KubeadmHost) -> None:
    missing = [program for program, version in (("kubeadm", host.kubeadm), ("kubelet", host.kubelet)) if not version]
    if missing:
        raise KubernetesPlanError(
            f"{name}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; with "
            "evio_kubernetes: kubeadm, install Kubernetes' packages kubeadm, kubelet and kubectl on the host first"
        )
    kubeadm, kubelet = str(host.kubeadm), str(host.kubelet)
    # kubelet may be one minor version older, and three since kubeadm 1.29 (kubernetes.io, "Version Skew Policy").
    oldest = minor(kubeadm)[1] - (3 if minor(kubeadm) >= (1, 29) else 1)
    if host.state in (ABSENT, JOINING, INITIALISING) and not (oldest <= minor(kubelet)[1] <= minor(kubeadm)[1]):
        raise KubernetesPlanError(
            f"{name}: kubelet {kubelet} does not fit kubeadm {kubeadm}; install kubelet 1.{minor(kubeadm)[1]}"
        )


def _check_version(name: str, host: KubeadmHost, primary: str, version: str) -> None:
    if minor(str(host.kubeadm)) != minor(version):
        raise KubernetesPlanError(
            f"{name}: kubeadm {host.kubeadm} cannot join a cluster of kubeadm {version}, which {primary} has; install "
            f"kubeadm and kubelet {'.'.join(map(str, minor(version)))} on {name}"
        )


def _check_new_cluster(
    hosts: Mapping[str, KubeadmHost], run: Sequence[str], control_plane: Sequence[str], primary: str
) -> None:
    """Refuse to create a cluster where there may be a cluster already."""
    unknown = [name for name in control_plane if name not in hosts]
    if unknown:
        raise KubernetesPlanError(
            f"{', '.join(unknown)} cannot be reached, so nobody knows whether this cluster exists already; bring up "
            "all hosts of evio_control_plane before the cluster is created"
        )
    joined = [name for name, host in hosts.items() if host.state == WORKER]
    if joined:
        raise KubernetesPlanError(
            f"{', '.join(joined)} is in a cluster at {hosts[joined[0]].server}, but no host of evio_control_plane has "
            f"kubeadm's control plane; restore {primary}, or run `kubeadm reset` on {', '.join(joined)}"
        )
    if primary not in run:
        raise KubernetesPlanError(
            f"{primary} has no control plane yet and is not in this run; run bootstrap.yml without --limit first"
        )


def _check_joined(
    hosts: Mapping[str, KubeadmHost], run: Sequence[str], control_plane: Sequence[str], endpoint: str
) -> None:
    for name in run:
        server = hosts[name].server
        if hosts[name].state not in _JOINED:
            continue
        if name in control_plane and hosts[name].state == WORKER:
            raise KubernetesPlanError(
                f"{name} is in evio_control_plane, but a worker of the cluster; remove it with remove_node.yml first, "
                "and it joins again as a control-plane host"
            )
        # kubelet of a control-plane host may ask the API server of its own host.
        if name not in control_plane and server != f"https://{endpoint}":
            raise KubernetesPlanError(
                f"{name} is in a cluster at {server}, not at https://{endpoint}; set evio_kubernetes_endpoint to that "
                f"cluster's, or run `kubeadm reset` on {name}"
            )
