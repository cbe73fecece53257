# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program evio-config-gen as an init container runs it, with a real etcd."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd

from .etcd_server import EtcdServer

pytestmark = pytest.mark.root

PROGRAM = Path(__file__).resolve().parents[6] / "build/bin/evio-config-gen"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd-plain"), tls=False)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd-secured"))
    try:
        yield server.start()
    finally:
        server.stop()


class Host:
    """One host: a directory for the conflist, a machine-id, and a cluster's name."""

    def __init__(self, directory: Path, server: EtcdServer, cluster: str) -> None:
        self.directory, self.server, self.cluster = directory, server, cluster
        self.machine_id = directory / "machine-id"
        self.machine_id.write_text("0123456789abcdef0123456789abcdef\n")

    def run(
        self, *arguments: str, node: str = "node1", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        flags = {
            "pod-cidr": "10.244.0.0/16",
            "node-bits": "8",
            "cluster": self.cluster,
            "node": node,
            "etcd": self.server.url,
            "out-dir": str(self.out_dir(node)),
            "machine-id": str(self.machine_id),
            "state-dir": str(self.directory / "state"),
        }
        given = {argument.split("=")[0].removeprefix("--") for argument in arguments}
        return run(
            *(f"--{name}={value}" for name, value in flags.items() if name not in given),
            *(argument for argument in arguments if argument.split("=", 1)[-1]),
            environment=environment,
        )

    def out_dir(self, node: str = "node1") -> Path:
        return self.directory / node / "net.d"

    def conflist(self, node: str = "node1") -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.out_dir(node) / "10-evio.conflist").read_text())
        return content

    def evio(self, node: str = "node1") -> dict[str, Any]:
        plugin: dict[str, Any] = self.conflist(node)["plugins"][0]
        return plugin


