# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role node_subnet in a playbook with three hosts and one etcd, which keeps, loses or releases their claims.

The hosts are one machine under three names. Each has a directory of its own for the conflist.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.model import LocalClaim
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd
from ansible_collections.evio.cni.plugins.module_utils.node.claim import read_local_claim
from ansible_collections.evio.cni.plugins.module_utils.state.fence import read_fence

from .etcd_server import EtcdServer

pytestmark = pytest.mark.root

COLLECTIONS = Path(__file__).resolve().parents[5]
NODES = ("node1", "node2", "node3")

PLAYBOOK = """
- hosts: evio_nodes
  gather_facts: false
  roles: [evio.cni.node_subnet]
  tasks:
    - name: What the role cni does with the fact
      evio.cni.cni_config:
        bridge: br-evio
        subnets: "{{ __evio_node_subnet.cidrs }}"
        epoch: "{{ __evio_node_subnet.epoch }}"
        cluster_cidrs: [10.10.0.0/16, 10.244.0.0/16]
        mtu: 1420
        conf_dir: "{{ evio_cni_conf_dir }}"
        state_dir: "{{ evio_cni_state_dir }}"
"""

CHANGE_POOL = """
- hosts: evio_nodes
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: evio.cni.node_subnet, tasks_from: plan_pool}
    - ansible.builtin.import_role: {name: evio.cni.node_subnet, tasks_from: change_pool}
    - ansible.builtin.import_role: {name: evio.cni.node_subnet}
    - name: What the role cni does with the fact
      evio.cni.cni_config: &conflist
        bridge: br-evio
        subnets: "{{ __evio_node_subnet.cidrs }}"
        epoch: "{{ __evio_node_subnet.epoch }}"
        cluster_cidrs: "{{ __evio_unmasqueraded_cidrs }}"
        mtu: 1420
        conf_dir: "{{ evio_cni_conf_dir }}"
        state_dir: "{{ evio_cni_state_dir }}"
- hosts: evio_nodes
  gather_facts: false
  serial: 1
  roles: [evio.cni.cluster]
  tasks:
    - ansible.builtin.set_fact:
        __evio_node_subnet: "{{ __evio_node_subnet | combine(__evio_node_subnet.present) }}"
      when: __evio_node_moves
    - evio.cni.cni_config: *conflist
      when: __evio_node_moves
- hosts: evio_nodes
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: evio.cni.node_subnet, tasks_from: release_former}
    - ansible.builtin.import_role: {name: evio.cni.node_subnet}
    - evio.cni.cni_config: *conflist
"""


class Site:
    """A playbook, an inventory, and the configuration of the hosts."""

    def __init__(self, directory: Path, server: EtcdServer) -> None:
        self.directory, self.server = directory, server
        access = server.access
        hosts = {
            name: {
                "evio_cni_conf_dir": str(self.conf_dir(name)),
                "evio_cni_state_dir": str(directory / f"{name}-state"),
            }
            for name in NODES
        }
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "evio_etcd_endpoints": list(access.endpoints),
            "evio_etcd_ca_cert": access.ca_cert,
            "evio_etcd_client_cert": access.client_cert,
            "evio_etcd_client_key": access.client_key,
        }
        inventory = {
            "evio_nodes": {
                "hosts": hosts,
                "vars": variables,
                "children": {"evio_control_plane": {"hosts": {"node1": {}}}},
            }
        }
        (directory / "hosts.json").write_text(json.dumps(inventory))
        (directory / "play.yml").write_text(PLAYBOOK)
        (directory / "change_pool.yml").write_text(CHANGE_POOL)
        (directory / "ansible.cfg").touch()

    def conf_dir(self, node: str) -> Path:
        return self.directory / node

    def play(self, *arguments: str, playbook: str = "play.yml") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "-i",
                str(self.directory / "hosts.json"),
                str(self.directory / playbook),
                *arguments,
            ],
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
            },
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def configured(self) -> dict[str, LocalClaim | None]:
        return {node: read_local_claim(str(self.conf_dir(node))) for node in NODES}

    def fences(self) -> dict[str, str | None]:
        return {node: read_fence(str(self.directory / f"{node}-state")) for node in NODES}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "etcd").mkdir()
    (tmp_path / "site").mkdir()
    server = EtcdServer(tmp_path / "etcd")
    try:
        yield Site(tmp_path / "site", server.start())
    finally:
        server.stop()


