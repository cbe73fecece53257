# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""status.yml and preflight.yml as an operator runs them: hosts that answer, a host that does not, a real etcd.

The hosts are one machine under two names; the third cannot be reached: nothing listens on port 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd
from ansible_collections.evio.cni.plugins.module_utils.subnets import parse_pools

from .etcd_server import EtcdServer

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[6]
SCHEMA = json.loads((REPOSITORY / "docs/cluster-status.schema.json").read_text())
HOSTILE_SITE = "shop <i>1</i> {{ 7 * 7 }}"


@pytest.fixture
def etcd_server(tmp_path: Path) -> Iterator[EtcdServer]:
    (tmp_path / "etcd").mkdir()
    server = EtcdServer(tmp_path / "etcd")
    try:
        yield server.start()
    finally:
        server.stop()


def inventory(directory: Path, server: EtcdServer) -> dict[str, Any]:
    access = server.access
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    variables = {
        "evio_cni_conf_dir": str(directory / "net.d"),
        "evio_cni_state_dir": str(directory / "state"),
        "evio_etcd_endpoints": list(access.endpoints),
        "evio_etcd_ca_cert": access.ca_cert,
        "evio_etcd_client_cert": access.client_cert,
        "evio_etcd_client_key": access.client_key,
        "evio_cri_socket": "",
        "evio_status_directory": str(directory / "out"),
    }
    hosts = {
        "node1": {**local, "evio_public_endpoint": "192.0.2.1", "evio_host_overlay_address": "10.10.0.1"},
        "node2": {
            **local,
            "evio_host_overlay_address": "10.10.0.2",
            "evio_site": {"__ansible_unsafe": HOSTILE_SITE},
        },
        "node3": {"ansible_host": "127.0.0.1", "ansible_port": 1, "evio_host_overlay_address": "10.10.0.3"},
    }
    groups = {"evio_control_plane": {"hosts": {"node1": {}}}, "evio_pod_nodes": {"hosts": {"node1": {}, "node2": {}}}}
    return {"evio_nodes": {"hosts": hosts, "vars": variables, "children": groups}}


def play(directory: Path, server: EtcdServer, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "hosts.json").write_text(json.dumps(inventory(directory, server)))
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(directory / "hosts.json"), str(REPOSITORY / "playbooks" / playbook), *arguments),
        ],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(directory / "cp"),
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_page_and_json_tell_all_nodes_and_claims(tmp_path: Path, etcd_server: EtcdServer) -> None:
    with Etcd(etcd_server.access) as etcd:
        requests = [Request("node1", "1" * 32), Request("old", "2" * 32)]
        Registry(etcd, "kubernetes").claim(requests, parse_pools("10.244.0.0/16", "8"))
    done = play(tmp_path, etcd_server, "status.yml")
    assert "2 of 3 nodes answered" in done.stdout, done.stdout
    told = json.loads((tmp_path / "out/status.json").read_text())
    jsonschema.validate(told, SCHEMA)
    assert {node["name"]: node["state"] for node in told["nodes"]} == {
        "node1": "error",
        "node2": "error",
        "node3": "silent",
    }
    assert [claim["node"] for claim in told["registry"]["claims"]] == ["node1", "old"]
    sentences = [problem["what"] for problem in told["problems"]]
    assert any("1 node did not answer" in sentence for sentence in sentences)
    assert any("new pods get no network" in sentence for sentence in sentences)
    assert any("that the inventory does not have: old" in sentence for sentence in sentences)
    assert HOSTILE_SITE in {site["name"] for site in told["sites"]}
    page = (tmp_path / "out/status.html").read_text()
    assert "shop &lt;i&gt;1&lt;/i&gt; {{ 7 * 7 }}" in page
    assert "<i>1</i>" not in page
    assert (tmp_path / "out/status.html").stat().st_mode & 0o777 == 0o600


def test_playbook_fails_for_errors_only_if_asked(tmp_path: Path, etcd_server: EtcdServer) -> None:
    calm = play(tmp_path, etcd_server, "status.yml", "--limit", "node1")
    assert calm.returncode == 0, calm.stdout
    strict = play(tmp_path, etcd_server, "status.yml", "--limit", "node1", "-e", "evio_status_strict=true")
    assert strict.returncode != 0
    assert "new pods get no network" in strict.stdout


def test_etcd_that_is_down_is_on_the_page(tmp_path: Path, etcd_server: EtcdServer) -> None:
    etcd_server.stop()
    done = play(tmp_path, etcd_server, "status.yml", "--limit", "node1")
    assert done.returncode == 0, done.stdout
    told = json.loads((tmp_path / "out/status.json").read_text())
    assert told["registry"] is None
    assert any("etcd did not tell the claims" in problem["what"] for problem in told["problems"])


def test_unwritable_directory_is_told(tmp_path: Path, etcd_server: EtcdServer) -> None:
    (tmp_path / "file").touch()
    variable = f"evio_status_directory={tmp_path}/file/out"
    done = play(tmp_path, etcd_server, "status.yml", "--limit", "node1", "-e", variable)
    assert done.returncode != 0
    assert "set evio_status_directory" in done.stdout


def test_preflight_shows_a_table_and_fails_for_errors(tmp_path: Path, etcd_server: EtcdServer) -> None:
    (tmp_path / "net.d").mkdir()
    (tmp_path / "net.d/05-other.conflist").write_text("{}")
    done = play(tmp_path, etcd_server, "preflight.yml", "--limit", "node1")
    assert done.returncode != 0
    assert "ERROR    other CNI   node1:" in done.stdout, done.stdout
    words = " ".join(done.stdout.split())
    assert "05-other.conflist sorts before" in words
    assert "in order on all hosts: Python" in words
    assert "1 errors; the table above has their remedies" in words
    assert "changed=0" in words
    (tmp_path / "net.d/05-other.conflist").unlink()
    assert play(tmp_path, etcd_server, "preflight.yml", "--limit", "node1").returncode == 0
