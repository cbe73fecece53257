# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""backup.yml, restore.yml, rotate.yml and repair.yml as an operator runs them: real hosts, etcd and pods.

Of rename_node.yml, change_pool.yml and change_mtu.yml, what they refuse and predict; molecule/operations runs them.

playbook_site has the hosts. Where the hosts contradict a backup, and what etcd holds, is in test_registry_modules.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils import pki
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Delete, Etcd, Get
from ansible_collections.evio.cni.plugins.module_utils.pki_layout import client_layout
from ansible_collections.evio.cni.plugins.module_utils.subnets import parse_pools

from .cni_runtime import PLUGIN, NewPod, Node
from .etcd_server import EtcdServer
from .ovs_daemons import in_namespace
from .playbook_site import play

pytestmark = pytest.mark.root


def claim(server: EtcdServer, **machines: str) -> None:
    with Etcd(server.access) as etcd:
        requests = [Request(node, machine) for node, machine in machines.items()]
        Registry(etcd, "kubernetes").claim(requests, parse_pools("10.244.0.0/16", "8"))


def claims(server: EtcdServer) -> dict[str, tuple[str, ...]]:
    with Etcd(server.access) as etcd:
        return {node: found.cidrs for node, found in Registry(etcd, "kubernetes").read().claims.items()}


def wipe(server: EtcdServer) -> None:
    with Etcd(server.access) as etcd:
        pairs = etcd.txn([], [Get("/evio/", prefix=True)]).ranges[0]
        etcd.txn([], [Delete(pair.key) for pair in pairs])


def words(output: str) -> str:
    return " ".join(output.split())


