# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The health check of a real etcd: it answers, or the error says in one sentence why not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.etcd.access import EtcdError
from ansible_collections.evio.cni.plugins.module_utils.etcd.health import ask_health, await_health
from ansible_collections.evio.cni.plugins.module_utils.pki import issue

from .etcd_server import EtcdServer

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    try:
        yield server.start()
    finally:
        server.stop()


def test_member_tells_its_version(server: EtcdServer) -> None:
    [health] = ask_health(server.access)
    assert health.is_healthy
    assert health.version.startswith("3.")


def test_dead_member_is_no_failure_if_another_answers(server: EtcdServer) -> None:
    found = ask_health(replace(server.access, endpoints=("https://127.0.0.1:1", server.url)))
    assert [health.endpoint for health in found] == [server.url]


def test_endpoint_without_a_server_is_named(server: EtcdServer) -> None:
    with pytest.raises(EtcdError, match=r"https://127\.0\.0\.1:1 refuses connections"):
        ask_health(replace(server.access, endpoints=("https://127.0.0.1:1",)))


def test_refused_certificate_is_named(server: EtcdServer, tmp_path: Path) -> None:
    issue(str(tmp_path), "member", [])
    certificate, key = str(tmp_path / "apiserver-etcd-client.crt"), str(tmp_path / "apiserver-etcd-client.key")
    with pytest.raises(EtcdError, match=f"refuses the client certificate {certificate}"):
        ask_health(replace(server.access, client_cert=certificate, client_key=key))


def test_foreign_ca_is_named(server: EtcdServer, tmp_path: Path) -> None:
    issue(str(tmp_path), "member", [])
    with pytest.raises(EtcdError, match="shows a certificate that cannot be verified with"):
        ask_health(replace(server.access, ca_cert=str(tmp_path / "etcd/ca.crt")))


def test_await_health_waits_for_an_etcd_that_starts(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path)
    starting = threading.Timer(1.0, server.start)
    try:
        starting.start()
        [health] = await_health(server.access, 20)
        assert health.is_healthy
    finally:
        starting.join()
        server.stop()


def test_await_health_ends_with_the_last_error(server: EtcdServer) -> None:
    started = time.monotonic()
    with pytest.raises(EtcdError, match=r"https://127\.0\.0\.1:1 refuses connections"):
        await_health(replace(server.access, endpoints=("https://127.0.0.1:1",)), 1.0)
    assert 1.0 <= time.monotonic() - started < 3.0
