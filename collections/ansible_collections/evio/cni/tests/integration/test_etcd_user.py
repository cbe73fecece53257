# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules etcd_user and etcd_client_certificate: a certificate that reaches the claims in etcd and nothing else."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.errors import EvioError
from ansible_collections.evio.cni.plugins.module_utils.etcd.access import Access
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd, Get, Put
from ansible_collections.evio.cni.plugins.module_utils.subnets import Pool

from .ansible_module import check_do_again, run_module
from .etcd_server import EtcdServer

COLLECTIONS = Path(__file__).resolve().parents[5]
PLAYBOOK = """
- hosts: evio_control_plane[0]
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: evio.cni.node_subnet
        tasks_from: etcd_user
"""

pytestmark = pytest.mark.root


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    member = EtcdServer(tmp_path)
    try:
        yield member.start()
    finally:
        member.stop()


def connection(access: Access) -> dict[str, Any]:
    return {
        "endpoints": list(access.endpoints),
        "ca_cert": access.ca_cert,
        "client_cert": access.client_cert,
        "client_key": access.client_key,
    }


def client(server: EtcdServer, name: str) -> Access:
    """How a client with a certificate of this name reaches the server."""
    result = run_module("etcd_client_certificate", directory=str(server.directory / "pki"), name=name)
    return dataclasses.replace(server.access, client_cert=result["client_cert"], client_key=result["client_key"])


def attempt(access: Access, operation: Get | Put) -> str:
    """Return ``done``, or etcd's refusal."""
    with Etcd(access) as etcd:
        try:
            etcd.txn([], [operation])
        except EvioError as error:
            return str(error)
    return "done"


def test_limited_user_claims_subnets_and_reaches_no_other_key(server: EtcdServer) -> None:
    secret = Put("/registry/secrets/default/token", "secret")
    assert attempt(server.access, secret) == "done"
    _predicted, done, _again = check_do_again("etcd_user", **connection(server.access), enable_authentication=True)
    assert (done["enforced"], done["prefix"]) == (True, "/evio/kubernetes/")

    limited = client(server, "evio-cni")
    with Etcd(limited) as etcd:
        outcome = Registry(etcd, "kubernetes").claim([Request("node1", "id1")], [Pool("10.244.0.0/16", 8)])
        assert outcome.claims["node1"].cidrs == ("10.244.0.0/24",)
        assert Registry(etcd, "kubernetes").claim([Request("node1", "id1")], [Pool("10.244.0.0/16", 8)]).changed == ()
        assert Registry(etcd, "kubernetes").release(["node1"]).changed == ("node1",)
    for refused in (
        Get("/registry/secrets/default/token"),
        Get("/", prefix=True),
        Get("/evio/", prefix=True),
        Put("/registry/secrets/default/token", "forged"),
        Put("/evio/kubernetes-2/pool", "forged"),
        Put("/evio/kubernetes", "forged"),
    ):
        assert "permission denied" in attempt(limited, refused), refused


def test_administrators_still_do_everything_and_other_certificates_nothing(server: EtcdServer) -> None:
    run_module("etcd_user", **connection(server.access), enable_authentication=True)
    pki = server.directory / "pki"
    health = dataclasses.replace(
        server.access,
        client_cert=str(pki / "etcd/healthcheck-client.crt"),
        client_key=str(pki / "etcd/healthcheck-client.key"),
    )
    for administrator in (server.access, health):
        assert attempt(administrator, Put("/registry/x", "1")) == "done"
        assert attempt(administrator, Get("/", prefix=True)) == "done"
    assert "permission denied" in attempt(client(server, "stranger"), Get("/evio/kubernetes/pool"))


def test_without_authentication_the_module_says_that_nothing_is_enforced(server: EtcdServer) -> None:
    _predicted, done, _again = check_do_again("etcd_user", **connection(server.access))
    assert not done["enforced"]
    assert attempt(client(server, "evio-cni"), Get("/registry/x")) == "done"


