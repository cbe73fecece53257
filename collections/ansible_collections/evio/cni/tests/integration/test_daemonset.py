# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The DaemonSet: its containers as the manifest gives them to podman, a real etcd with the limited user, a real OVS."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.programs.archive import pack

from .ansible_module import run_module
from .cni_runtime import NewPod, PluginFailedError
from .daemonset import (
    DAEMONSET,
    PACKAGES,
    PROGRAMS,
    DaemonSetHost,
    Podman,
    image_archive,
    manifest,
    wait_until,
)
from .etcd_server import EtcdServer
from .ovs_daemons import OpenVSwitch, in_namespace

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    # Not in pytest's directory: the paths of podman's sockets would be too long.
    with tempfile.TemporaryDirectory(prefix="evt-podman-") as directory:
        engine = Podman(Path(directory))
        try:
            yield engine
        finally:
            engine.close()


@pytest.fixture
def host(podman: Podman, ovs: OpenVSwitch, tmp_path: Path) -> DaemonSetHost:
    """A host on which nothing of ours is installed."""
    return DaemonSetHost(podman, tmp_path, ovs.netns, ovs.directory, EVIO_ETCD="https://127.0.0.1:2379")


@pytest.fixture
def etcd(host: DaemonSetHost, tmp_path: Path) -> Iterator[EtcdServer]:
    """The host's etcd, which enforces the limits of the Secret's user."""
    (tmp_path / "etcd").mkdir()
    server = EtcdServer(tmp_path / "etcd", place=(host.netns, "127.0.0.1"))
    try:
        server.launch()
        pki = tmp_path / "etcd/pki"
        access = {
            "endpoints": [server.url],
            "ca_cert": str(pki / "etcd/ca.crt"),
            "client_cert": str(pki / "apiserver-etcd-client.crt"),
            "client_key": str(pki / "apiserver-etcd-client.key"),
        }
        assert "msg" not in run_module("etcd_info", netns=host.netns, **access, wait=20)
        assert run_module("etcd_user", netns=host.netns, **access, enable_authentication=True)["enforced"]
        client = run_module("etcd_client_certificate", directory=str(pki))
        for name, key in (("ca.crt", "ca_cert"), ("tls.crt", "client_cert"), ("tls.key", "client_key")):
            shutil.copy(client[key], host.secret / name)
        yield server
    finally:
        server.stop()


