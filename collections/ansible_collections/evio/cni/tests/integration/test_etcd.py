# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An etcd that asks for user and password, with TLS and without. test_registry has its other failures."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest
from ansible_collections.evio.cni.plugins.module_utils.etcd.access import Access, EtcdError
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd, Get, Put
from ansible_collections.evio.cni.plugins.module_utils.etcd.health import ask_health

from .etcd_server import EtcdServer

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def access(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Access]:
    """Yield the access of a user who may read and write only below /evio/."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd-auth"), tls=request.param)
    try:
        server.start()
        set_up_users(server)
        yield replace(server.access, user="evio", password="secret")
    finally:
        server.stop()


def set_up_users(server: EtcdServer) -> None:
    access = server.access
    files = {"cacert": access.ca_cert, "cert": access.client_cert, "key": access.client_key}
    flags = [f"--{name}={path}" for name, path in files.items() if path]
    for command in (
        ["user", "add", "root:root"],
        ["user", "grant-role", "root", "root"],
        ["role", "add", "evio"],
        ["role", "grant-permission", "--prefix=true", "evio", "readwrite", "/evio/"],
        ["user", "add", "evio:secret"],
        ["user", "grant-role", "evio", "evio"],
        ["auth", "enable"],
    ):
        subprocess.run(
            ["etcdctl", f"--endpoints={server.url}", *flags, *command],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            timeout=30,
            check=True,
        )


def test_user_with_the_password_reads_and_writes(access: Access) -> None:
    with Etcd(access) as etcd:
        etcd.txn([], [Put("/evio/a", "1")])
        assert [pair.value for pair in etcd.txn([], [Get("/evio/a")]).ranges[0]] == ["1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "wrong"}, "refuses the user 'evio'"),
        ({"user": "stranger"}, "refuses the user 'stranger'"),
    ],
)
def test_wrong_password_and_unknown_user_are_refused_by_name(
    access: Access, change: dict[str, str], words: str
) -> None:
    with Etcd(replace(access, **change)) as etcd, pytest.raises(EtcdError, match=words) as raised:
        etcd.txn([], [Get("/evio/a")])
    assert str(access.password) not in str(raised.value)


def test_user_without_permission_for_a_key_is_named(access: Access) -> None:
    with Etcd(access) as etcd, pytest.raises(EtcdError, match=r"refuses the user 'evio': .*permission denied"):
        etcd.txn([], [Put("/registry/a", "1")])


def test_client_without_a_user_is_told_that_etcd_asks_for_one(access: Access) -> None:
    with (
        Etcd(replace(access, user=None, password=None)) as etcd,
        pytest.raises(EtcdError, match="asks for a user, and none is given"),
    ):
        etcd.txn([], [Put("/evio/a", "1")])


@pytest.mark.parametrize(
    "variable", ["http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"]
)
def test_etcd_is_asked_directly_whatever_proxy_the_environment_names(
    access: Access, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        with Etcd(access) as etcd:
            etcd.txn([], [Get("/evio/a")])
        assert all(health.is_healthy for health in ask_health(access))
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_password_is_not_part_of_repr(access: Access) -> None:
    assert "secret" not in repr(access)