@pytest.fixture
def host(plain: EtcdServer, tmp_path: Path, request: pytest.FixtureRequest) -> Host:
    return Host(tmp_path, plain, request.node.name.replace("[", "-").replace("]", ""))


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *arguments],
        env={"PATH": "/usr/bin:/bin", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """Return the program's error message, which is one line."""
    assert result.returncode != 0, result.stdout
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("evio-config-gen: ")
    return result.stderr


def test_conflist_is_written_from_pod_cidr_and_node_bits(host: Host) -> None:
    result = host.run()
    assert (result.returncode, result.stderr) == (0, "")
    assert "10.244.0.0/24" in result.stdout
    path = host.out_dir() / "10-evio.conflist"
    assert path.stat().st_mode & 0o777 == 0o600
    assert host.conflist()["cniVersion"] == "1.0.0"
    evio = host.evio()
    assert evio["type"] == "evio"
    assert (evio["bridge"], evio["gateway"], evio["mtu"]) == ("br-evio", "10.244.0.1/24", 1420)
    assert evio["clusterCIDRs"] == ["10.10.0.0/16", "10.244.0.0/16"]
    assert evio["ipam"]["ranges"] == [
        [
            {
                "subnet": "10.244.0.0/24",
                "rangeStart": "10.244.0.2",
                "rangeEnd": "10.244.0.254",
                "gateway": "10.244.0.1",
            }
        ]
    ]


def test_epoch_is_the_claims_epoch_in_etcd(host: Host, plain: EtcdServer) -> None:
    host.run()
    with Etcd(plain.access) as etcd:
        claim = Registry(etcd, host.cluster).read().claims["node1"]
    assert host.evio()["epoch"] == claim.epoch > 0
    assert claim.machine_id == "0123456789abcdef0123456789abcdef"


def test_second_run_changes_nothing(host: Host) -> None:
    first = host.run()
    path = host.out_dir() / "10-evio.conflist"
    before = path.stat()
    second = host.run()
    assert second.returncode == 0
    assert "written" in first.stdout
    assert "up to date" in second.stdout
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_deleted_conflist_is_written_again_with_the_same_content(host: Host) -> None:
    host.run()
    path = host.out_dir() / "10-evio.conflist"
    before = path.read_bytes()
    path.unlink()
    assert host.run().returncode == 0
    assert path.read_bytes() == before


def test_nodes_that_start_together_get_different_subnets(host: Host) -> None:
    names = [f"node{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda name: host.run(node=name), names))
    assert [result.returncode for result in results] == [0] * 8, results
    subnets = {host.evio(name)["ipam"]["ranges"][0][0]["subnet"] for name in names}
    assert subnets == {f"10.244.{number}.0/24" for number in range(8)}


def test_dual_stack(host: Host) -> None:
    assert host.run("--pod-cidr=10.244.0.0/16,fd00:10:244::/48", "--node-bits=8,16").returncode == 0
    assert host.evio()["gateway"] == ["10.244.0.1/24", "fd00:10:244::1/64"]


def test_options_are_read_from_the_environment(host: Host, plain: EtcdServer) -> None:
    environment = {
        "EVIO_POD_CIDR": "10.32.0.0/12",
        "EVIO_NODE_BITS": "10",
        "EVIO_CLUSTER": host.cluster,
        "EVIO_NODE": "node1",
        "EVIO_ETCD": plain.url,
        "EVIO_OUT_DIR": str(host.out_dir()),
        "EVIO_MACHINE_ID": str(host.machine_id),
        "EVIO_MTU": "1280",
    }
    result = run(environment=environment)
    assert result.returncode == 0, result.stderr
    assert (host.evio()["gateway"], host.evio()["mtu"]) == ("10.32.0.1/22", 1280)


@pytest.mark.parametrize("spelling", ["pod_cidr", "pod-cidr", "PodCIDR"])
def test_options_are_read_from_a_file(host: Host, plain: EtcdServer, tmp_path: Path, spelling: str) -> None:
    file = tmp_path / "config.json"
    content = {
        spelling: "10.244.0.0/16",
        "node_bits": 8,
        "cluster": host.cluster,
        "node": "node1",
        "etcd": [plain.url],
        "out_dir": str(host.out_dir()),
        "machine_id": str(host.machine_id),
    }
    file.write_text(json.dumps(content))
    result = run("--config", str(file))
    assert result.returncode == 0, result.stderr
    assert host.evio()["gateway"] == "10.244.0.1/24"


def test_command_line_overrides_environment_and_environment_overrides_file(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"mtu": 1300, "bridge": "br-file", "cluster_cidr": ["10.99.0.0/16"]}))
    environment = {"EVIO_MTU": "1320", "EVIO_BRIDGE": "br-environment"}
    result = host.run(f"--config={file}", "--mtu=1340", environment=environment)
    assert result.returncode == 0, result.stderr
    evio = host.evio()
    assert (evio["mtu"], evio["bridge"]) == (1340, "br-environment")
    assert evio["clusterCIDRs"] == ["10.99.0.0/16", "10.244.0.0/16"]


def test_client_certificates_are_used(secured: EtcdServer, tmp_path: Path) -> None:
    host = Host(tmp_path, secured, "certificates")
    access = secured.access
    flags = [f"--cacert={access.ca_cert}", f"--cert={access.client_cert}", f"--key={access.client_key}"]
    assert host.run(*flags).returncode == 0
    assert host.evio()["gateway"] == "10.244.0.1/24"
    assert "needs the CA's certificate" in error_of(host.run())
    assert "refuses a client without a certificate" in error_of(host.run(flags[0]))


def test_subnet_of_the_node_object_is_claimed(host: Host) -> None:
    assert host.run("--subnet=10.244.7.0/24").returncode == 0
    assert host.evio()["gateway"] == "10.244.7.1/24"
    assert "node1 is pinned to 10.244.8.0/24 but has 10.244.7.0/24" in error_of(host.run("--subnet=10.244.8.0/24"))


