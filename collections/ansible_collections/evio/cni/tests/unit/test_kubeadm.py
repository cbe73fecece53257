# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What kubeadm has done on a host is read from the files that it leaves there; the programs are doubles."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.kubernetes.kubeadm import (
    ABSENT,
    CONTROL_PLANE,
    INITIALISING,
    JOINING,
    WORKER,
    KubeadmError,
    KubeadmHost,
    read_host,
)

KUBECONFIG = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: LS0t
    server: https://10.10.0.1:6443
  name: kubernetes
"""
MANIFESTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


class Host:
    """The files of one host, and its programs."""

    def __init__(self, directory: Path) -> None:
        self.kubernetes = directory / "kubernetes"
        self.begun = directory / "kubeadm-begun"
        self.bin = directory / "bin"
        self.bin.mkdir()

    def write(self, path: str, text: str = "") -> None:
        file = self.kubernetes / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def install(self, program: str, script: str) -> None:
        (self.bin / program).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / program).chmod(0o755)

    def control_plane(self, manifests: tuple[str, ...] = MANIFESTS) -> None:
        self.write("pki/apiserver.key")
        for name in manifests:
            self.write(f"manifests/{name}.yaml")

    def read(self, address: str = "127.0.0.1") -> KubeadmHost:
        return read_host(address, directory=str(self.kubernetes), begun=str(self.begun))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{found.bin}:/usr/bin:/bin")
    found.install("kubeadm", "echo v1.30.2")
    found.install("kubelet", "echo Kubernetes v1.30.1")
    return found


def test_bare_host_is_in_no_cluster(node: Host) -> None:
    assert node.read() == KubeadmHost(ABSENT, False, None, False, True, "1.30.2", "1.30.1")


def test_worker_is_told_by_its_kubeconfig(node: Host) -> None:
    node.write("kubelet.conf", KUBECONFIG)
    found = node.read()
    assert (found.state, found.server) == (WORKER, "https://10.10.0.1:6443")


def test_worker_with_a_copied_admin_kubeconfig_stays_a_worker(node: Host) -> None:
    node.write("kubelet.conf", KUBECONFIG)
    node.write("admin.conf", KUBECONFIG)
    assert node.read().state == WORKER


def test_control_plane_host_is_told_by_its_key_also_while_a_static_pod_is_stopped(node: Host) -> None:
    node.write("kubelet.conf", KUBECONFIG)
    node.control_plane(("kube-scheduler", "etcd"))
    found = node.read()
    assert (found.state, found.has_etcd) == (CONTROL_PLANE, True)


def test_interrupted_init_is_not_taken_for_a_cluster(node: Host) -> None:
    node.begun.write_text("init\n")
    node.write("kubelet.conf", KUBECONFIG)
    node.control_plane()
    assert node.read().state == INITIALISING


@pytest.mark.parametrize("has_kubeconfig", [False, True])
def test_interrupted_join_counts_only_if_the_host_has_not_joined(node: Host, has_kubeconfig: bool) -> None:
    node.begun.write_text("join\n")
    node.write("bootstrap-kubelet.conf", KUBECONFIG)
    if has_kubeconfig:
        node.write("kubelet.conf", KUBECONFIG)
    found = node.read()
    assert (found.state, found.is_noted) == (WORKER if has_kubeconfig else JOINING, True)


@pytest.mark.parametrize(("manifests", "state"), [(MANIFESTS[:1], JOINING), (MANIFESTS, CONTROL_PLANE)])
def test_control_plane_host_has_joined_with_all_its_static_pods(
    node: Host, manifests: tuple[str, ...], state: str
) -> None:
    node.begun.write_text("join\n")
    node.write("kubelet.conf", KUBECONFIG)
    node.control_plane(manifests)
    assert node.read().state == state


def test_address_of_no_interface_is_told(node: Host) -> None:
    assert not node.read("192.0.2.77").has_address
    assert not node.read("2001:db8::77").has_address


def test_missing_programs_are_no_error(node: Host) -> None:
    (node.bin / "kubeadm").unlink()
    (node.bin / "kubelet").unlink()
    found = node.read()
    assert (found.kubeadm, found.kubelet) == (None, None)


def test_program_that_does_not_print_its_version_is_an_error_with_its_words(node: Host) -> None:
    node.install("kubelet", "echo cannot execute >&2; exit 126")
    with pytest.raises(KubeadmError, match="kubelet --version does not print its version: cannot execute"):
        node.read()
