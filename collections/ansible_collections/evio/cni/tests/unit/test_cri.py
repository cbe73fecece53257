# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The runtime's answer is decoded correctly: a server with CRI's own generated code, over a real socket.

The server is a double of a container runtime; the lab's scenarios ask the real containerd.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni import cri
from cri_api.v1 import api_pb2

from .runtime_double import RuntimeDouble, serve

CONFLIST = {"name": "evio", "plugins": [{"type": "evio"}]}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[tuple[RuntimeDouble, str]]:
    with serve(tmp_path / "cri.sock") as served:
        yield served


def test_status_is_asked_for_in_verbose_mode(runtime: tuple[RuntimeDouble, str]) -> None:
    double, socket = runtime
    double.loads(CONFLIST)
    status = cri.network_status(socket)
    assert [request.verbose for request in double.asked] == [True]
    assert status == cri.NetworkStatus(ready=True, message="", sources=(CONFLIST,))


def test_await_returns_at_once_for_a_loaded_network(runtime: tuple[RuntimeDouble, str]) -> None:
    double, socket = runtime
    double.loads({"cniVersion": "0.3.1", "name": "cni-loopback"}, CONFLIST)
    cri.await_network(CONFLIST, socket, timeout=0)


def test_older_configuration_of_the_same_network_does_not_count_as_loaded(runtime: tuple[RuntimeDouble, str]) -> None:
    double, socket = runtime
    double.loads({**CONFLIST, "plugins": []})
    with pytest.raises(cri.CriError, match="has not loaded the network 'evio'"):
        cri.await_network(CONFLIST, socket, timeout=0.2)


def test_error_has_the_runtimes_reason(runtime: tuple[RuntimeDouble, str]) -> None:
    double, socket = runtime
    double.loads(ready=False)
    with pytest.raises(cri.CriError, match="cni plugin not initialized"):
        cri.await_network(CONFLIST, socket, timeout=0.2)


def test_error_without_a_runtime_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(cri.CriError, match=str(tmp_path)):
        cri.network_status(str(tmp_path / "none.sock"), timeout=1)


@pytest.mark.parametrize(
    ("config", "conf_dir", "bin_dirs"),
    [
        ('{"cni": {"binDir": "/opt/cni/bin", "confDir": "/etc/cni/net.d"}}', "/etc/cni/net.d", ("/opt/cni/bin",)),
        # containerd 2.1
        ('{"cni": {"binDirs": ["/a", "/b"], "confDir": "/c"}}', "/c", ("/a", "/b")),
        ('{"cni": {}}', None, ()),
        ("no JSON", None, ()),
        ("[]", None, ()),
    ],
)
def test_status_has_the_runtimes_directories(
    runtime: tuple[RuntimeDouble, str], config: str, conf_dir: str | None, bin_dirs: tuple[str, ...]
) -> None:
    double, socket = runtime
    double.answer = api_pb2.StatusResponse(info={"config": config})
    status = cri.network_status(socket)
    assert (status.conf_dir, status.bin_dirs) == (conf_dir, bin_dirs)


K3S = cri.NetworkStatus(True, "", (), "/var/lib/rancher/k3s/agent/etc/cni/net.d", ("/var/lib/rancher/k3s/data/cni",))


def test_runtime_with_other_directories_is_refused_with_the_variable_to_set() -> None:
    with pytest.raises(cri.CriError, match=f"set evio_cni_conf_dir: {K3S.conf_dir}"):
        cri.refuse_other_directories(K3S, "/run/k3s.sock", "/etc/cni/net.d", "/var/lib/rancher/k3s/data/cni")
    with pytest.raises(cri.CriError, match="set evio_cni_bin_dir: /var/lib/rancher/k3s/data/cni"):
        cri.refuse_other_directories(K3S, "/run/k3s.sock", str(K3S.conf_dir), "/opt/cni/bin")


def test_same_directory_by_another_path_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    status = cri.NetworkStatus(True, "", (), str(tmp_path / "link"), (str(tmp_path),))
    cri.refuse_other_directories(status, "/run/x.sock", str(tmp_path), str(tmp_path / "link"))


def test_runtime_that_does_not_tell_its_directories_is_accepted() -> None:
    cri.refuse_other_directories(cri.NetworkStatus(True, "", ()), "/run/crio.sock", "/etc/cni/net.d", "/opt/cni/bin")


@pytest.fixture
def runtime_without_cri(tmp_path: Path) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    socket = str(tmp_path / "cri.sock")
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    yield socket
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ((128, 128), "root has 128 of 128 inotify instances.*raise fs.inotify.max_user_instances"),
        ((121, 128), "root has 121 of 128 inotify instances.*raise fs.inotify.max_user_instances"),
        ((20, 8192), "journalctl -u containerd.*disabled_plugins"),
    ],
)
def test_runtime_without_cri_is_told_from_a_dead_runtime(
    runtime_without_cri: str, monkeypatch: pytest.MonkeyPatch, instances: tuple[int, int], words: str
) -> None:
    monkeypatch.setattr(cri, "inotify_instances", lambda: instances)
    with pytest.raises(cri.NoCriServiceError, match=words):
        cri.await_network(CONFLIST, runtime_without_cri, timeout=0)


def test_inotify_instances_of_root_are_counted(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/inotify").mkdir(parents=True)
    (tmp_path / "sys/fs/inotify/max_user_instances").write_text("128\n")
    for process, targets in (("1", ["anon_inode:inotify", "/dev/null", "anon_inode:inotify"]), ("self", ["x"])):
        (tmp_path / process / "fd").mkdir(parents=True)
        for number, target in enumerate(targets):
            (tmp_path / process / "fd" / str(number)).symlink_to(target)
    owned_by_root = 2 if (tmp_path / "1").stat().st_uid == 0 else 0
    assert cri.inotify_instances(str(tmp_path)) == (owned_by_root, 128)


def test_runtime_is_asked_directly_whatever_proxy_the_environment_names(
    runtime: tuple[RuntimeDouble, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    double, socket = runtime
    double.loads(CONFLIST)
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert cri.network_status(socket).ready


def test_pods_are_told_by_namespace_and_name(runtime: tuple[RuntimeDouble, str]) -> None:
    double, socket = runtime
    double.pods = [
        api_pb2.PodSandbox(id="a" * 64, metadata=api_pb2.PodSandboxMetadata(name="web-0", namespace="shop", uid="1")),
        api_pb2.PodSandbox(id="b" * 64, metadata=api_pb2.PodSandboxMetadata(name="x" * 999, namespace="shop")),
    ]
    names = cri.pod_names(socket)
    assert names["a" * 64] == cri.PodName("shop", "web-0")
    assert len(names["b" * 64].name) == 253


def test_runtime_that_does_not_answer_tells_no_names(tmp_path: Path) -> None:
    with pytest.raises(cri.CriError, match="does not answer"):
        cri.pod_names(str(tmp_path / "none.sock"), timeout=1)