def test_no_subnet_of_a_reserved_network_is_claimed(host: Host) -> None:
    assert host.run("--reserved-cidr=10.244.0.0/23", "--reserved-cidr=10.244.2.0/24").returncode == 0
    assert host.evio()["gateway"] == "10.244.3.1/24"


def test_installed_plugins_are_chained(host: Host, tmp_path: Path) -> None:
    (tmp_path / "portmap").touch()
    assert host.run(f"--plugin-dir={tmp_path}").returncode == 0
    assert [plugin["type"] for plugin in host.conflist()["plugins"]] == ["evio", "portmap"]


def test_plugin_whose_link_dangles_in_the_container_is_named_and_never_dropped(host: Host, tmp_path: Path) -> None:
    plugins, library = tmp_path / "bin", tmp_path / "lib"
    plugins.mkdir()
    for name in ("portmap", "bandwidth"):
        (plugins / name).symlink_to(library / name)
    left_out = host.run(f"--plugin-dir={plugins}")
    assert left_out.returncode == 0
    assert (
        f"portmap is not chained: {plugins}/portmap is a link to {library}/portmap, which is not there"
        in left_out.stderr
    )
    assert [plugin["type"] for plugin in host.conflist()["plugins"]] == ["evio"]

    library.mkdir()
    for name in ("portmap", "bandwidth"):
        (library / name).touch()
    mounted = host.run(f"--plugin-dir={plugins}")
    assert (mounted.returncode, mounted.stderr) == (0, "")
    complete = host.conflist()
    assert [plugin["type"] for plugin in complete["plugins"]] == ["evio", "portmap", "bandwidth"]

    (library / "portmap").unlink()
    kept = host.run(f"--plugin-dir={plugins}")
    assert "up to date" in kept.stdout
    assert "portmap is still chained, as in the present conflist, but" in kept.stderr
    assert "mount the host's directories" in kept.stderr
    assert "bandwidth" not in kept.stderr
    not_mounted = host.run(f"--plugin-dir={tmp_path / 'none'}")
    assert "bandwidth is still chained" in not_mounted.stderr
    assert host.conflist() == complete


def test_link_of_the_host_is_followed_below_the_hosts_root(host: Host, tmp_path: Path) -> None:
    (tmp_path / "host/opt/cni/bin").mkdir(parents=True)
    (tmp_path / "host/opt/cni/bin/portmap").symlink_to("/usr/lib/cni-of-the-host/portmap")
    arguments = ("--plugin-dir=/opt/cni/bin", f"--host-root={tmp_path / 'host'}")
    left_out = host.run(*arguments)
    assert "/opt/cni/bin/portmap is a link to /usr/lib/cni-of-the-host/portmap, which is not there" in left_out.stderr
    assert [plugin["type"] for plugin in host.conflist()["plugins"]] == ["evio"]
    (tmp_path / "host/usr/lib/cni-of-the-host").mkdir(parents=True)
    (tmp_path / "host/usr/lib/cni-of-the-host/portmap").write_text("")
    seen = host.run(*arguments)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert [plugin["type"] for plugin in host.conflist()["plugins"]] == ["evio", "portmap"]
    refused = host.run("--host-root=/no/such")
    assert "--host-root: '/no/such' is not the absolute path of a directory" in error_of(refused)


def test_links_in_a_circle_end(host: Host, tmp_path: Path) -> None:
    (tmp_path / "portmap").symlink_to(tmp_path / "bandwidth")
    (tmp_path / "bandwidth").symlink_to(tmp_path / "portmap")
    done = host.run(f"--plugin-dir={tmp_path}")
    assert done.returncode == 0
    assert [plugin["type"] for plugin in host.conflist()["plugins"]] == ["evio"]