def test_wiped_etcd_changes_nothing_until_restore_is_set(site: Site) -> None:
    first = site.play()
    assert first.returncode == 0, first.stdout
    before = site.configured()
    assert [one.cidrs for one in before.values() if one] == [("10.244.0.0/24",), ("10.244.1.0/24",), ("10.244.2.0/24",)]
    again = site.play()
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("changed=0") == len(NODES)
    assert site.configured() == before

    site.server.stop()
    shutil.rmtree(site.server.directory / "data")
    site.server.start()
    for mode in (["--check"], []):
        refused = site.play(*mode)
        assert refused.returncode != 0
        assert "node node1 is set up with 10.244.0.0/24 at epoch" in refused.stdout, refused.stdout
        assert "it was wiped, or restored from an older snapshot" in refused.stdout
        assert site.configured() == before
        assert [fence is not None for fence in site.fences().values()] == [not mode] * len(NODES)

    restored = site.play("-e", "evio_node_subnet_restore=true")
    assert restored.returncode == 0, restored.stdout
    assert {node: one.cidrs for node, one in site.configured().items() if one} == {
        node: one.cidrs for node, one in before.items() if one
    }
    assert site.fences() == dict.fromkeys(NODES)


def test_only_nodes_with_a_lost_claim_are_fenced(site: Site) -> None:
    site.play()
    with Etcd(site.server.access) as etcd:
        Registry(etcd, "kubernetes").release(["node2"])
    refused = site.play()
    assert refused.returncode != 0
    assert [node for node, fence in site.fences().items() if fence] == ["node2"]
    assert "it was released" in str(site.fences()["node2"])


def networks(site: Site, node: str) -> list[str]:
    conflist = json.loads((site.conf_dir(node) / "10-evio.conflist").read_text())
    return [cidr for cidr in conflist["plugins"][0]["clusterCIDRs"] if not cidr.startswith("10.10.")]


def test_nodes_move_to_another_pool_with_the_steps_of_change_pool(site: Site) -> None:
    """What change_pool.yml does with the claims and the CNI configuration; it routes between the steps besides."""
    assert site.play().returncode == 0
    pool = "evio_pod_cidr=10.60.0.0/16"
    moved = site.play("-e", pool, "-e", "evio_moving_nodes=node2", playbook="change_pool.yml")
    assert moved.returncode == 0, moved.stdout
    assert [claim.cidrs for claim in site.configured().values() if claim] == [
        ("10.244.0.0/24",),
        ("10.60.1.0/24",),
        ("10.244.2.0/24",),
    ]
    assert networks(site, "node2") == networks(site, "node1") == ["10.60.0.0/16", "10.244.0.0/16"]
    again = site.play("-e", pool, "-e", "evio_moving_nodes=node2", playbook="change_pool.yml")
    assert again.stdout.count("changed=0") == len(NODES), again.stdout
    rest = site.play("-e", pool, playbook="change_pool.yml")
    assert rest.returncode == 0, rest.stdout
    assert [claim.cidrs for claim in site.configured().values() if claim] == [
        (f"10.60.{place}.0/24",) for place in range(3)
    ]
    assert networks(site, "node1") == ["10.60.0.0/16"]
    with Etcd(site.server.access) as etcd:
        snapshot = Registry(etcd, "kubernetes").read()
    assert snapshot.pool_config is not None
    assert snapshot.pool_config.former == ()
    assert sorted(snapshot.released) == [f"10.244.{place}.0/24" for place in range(3)]
    last = site.play("-e", pool, playbook="change_pool.yml")
    assert last.stdout.count("changed=0") == len(NODES), last.stdout
    assert set(site.fences().values()) == {None}
