# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role node_subnet as a playbook runs it: three hosts, one etcd, and what is told when etcd has lost its claims.

The hosts are one machine under three names; each has its own directory for the conflist.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.conf_dir import write_conflist
from ansible_collections.evio.cni.plugins.module_utils.conflist import PodNetwork, build_conflist
from ansible_collections.evio.cni.plugins.module_utils.subnets import NodeSubnet

from .etcd_server import EtcdServer

pytestmark = pytest.mark.root

COLLECTIONS = Path(__file__).resolve().parents[5]
NODES = ("node1", "node2", "node3")

PLAYBOOK = """
- hosts: evio_nodes
  gather_facts: false
  roles: [evio.cni.node_subnet]
  tasks:
    - name: Tell the fact
      ansible.builtin.copy:
        content: "{{ evio_node_subnet | to_json }}"
        dest: "{{ directory }}/{{ inventory_hostname }}.json"
        mode: "0600"
      check_mode: false
"""


class Site:
    """A playbook, an inventory, and the facts that the role has left behind."""

    def __init__(self, directory: Path, server: EtcdServer) -> None:
        self.directory, self.server = directory, server
        access = server.access
        hosts = {name: {"evio_cni_conf_dir": str(self.conf_dir(name))} for name in NODES}
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "directory": str(directory),
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
        (directory / "ansible.cfg").touch()

    def conf_dir(self, node: str) -> Path:
        return self.directory / node

    def play(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "-i",
                str(self.directory / "hosts.json"),
                str(self.directory / "play.yml"),
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
            timeout=120,
            check=False,
        )

    def fact(self, node: str) -> dict[str, Any]:
        fact: dict[str, Any] = json.loads((self.directory / f"{node}.json").read_text())
        return fact

    def set_up(self, node: str) -> None:
        """What the role cni does with the fact."""
        fact = self.fact(node)
        subnets = tuple(NodeSubnet(cidr) for cidr in fact["cidrs"])
        write_conflist(
            build_conflist(PodNetwork("br-evio", subnets, (), 1420, epoch=fact["epoch"])), str(self.conf_dir(node))
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "etcd").mkdir()
    (tmp_path / "site").mkdir()
    server = EtcdServer(tmp_path / "etcd")
    try:
        yield Site(tmp_path / "site", server.start())
    finally:
        server.stop()


def test_claims_again_nothing_and_a_wiped_etcd_changes_nothing_until_told(site: Site) -> None:
    first = site.play()
    assert first.returncode == 0, first.stdout
    assert {node: site.fact(node)["cidrs"] for node in NODES} == {
        "node1": ["10.244.0.0/24"],
        "node2": ["10.244.1.0/24"],
        "node3": ["10.244.2.0/24"],
    }
    for node in NODES:
        site.set_up(node)
    before = {node: site.fact(node) for node in NODES}
    again = site.play()
    assert again.returncode == 0, again.stdout
    assert {node: site.fact(node) for node in NODES} == before

    site.server.stop()
    shutil.rmtree(site.server.directory / "data")
    site.server.start()
    for mode in ([], ["--check"]):
        refused = site.play(*mode)
        assert refused.returncode != 0
        assert "node node1 is set up with 10.244.0.0/24 at epoch" in refused.stdout, refused.stdout
        assert "it was wiped, or restored from an older snapshot" in refused.stdout

    restored = site.play("-e", "evio_node_subnet_restore=true")
    assert restored.returncode == 0, restored.stdout
    assert {node: site.fact(node)["cidrs"] for node in NODES} == {node: before[node]["cidrs"] for node in NODES}