def done(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a container that succeeded has printed."""
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.usefixtures("etcd")
def test_bare_host_gives_pods_their_network(host: DaemonSetHost, new_pod: NewPod) -> None:
    installed = host.install()
    assert "installed; provided host-local, loopback, portmap, bandwidth" in done(installed)
    assert installed.stderr == ""
    assert "10-evio.conflist written: 10.244.0.0/24" in done(host.configure())
    assert [plugin["type"] for plugin in host.conflist()["plugins"]] == ["evio", "portmap"]
    first, second = host.add(new_pod()), host.add(new_pod())
    assert first.pings(second.address)
    with host.watching() as container:
        wait_until(lambda: host.evio(container, "status").returncode == 0, 60)
        assert "ready for pods" in host.evio(container, "status").stdout
    host.call("DEL", first)


@pytest.mark.usefixtures("etcd")
def test_second_run_changes_nothing(host: DaemonSetHost) -> None:
    for run in (host.install, host.configure):
        done(run())
    before = host.files()
    assert "up to date" in done(host.install())
    assert "up to date" in done(host.configure())
    assert host.files() == before


@pytest.mark.usefixtures("etcd")
def test_what_belongs_to_the_host_stays(host: DaemonSetHost) -> None:
    others = ("/etc/cni/net.d/87-podman-bridge.conflist", "/opt/cni/bin/host-local", "/opt/cni/bin/flannel")
    for path in others:
        host.path(path).parent.mkdir(parents=True, exist_ok=True)
        host.path(path).write_text("#!/bin/sh\n")
        host.path(path).chmod(0o755)
    before = {path: host.files()[str(host.path(path))] for path in others}
    assert "provided loopback, portmap, bandwidth" in done(host.install())
    done(host.configure())
    assert {path: host.files()[str(host.path(path))] for path in others} == before


@pytest.mark.usefixtures("etcd")
def test_conflist_keeps_a_plugin_whose_link_leads_nowhere(host: DaemonSetHost) -> None:
    done(host.install())
    done(host.configure())
    link = host.path("/opt/cni/bin/portmap")
    link.unlink()
    link.symlink_to("/usr/lib/gone/portmap")
    assert (
        "/opt/cni/bin/portmap is a link to /usr/lib/gone/portmap, which is not there; it stays" in host.install().stderr
    )
    again = host.configure()
    assert "portmap is still chained" in again.stderr
    assert [plugin["type"] for plugin in host.conflist()["plugins"]] == ["evio", "portmap"]


def test_network_in_front_of_ours_is_named_and_stays(host: DaemonSetHost) -> None:
    other = host.path("/etc/cni/net.d/05-other.conflist")
    other.write_text("{}")
    refused = host.configure()
    assert refused.returncode == 1
    assert "05-other.conflist sorts before 10-evio.conflist" in refused.stderr
    assert [path.name for path in other.parent.iterdir()] == [other.name]


def test_host_local_that_is_a_link_to_nothing_is_refused_before_anything_is_changed(host: DaemonSetHost) -> None:
    host.path("/opt/cni/bin").mkdir()
    host.path("/opt/cni/bin/host-local").symlink_to("/usr/lib/gone/host-local")
    before = host.files()
    refused = host.install()
    assert refused.returncode == 1
    assert "/opt/cni/bin/host-local is a link to /usr/lib/gone/host-local, which is not there" in refused.stderr
    assert host.files() == before


def test_host_without_python_or_libraries_is_refused_in_words(host: DaemonSetHost, tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    host.machine["/usr"] = tmp_path / "usr"
    assert "install python3-openvswitch and python3-pyroute2" in host.install().stderr
    for library in ("ovs", "pyroute2"):
        (tmp_path / "usr/lib/python3/dist-packages" / library).mkdir(parents=True)
    refused = host.install()
    assert refused.returncode == 1
    assert "/usr/bin/python3 is not there; install the package python3" in refused.stderr
    assert not list(host.path("/opt/cni").rglob("evio*"))


def test_directory_that_cannot_be_written_is_named(host: DaemonSetHost) -> None:
    options = (f"--volume={host.path('/opt/cni')}:/host/opt/cni:ro",)
    host.pod["initContainers"][0]["volumeMounts"] = [
        mount for mount in host.pod["initContainers"][0]["volumeMounts"] if mount["name"] != "programs"
    ]
    refused = host.install(*options)
    assert refused.returncode == 1
    assert "cannot install the programs into /host/opt/cni/bin and /host/opt/cni/lib" in refused.stderr
    assert "Read-only file system" in refused.stderr


@pytest.mark.usefixtures("etcd")
def test_full_disk_leaves_the_installed_version_and_the_next_run_heals(host: DaemonSetHost, new_pod: NewPod) -> None:
    done(host.install())
    done(host.configure())
    lib = host.path("/opt/cni/lib")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(lib)], check=True)
    try:
        # The launchers' version is not there any more, and there is not enough room for it.
        full = host.install()
        assert full.returncode == 1
        assert "No space left on device" in full.stderr
        assert list(lib.iterdir()) == []
    finally:
        subprocess.run(["umount", str(lib)], check=True)
    assert "up to date" in done(host.install())
    host.add(new_pod())


@pytest.mark.usefixtures("etcd")
def test_without_the_capability_to_run_the_hosts_python_the_programs_work_all_the_same(
    host: DaemonSetHost, new_pod: NewPod
) -> None:
    installed = host.run("install-programs", drop=["SYS_CHROOT"])
    assert installed.returncode == 0
    assert "the host's /usr/bin/python3 cannot be run below /host" in installed.stderr
    assert "compiled for cpython-311 by the container's Python" in installed.stderr
    done(host.configure())
    host.add(new_pod())


def other_version(path: Path, number: int) -> Path:
    """Write an archive of the programs that differs from the image's, so that it is another version."""
    with zipfile.ZipFile(PROGRAMS) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    path.write_bytes(pack({**files, "number": str(number).encode()}))
    return path


def test_image_of_the_next_version_differs_in_a_layer_of_the_programs_only(tmp_path: Path) -> None:
    archives = [image_archive(), tmp_path / "next.tar"]
    programs = other_version(tmp_path / "next.zip", 1)
    build = [str(DAEMONSET / "build-image"), str(archives[1]), f"--programs={programs}", f"--keep={PACKAGES}"]
    subprocess.run(build, check=True, timeout=300)
    layers, sizes = [], []
    for archive in archives:
        with tarfile.open(archive) as tar:
            (image,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            layers.append(image["Layers"])
            sizes.append([tar.getmember(layer).size for layer in image["Layers"]])
    assert [first == second for first, second in zip(*layers, strict=True)] == [True, False]
    assert sizes[1][0] > 10 * sizes[1][1]


@pytest.mark.usefixtures("etcd")
def test_no_add_fails_while_versions_are_replaced(host: DaemonSetHost, new_pod: NewPod, tmp_path: Path) -> None:
    done(host.install())
    done(host.configure())
    pods = [new_pod() for _number in range(2)]
    failures: list[str] = []
    calls = [0, 0]
    stop = threading.Event()

    def churn(number: int) -> None:
        while not stop.is_set():
            try:
                host.add(pods[number])
                host.call("DEL", pods[number])
            except PluginFailedError as error:
                failures.append(str(error))
            calls[number] += 1

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(len(pods))]
    for thread in threads:
        thread.start()
    try:
        for number in range(4):
            archive = other_version(tmp_path / f"{number}.zip", number)
            assert "installed" in done(host.install(f"--volume={archive}:/usr/share/evio-cni/evio-programs.zip:ro"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(calls) > 4


@pytest.mark.usefixtures("etcd")
def test_watch_gives_pods_their_flows_back_after_a_restart_of_vswitchd(
    host: DaemonSetHost, ovs: OpenVSwitch, new_pod: NewPod
) -> None:
    done(host.install())
    done(host.configure())
    first, second = host.add(new_pod()), host.add(new_pod())
    with host.watching() as container:
        wait_until(lambda: host.evio(container, "status").returncode == 0, 60)
        ovs.kill_vswitchd()
        ovs.start_vswitchd()
        wait_until(lambda: first.pings(second.address), 60)
        assert "installed the port-security flows" in host.logs(container)


@pytest.mark.usefixtures("etcd")
def test_watch_makes_a_lost_bridge_again_with_its_sysctls(
    host: DaemonSetHost, ovs: OpenVSwitch, new_pod: NewPod
) -> None:
    done(host.install())
    done(host.configure())
    first, second = host.add(new_pod()), host.add(new_pod())
    with host.watching() as container:
        wait_until(lambda: host.evio(container, "status").returncode == 0, 60)
        ovs.vsctl("del-br", "br-evio")
        in_namespace(host.netns, "sysctl", "-qw", "net.ipv4.ip_forward=0")
        wait_until(lambda: first.pings(second.address), 60)
        wait_until(lambda: in_namespace(host.netns, "sysctl", "-n", "net.ipv4.ip_forward").stdout.strip() == "1")
        assert "Read-only" not in host.logs(container)


@pytest.mark.usefixtures("etcd")
def test_watch_ends_at_once_when_its_pod_is_stopped(host: DaemonSetHost, podman: Podman) -> None:
    done(host.install())
    done(host.configure())
    with host.watching() as container:
        wait_until(lambda: host.evio(container, "status").returncode == 0, 60)
        podman.run("stop", "--time=8", container)
        assert podman.run("inspect", "--format={{.State.ExitCode}}", container).stdout.strip() == "0"


@pytest.mark.usefixtures("etcd")
def test_watch_routes_the_pods_of_nodes_that_claim_their_subnets_later(host: DaemonSetHost, podman: Podman) -> None:
    done(host.install())
    done(host.configure())
    host.path("/etc/evio/overlay.json").write_text("{}")
    routes = host.path("/etc/evio/pod-routes.json")

    def subnets() -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads(routes.read_text())["subnets"]
        return found

    with host.watching() as container:
        wait_until(routes.exists, 60)
        assert subnets() == {"node1": ["10.244.0.0/24"]}
        assert routes.stat().st_mode & 0o777 == 0o600
        other_machine = host.directory / "other-machine-id"
        other_machine.write_text("fedcba9876543210fedcba9876543210\n")
        other = ("--env=EVIO_NODE=node2", "--tmpfs=/etc/cni/net.d", f"--volume={other_machine}:/etc/machine-id:ro")
        container_of_configure = host.pod["initContainers"][1]
        container_of_configure["volumeMounts"] = [
            mount
            for mount in container_of_configure["volumeMounts"]
            if mount["name"] not in ("configuration", "machine-id")
        ]
        assert "10.244.1.0/24" in done(host.configure(*other))
        wait_until(lambda: subnets() == {"node1": ["10.244.0.0/24"], "node2": ["10.244.1.0/24"]}, 60)
        assert "wrote the pod routes of node2" in host.logs(container)


def test_manifest_asks_for_no_more_than_it_needs() -> None:
    pod = manifest()["DaemonSet"]["spec"]["template"]["spec"]
    assert not pod["automountServiceAccountToken"]
    assert "serviceAccountName" not in pod
    assert not {"hostPID", "hostIPC"} & set(pod)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    capabilities = {}
    for container in (*pod["initContainers"], *pod["containers"]):
        context = container["securityContext"]
        assert not context["privileged"]
        assert not context["allowPrivilegeEscalation"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"]["drop"] == ["ALL"]
        capabilities[container["name"]] = context["capabilities"].get("add", [])
    assert capabilities == {"install-programs": ["SYS_CHROOT"], "configure": [], "watch": ["NET_ADMIN"]}
    mounted = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert not mounted & {"/", "/etc", "/run", "/var", "/var/lib", "/proc", "/proc/sys", "/sys", "/dev"}
