# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""status.yml and preflight.yml as an operator runs them: hosts that answer, a host that does not, a real etcd.

playbook_site has the hosts.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd
from ansible_collections.evio.cni.plugins.module_utils.subnets import parse_pools

from .etcd_server import EtcdServer
from .playbook_site import HOSTILE_SITE, REPOSITORY, play

pytestmark = pytest.mark.root

SCHEMA = json.loads((REPOSITORY / "docs/cluster-status.schema.json").read_text())


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