def test_permissions_beyond_the_claims_are_taken_away(server: EtcdServer) -> None:
    run_module("etcd_user", **connection(server.access), cluster="old", enable_authentication=True)
    limited = client(server, "evio-cni")
    assert attempt(limited, Put("/evio/old/pool", "x")) == "done"
    check_do_again("etcd_user", **connection(server.access), cluster="new", enable_authentication=True)
    assert "permission denied" in attempt(limited, Put("/evio/old/pool", "x"))
    assert attempt(limited, Put("/evio/new/pool", "x")) == "done"


def test_authentication_that_would_lock_out_the_module_itself_is_refused(server: EtcdServer) -> None:
    result = run_module(
        "etcd_user", **connection(server.access), enable_authentication=True, administrators=["somebody-else"]
    )
    assert "'kube-apiserver-etcd-client', which is not among the administrators" in result["msg"]
    assert attempt(client(server, "stranger"), Get("/registry/x")) == "done"


def test_administrator_cannot_be_limited(server: EtcdServer) -> None:
    result = run_module("etcd_user", **connection(server.access), name="kube-apiserver-etcd-client")
    assert "is an administrator and cannot be limited" in result["msg"]


def test_certificate_is_issued_once_and_only_by_an_existing_ca(server: EtcdServer, tmp_path: Path) -> None:
    pki = str(server.directory / "pki")
    _predicted, done, _again = check_do_again("etcd_client_certificate", directory=pki, name="evio-cni")
    assert done["issued"] == ["evio-cni-etcd-client"]
    assert Path(done["client_key"]).stat().st_mode & 0o777 == 0o600
    refused = run_module("etcd_client_certificate", directory=str(tmp_path / "none"))
    assert "etcd/ca.crt is not there: give the directory with etcd's CA" in refused["msg"]
    assert not (tmp_path / "none").exists()
    assert "cannot be the name of a file" in run_module("etcd_client_certificate", directory=pki, name="../x")["msg"]


def play(server: EtcdServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the role's tasks as playbooks/daemonset.yml does, on this machine."""
    directory, access = server.directory, server.access
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "evio_etcd_endpoints": list(access.endpoints),
        "evio_etcd_pki_dir": str(directory / "pki"),
        "evio_etcd_secret_file": str(directory / "secret.yaml"),
    }
    inventory = {"evio_control_plane": {"hosts": {"node1": variables}}}
    (directory / "hosts.json").write_text(json.dumps(inventory))
    (directory / "play.yml").write_text(PLAYBOOK)
    (directory / "ansible.cfg").touch()
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return subprocess.run(
        [program, "-i", str(directory / "hosts.json"), str(directory / "play.yml"), *arguments],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_role_writes_a_secret_whose_certificate_is_limited(server: EtcdServer) -> None:
    enable = ("--extra-vars", "evio_etcd_authentication=true")
    predicted = play(server, "--check", *enable)
    assert predicted.returncode == 0, predicted.stdout
    assert not (server.directory / "secret.yaml").exists()
    done = play(server, *enable)
    assert done.returncode == 0, done.stdout
    assert "PRIVATE KEY" not in done.stdout
    again = play(server, *enable)
    assert "changed=0" in again.stdout
    file = server.directory / "secret.yaml"
    assert file.stat().st_mode & 0o777 == 0o600
    secret = yaml.safe_load(file.read_text())
    assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", "evio-etcd-client")
    for name, content in secret["data"].items():
        (server.directory / name).write_bytes(base64.b64decode(content))
    limited = dataclasses.replace(
        server.access,
        ca_cert=str(server.directory / "ca.crt"),
        client_cert=str(server.directory / "tls.crt"),
        client_key=str(server.directory / "tls.key"),
    )
    assert attempt(limited, Get("/evio/kubernetes/pool")) == "done"
    assert "permission denied" in attempt(limited, Get("/registry/x"))


def test_role_fails_where_etcd_would_stay_open_to_all_nodes_unless_that_is_accepted(server: EtcdServer) -> None:
    refused = play(server)
    assert refused.returncode != 0
    assert "etcd does not limit any client" in refused.stdout
    assert play(server, "--extra-vars", "evio_etcd_open=true").returncode == 0
