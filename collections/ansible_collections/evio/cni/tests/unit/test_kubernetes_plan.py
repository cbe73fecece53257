# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What kubeadm has to do on which host, and what is refused before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.inventory.kubernetes import KubernetesPlan, plan_kubernetes
from ansible_collections.evio.cni.plugins.module_utils.kubernetes.kubeadm import (
    ABSENT,
    CONTROL_PLANE,
    INITIALISING,
    JOINING,
    WORKER,
    KubeadmError,
    KubeadmHost,
    api_version,
)

ENDPOINT = "10.10.0.1:6443"
SERVER = f"https://{ENDPOINT}"
MEMBERS = ("node1", "node2", "node3")


def host(state: str = ABSENT, **other: Any) -> KubeadmHost:
    joined = state in (WORKER, CONTROL_PLANE)
    defaults = {
        "is_noted": state in (INITIALISING, JOINING),
        "server": SERVER if joined else None,
        "has_etcd": state == CONTROL_PLANE,
        "has_address": True,
        "kubeadm": "1.30.2",
        "kubelet": "1.30.2",
    }
    return KubeadmHost(state=state, **{**defaults, **other})


def plan(hosts: dict[str, KubeadmHost], **arguments: Any) -> KubernetesPlan:
    defaults: dict[str, Any] = {
        "run": tuple(hosts),
        "control_plane": ("node1",),
        "members": MEMBERS,
        "endpoint": ENDPOINT,
    }
    return plan_kubernetes(hosts, **{**defaults, **arguments})


def test_bare_hosts_get_a_cluster_on_the_first_control_plane_host() -> None:
    made = plan({name: host() for name in MEMBERS})
    assert (made.primary, made.initialises, made.joining) == ("node1", True, ("node2", "node3"))
    assert (made.version, made.api_version) == ("1.30.2", "kubeadm.k8s.io/v1beta3")
    assert not made.etcd_is_expected


def test_complete_cluster_is_left_alone() -> None:
    made = plan({"node1": host(CONTROL_PLANE), "node2": host(WORKER), "node3": host(WORKER)})
    assert (made.initialises, made.joining, made.reset_first) == (False, (), ())
    assert made.etcd_is_expected


def test_etcd_is_not_asked_while_its_address_is_gone() -> None:
    assert not plan({"node1": host(CONTROL_PLANE, has_address=False)}).etcd_is_expected


def test_new_node_joins_with_a_control_plane_outside_of_the_run() -> None:
    made = plan({"node1": host(CONTROL_PLANE), "node3": host()}, run=("node3",))
    assert (made.primary, made.initialises, made.joining) == ("node1", False, ("node3",))


def test_node_that_runs_no_pods_does_not_join() -> None:
    made = plan({"node1": host(), "node2": host()}, members=("node1",))
    assert made.joining == ()


def test_second_control_plane_host_joins_the_first_although_it_is_named_first() -> None:
    made = plan({"node1": host(), "node2": host(CONTROL_PLANE)}, control_plane=("node1", "node2"))
    assert (made.primary, made.initialises, made.joining) == ("node2", False, ("node1",))


def test_interrupted_init_is_completed_on_the_same_host() -> None:
    made = plan({"node1": host(), "node2": host(INITIALISING)}, control_plane=("node1", "node2"))
    assert (made.primary, made.initialises, made.joining) == ("node2", True, ("node1",))


def test_interrupted_join_is_reset_first() -> None:
    made = plan({"node1": host(CONTROL_PLANE), "node2": host(JOINING), "node3": host()})
    assert (made.joining, made.reset_first) == (("node2", "node3"), ("node2",))


@pytest.mark.parametrize(
    ("hosts", "arguments", "words"),
    [
        ({"node1": host(kubeadm=None)}, {}, "node1: kubeadm is not installed"),
        ({"node1": host(kubeadm=None, kubelet=None)}, {}, "node1: kubeadm and kubelet are not installed"),
        ({"node1": host(kubelet="1.31.0")}, {}, "kubelet 1.31.0 does not fit kubeadm 1.30.2"),
        ({"node1": host(kubelet="1.26.0")}, {}, "kubelet 1.26.0 does not fit kubeadm 1.30.2"),
        ({"node1": host(kubeadm="1.20.2", kubelet="1.18.0")}, {}, "install kubelet 1.20"),
        (
            {"node1": host(CONTROL_PLANE), "node2": host(kubeadm="1.29.1", kubelet="1.29.1")},
            {},
            "node2: kubeadm 1.29.1 cannot join a cluster of kubeadm 1.30.2, which node1 has",
        ),
        (
            {"node1": host(CONTROL_PLANE), "node2": host(WORKER, server="https://192.0.2.1:6443")},
            {},
            "node2 is in a cluster at https://192.0.2.1:6443, not at https://10.10.0.1:6443",
        ),
        # The control plane's disk was lost: a new cluster would not know the nodes of the old one.
        ({"node1": host(), "node2": host(WORKER)}, {}, "no host of evio_control_plane has kubeadm's control plane"),
        (
            {"node1": host()},
            {"control_plane": ("node1", "node9")},
            "node9 cannot be reached, so nobody knows whether this cluster exists already",
        ),
        ({"node1": host(), "node2": host()}, {"run": ("node2",)}, "run bootstrap.yml without --limit first"),
        ({"node2": host()}, {}, "node1: this control-plane host cannot be reached"),
        (
            {"node1": host(CONTROL_PLANE), "node2": host(WORKER)},
            {"control_plane": ("node1", "node2")},
            "node2 is in evio_control_plane, but a worker",
        ),
    ],
)
def test_what_cannot_work_is_refused(hosts: dict[str, KubeadmHost], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words.replace(".", r"\.")):
        plan(hosts, **arguments)


def test_nodes_of_the_cluster_may_be_upgraded_one_after_the_other() -> None:
    upgraded = host(WORKER, kubeadm="1.31.0", kubelet="1.31.0")
    assert plan({"node1": host(CONTROL_PLANE), "node2": upgraded}).joining == ()


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.15.0", "v1beta2"),
        ("1.21.14", "v1beta2"),
        ("1.22.0", "v1beta3"),
        ("1.30.2", "v1beta3"),
        ("1.31.0", "v1beta4"),
    ],
)
def test_api_version_is_the_newest_that_kubeadm_reads(version: str, expected: str) -> None:
    assert api_version(version) == f"kubeadm.k8s.io/{expected}"


def test_kubeadm_that_is_too_old_is_refused() -> None:
    with pytest.raises(KubeadmError, match=r"kubeadm 1\.14\.3 is older than 1\.15"):
        api_version("1.14.3")