def backup(directory: Path, server: EtcdServer) -> Path:
    done = play(directory, server, "backup.yml", "-e", f"evio_backup_directory={directory}/backups")
    assert done.returncode == 0, done.stdout
    return max((directory / "backups").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def test_backup_is_written_once_and_never_replaced(tmp_path: Path, etcd_server: EtcdServer) -> None:
    claim(etcd_server, node2="2" * 32)
    variable = f"evio_backup_directory={tmp_path}/backups"
    predicted = play(tmp_path, etcd_server, "backup.yml", "--check", "-e", variable)
    assert "1 claims would be written to" in words(predicted.stdout), predicted.stdout
    assert not (tmp_path / "backups").exists()
    path = backup(tmp_path, etcd_server)
    assert path.stat().st_mode & 0o777 == 0o600
    told: dict[str, Any] = json.loads(path.read_text())
    assert (told["version"], told["cluster"], [one["node"] for one in told["claims"]]) == (1, "kubernetes", ["node2"])
    again = play(tmp_path, etcd_server, "backup.yml", "-e", variable)
    assert "have not changed since they were written to" in words(again.stdout)
    assert "changed=0" in again.stdout
    claim(etcd_server, node5="5" * 32)
    newest = backup(tmp_path, etcd_server)
    assert newest != path
    newest.write_text("mine")
    refused = play(tmp_path, etcd_server, "backup.yml", "-e", variable)
    assert refused.returncode != 0
    assert "is there already, and is not replaced" in words(refused.stdout)
    assert newest.read_text() == "mine"


def test_backup_of_a_lost_registry_is_refused(tmp_path: Path, etcd_server: EtcdServer) -> None:
    refused = play(tmp_path, etcd_server, "backup.yml", "-e", f"evio_backup_directory={tmp_path}/backups")
    assert refused.returncode != 0
    assert "so there is nothing to back up" in words(refused.stdout)
    assert not (tmp_path / "backups").exists()


def test_restore_writes_the_claims_back(tmp_path: Path, etcd_server: EtcdServer) -> None:
    claim(etcd_server, node2="2" * 32, node3="3" * 32)
    before = claims(etcd_server)
    variable = f"evio_backup_file={backup(tmp_path, etcd_server)}"
    wipe(etcd_server)
    predicted = play(tmp_path, etcd_server, "restore.yml", "--limit", "node1", "--check", "-e", variable)
    assert "Claims of node2, node3 would be restored" in words(predicted.stdout), predicted.stdout
    assert claims(etcd_server) == {}
    done = play(tmp_path, etcd_server, "restore.yml", "--limit", "node1", "-e", variable)
    assert "Claims of node2, node3 were restored" in words(done.stdout), done.stdout
    assert "node2, node3 did not answer" in words(done.stdout)
    assert claims(etcd_server) == before
    again = play(tmp_path, etcd_server, "restore.yml", "--limit", "node1", "-e", variable)
    assert "Claims of no node were restored" in words(again.stdout)
    assert "changed=0" in again.stdout


def test_restore_that_a_host_contradicts_writes_nothing(tmp_path: Path, etcd_server: EtcdServer) -> None:
    claim(etcd_server, node1="1" * 32)
    variable = f"evio_backup_file={backup(tmp_path, etcd_server)}"
    wipe(etcd_server)
    refused = play(tmp_path, etcd_server, "restore.yml", "--limit", "node1", "-e", variable)
    assert refused.returncode != 0
    assert f"the backup has the machine {'1' * 32} for it" in words(refused.stdout), refused.stdout
    assert claims(etcd_server) == {}


def test_files_that_are_no_backups_are_refused(tmp_path: Path, etcd_server: EtcdServer) -> None:
    (tmp_path / "half").write_text('{"kind"')
    for name, problem in (
        ("none", "there is no backup"),
        ("half", f"cannot restore {tmp_path}/half: the file is no JSON"),
        ("", "there is no backup"),
    ):
        variable = f"evio_backup_file={tmp_path}/{name}"
        refused = play(tmp_path, etcd_server, "restore.yml", "--limit", "node1", "-e", variable)
        assert refused.returncode != 0
        assert problem in words(refused.stdout), refused.stdout


def rotate(directory: Path, server: EtcdServer, *arguments: str) -> str:
    variables = {
        "evio_etcd_pki_dir": str(server.directory / "pki"),
        "evio_etcd_secret_file": str(directory / "secret.yaml"),
        "evio_etcd_open": True,
        "evio_overlay": "wireguard",
    }
    done = play(directory, server, "rotate.yml", "--limit", "node1", "-e", json.dumps(variables), *arguments)
    assert done.returncode == 0, done.stdout
    return words(done.stdout)


def test_certificate_of_the_daemonset_is_renewed_before_it_expires(
    tmp_path: Path, etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = etcd_server.directory / "pki"
    assert "changed=0" in rotate(tmp_path, etcd_server)
    assert not (tmp_path / "secret.yaml").exists()
    with monkeypatch.context() as patch:
        patch.setattr(pki, "_LEAF_DAYS", 100)
        pki.issue(str(directory), "evio-cni", [], client_layout("evio-cni"))
    old = (directory / "evio-cni-etcd-client.crt").read_bytes()
    rotate(tmp_path, etcd_server)
    assert (directory / "evio-cni-etcd-client.crt").read_bytes() == old
    renew = ["-e", "evio_certificate_renew_days=200"]
    rotate(tmp_path, etcd_server, "--check", *renew)
    assert (directory / "evio-cni-etcd-client.crt").read_bytes() == old
    told = rotate(tmp_path, etcd_server, *renew)
    assert f"kubectl apply -f {tmp_path}/secret.yaml" in told, told
    renewed = (directory / "evio-cni-etcd-client.crt").read_bytes()
    assert renewed != old
    assert base64.b64encode(renewed).decode() in (tmp_path / "secret.yaml").read_text()
    client = {
        f"client_{kind}": f"{directory}/evio-cni-etcd-client.{end}" for kind, end in (("cert", "crt"), ("key", "key"))
    }
    with Etcd(replace(etcd_server.access, **client)) as etcd:
        assert etcd.txn([], [Get("/evio/", prefix=True)]).succeeded
    assert "changed=0" in rotate(tmp_path, etcd_server, *renew)


def test_certificates_are_renewed_now_whatever_their_age(tmp_path: Path, etcd_server: EtcdServer) -> None:
    directory = etcd_server.directory / "pki"
    pki.issue(str(directory), "evio-cni", [], client_layout("evio-cni"))
    authority = (directory / "etcd/ca.crt").read_bytes()
    found = [(directory / "evio-cni-etcd-client.crt").read_bytes()]
    now = ["-e", "evio_rotate_now=true"]
    rotate(tmp_path, etcd_server, "--check", *now)
    assert (directory / "evio-cni-etcd-client.crt").read_bytes() == found[0]
    for _run in range(2):
        rotate(tmp_path, etcd_server, *now)
        found.append((directory / "evio-cni-etcd-client.crt").read_bytes())
    assert len(set(found)) == 3
    assert (directory / "etcd/ca.crt").read_bytes() == authority
    assert base64.b64encode(found[-1]).decode() in (tmp_path / "secret.yaml").read_text()
    assert "changed=0" in rotate(tmp_path, etcd_server)


def test_renewal_of_all_certificates_is_refused_beside_other_rotations(tmp_path: Path, etcd_server: EtcdServer) -> None:
    arguments = ["-e", "evio_rotate_now=true", "-e", "evio_rotate=wireguard", "-e", "evio_overlay=wireguard"]
    refused = play(tmp_path, etcd_server, "rotate.yml", "--limit", "node1", *arguments)
    assert refused.returncode != 0
    assert "evio_rotate_now=true renews certificates, and evio_rotate is wireguard" in words(refused.stdout)


IDENTITY = """
- hosts: node1:node2
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: evio.cni.cluster, tasks_from: write_identity, rolespec_validate: false}
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }}: {{ __evio_site_certificates | join(', ') or 'none' }}"}
"""


@pytest.mark.parametrize(
    ("variables", "noted"),
    [
        ({}, []),
        ({"evio_etcd_managed": True}, []),
        (
            {"evio_etcd_pki_dir": "/srv/pki", "evio_etcd_client_cert": "/srv/pki/apiserver-etcd-client.crt"},
            ["/srv/pki"],
        ),
        ({"evio_etcd_client_cert": "/srv/etcd/client.pem"}, ["/srv/etcd/client.pem"]),
        ({"evio_etcd_ca_cert": "{{ evio_etcd_pki_dir }}/etcd/ca.crt"}, []),
    ],
)
def test_inventory_tells_control_plane_hosts_alone_their_certificates(
    tmp_path: Path, variables: dict[str, Any], noted: list[str]
) -> None:
    (tmp_path / "identity.yml").write_text(IDENTITY)
    done = play(tmp_path, None, str(tmp_path / "identity.yml"), "--check", "-e", json.dumps(variables))
    assert done.returncode == 0, done.stdout
    told = words(done.stdout)
    assert f"node1: {', '.join(noted) or 'none'}" in told, told
    assert "node2: none" in told, told


def repair(node: Node, *arguments: str) -> tuple[int, str]:
    """Run repair.yml on the node, as node1 of the site."""
    variables = {
        "evio_cni_bin_dir": str(PLUGIN.parent),
        "evio_cni_conf_dir": str(node.directory / "net.d"),
        "evio_cni_state_dir": node.conf["stateDir"],
    }
    extra = ["--limit", "node1", "-e", json.dumps(variables), *arguments]
    done = play(node.directory, None, "repair.yml", *extra, netns=node.switch.netns)
    return done.returncode, words(done.stdout)


def test_repair_says_what_was_mended_and_then_that_nothing_had_to_be(node: Node, new_pod: NewPod) -> None:
    node.write_conflist()
    pod = node.add(new_pod())
    [port] = node.ports()
    node.switch.vsctl("del-port", port)
    code, told = repair(node, "--check")
    assert code == 0, told
    assert "changed=0" in told
    assert node.ports() == []
    code, told = repair(node)
    assert (code, node.ports()) == (0, [port]), told
    assert f"plugged: - {pod.container_id}" in told
    assert "changed=1" in told
    code, told = repair(node)
    assert code == 0
    assert "nothing had to be mended" in told, told
    assert "changed=0" in told


def test_repair_in_check_mode_names_rules_that_are_missing(node: Node, new_pod: NewPod) -> None:
    node.write_conflist()
    node.add(new_pod())
    in_namespace(node.switch.netns, "nft", "flush", "ruleset")
    code, told = repair(node, "--check")
    assert code == 0, told
    assert "is missing or incomplete" in told, told
    code, told = repair(node)
    assert (code, "rules: true" in told) == (0, True), told
    code, told = repair(node, "--check")
    assert "is missing or incomplete" not in told, told


def test_repair_that_cannot_mend_fails_and_says_why(node: Node, new_pod: NewPod) -> None:
    node.write_conflist()
    node.add(new_pod())
    node.switch.stop()
    code, told = repair(node)
    assert code != 0
    assert "Fail if something could not be mended" in told, told
    assert "db.sock" in told


def test_repair_of_a_node_without_a_network_fails(node: Node) -> None:
    (node.directory / "net.d").mkdir()
    code, told = repair(node)
    assert code != 0
    assert "this node is not set up for pods yet" in told, told


def test_rename_of_a_machine_that_was_never_set_up_is_refused(tmp_path: Path, etcd_server: EtcdServer) -> None:
    refused = play(tmp_path, etcd_server, "rename_node.yml", "--limit", "node1", "-e", "evio_rename=old=node1")
    assert refused.returncode != 0
    assert "was never set up, so it is not old" in words(refused.stdout), refused.stdout
    assert "changed=0" in refused.stdout


def test_change_of_the_pool_predicts_who_moves(tmp_path: Path, etcd_server: EtcdServer) -> None:
    claim(etcd_server, node1="1" * 32, node2="2" * 32)
    conf_dir = tmp_path / "net.d"
    conf_dir.mkdir()
    plugin = {"type": "evio", "nodeSubnets": ["10.244.0.0/24"], "epoch": 1}
    (conf_dir / "10-evio.conflist").write_text(json.dumps({"name": "evio", "plugins": [plugin]}))
    before = claims(etcd_server)

    def predict(*arguments: str) -> str:
        done = play(tmp_path, etcd_server, "change_pool.yml", "--limit", "node1", "--check", *arguments)
        assert claims(etcd_server) == before
        return words(done.stdout)

    assert "No node has to move." in predict("-e", "evio_pod_cidr=10.240.0.0/12", "-e", "evio_node_bits=12")
    assert "subnets of a former pool: node1, node2, which this run moves" in predict("-e", "evio_pod_cidr=10.60.0.0/16")
    assert "these are the same addresses, divided otherwise" in predict("-e", "evio_node_bits=10")
    external = ("-e", "evio_pod_cidr=10.60.0.0/16", "-e", "evio_overlay=external", "-e", "evio_pod_bridge=br0")
    assert "Nodes move to another pool with evio_overlay=wireguard alone" in predict(*external)