def test_other_machine_of_the_same_name_is_refused_until_confirmed_as_replacement(host: Host) -> None:
    host.run()
    host.machine_id.write_text("ffffffffffffffffffffffffffffffff\n")
    before = host.conflist()
    assert "belongs to the machine 0123456789abcdef0123456789abcdef" in error_of(host.run())
    assert host.conflist() == before
    assert host.run("--replaced=yes").returncode == 0
    assert host.evio()["epoch"] > before["plugins"][0]["epoch"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pod-cidr=10.244.0.0"], "pod-cidr: '10.244.0.0' is not a network in CIDR notation"),
        (["--pod-cidr=10.244.0.1/16"], "has host bits set"),
        (["--node-bits=15"], "node-bits: 15 of pod-cidr 10.244.0.0/16 leaves 1 bits for pods"),
        (["--node-bits=eight"], "node-bits: 'eight' is not a number"),
        (["--node=a/b"], "node name 'a/b' cannot be a key in etcd"),
        (["--cluster=a/b"], "cluster 'a/b' cannot be a key in etcd"),
        (["--cluster-cidr=10.10.0.0"], "cluster-cidr: '10.10.0.0' is not a network"),
        (["--etcd=http://127.0.0.1:1"], "http://127.0.0.1:1 refuses connections: is etcd running there?"),
        (["--etcd=ftp://127.0.0.1"], "'ftp://127.0.0.1' is not the URL of a member"),
        (["--machine-id=/nowhere"], "mount the host's /etc/machine-id"),
        (["--timeout=0"], "--timeout: '0' is no number above 0"),
        (["--mtu=big"], "--mtu: 'big' is no number above 0"),
        (["--datapath-type=kernel"], "--datapath-type: 'kernel' is neither of system, netdev"),
        (["--user=root"], "--user and --password-file are given together"),
        (["--config=/nowhere"], "cannot read the configuration"),
        (["--nodebits=8"], "unrecognized arguments: --nodebits=8"),
        (["--etcd="], "--etcd (EVIO_ETCD) must be given"),
    ],
)
def test_unusable_option_is_reported_in_one_line(host: Host, arguments: list[str], words: str) -> None:
    assert words in error_of(host.run(*arguments))
    assert not host.out_dir().exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "holds no JSON"),
        ("[]", "holds no JSON object"),
        ('{"pod_cdir": "10.244.0.0/16"}', "'pod_cdir' is no option"),
        ('{"mtu": {}}', "mtu is {}"),
    ],
)
def test_unusable_file_is_named(host: Host, tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    assert words in error_of(host.run(f"--config={file}"))


def test_competing_conflist_is_named_before_a_subnet_is_claimed(host: Host, plain: EtcdServer) -> None:
    host.out_dir().mkdir(parents=True)
    (host.out_dir() / "00-other.conf").touch()
    assert "00-other.conf sorts before 10-evio.conflist" in error_of(host.run())
    with Etcd(plain.access) as etcd:
        assert Registry(etcd, host.cluster).read().claims == {}


def test_silent_etcd_takes_no_longer_than_the_timeout(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        words = error_of(host.run(f"--etcd=http://127.0.0.1:{silent.getsockname()[1]}", "--timeout=1"))
        assert time.monotonic() - started < 6
    assert "did not answer within 1 s" in words


def test_configuration_is_kept_if_etcd_cannot_be_asked_and_the_user_wants_that(host: Host) -> None:
    nobody = "--etcd=http://127.0.0.1:1"
    assert "127.0.0.1:1" in error_of(host.run(nobody, "--keep=yes"))
    host.run()
    path = host.out_dir() / "10-evio.conflist"
    before = path.read_bytes()
    assert "127.0.0.1:1" in error_of(host.run(nobody))
    kept = host.run(nobody, "--keep=yes")
    assert kept.returncode == 0
    assert "up to date: 10.244.0.0/24" in kept.stdout
    assert "the configuration stays as it is" in kept.stderr
    assert path.read_bytes() == before


def test_help_names_every_option() -> None:
    result = run("--help")
    assert result.returncode == 0
    for option in ("--pod-cidr", "--node-bits", "--etcd", "--out-dir", "--config", "EVIO_POD_CIDR"):
        assert option in result.stdout
