"""The inventory in the repository and the inventory that the lab writes agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import inventory
import pytest
import yaml
from state import REPOSITORY, Lab
from topology import plan


def test_inventories_lab_describes_the_default_lab() -> None:
    written = yaml.safe_load((REPOSITORY / "inventories/lab/hosts.yml").read_text())
    ssh_config = written["all"]["vars"]["lab_ssh_config"]
    assert written == inventory.describe(plan(3), ssh_config=ssh_config)


def test_relays_of_an_ipv6_lab_have_ipv6_endpoints() -> None:
    hosts = inventory.describe(plan(3, version=6), ssh_config="")["all"]["children"]["evio_nodes"]["hosts"]
    assert hosts["node1"] == {"evio_host_overlay_address": "10.10.0.1", "evio_public_endpoint": "2001:db8::11"}


def test_inventory_of_another_lab_has_the_same_variables(tmp_path: Path) -> None:
    lab = Lab(state=tmp_path)
    inventory.write(lab, plan(5, public=2))
    hosts = yaml.safe_load((lab.inventory / "hosts.yml").read_text())["all"]["children"]["evio_nodes"]["hosts"]
    assert {name for name, host in hosts.items() if "evio_public_endpoint" in host} == {"node1", "node2"}
    variables = yaml.safe_load((lab.inventory / "group_vars/all.yml").read_text())
    assert variables["evio_pod_cidr"] == "10.244.0.0/16"


def test_inventory_of_a_lab_with_kubernetes_lets_kubeadm_make_the_cluster(tmp_path: Path) -> None:
    lab = Lab(state=tmp_path)
    inventory.write(lab, plan(3, has_kubernetes=True))
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(lab.inventory), "--host=node2"]
    variables = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert variables["evio_pod_cidr"] == "10.244.0.0/16"
    assert (variables["evio_kubernetes"], variables["evio_etcd_managed"]) == ("kubeadm", False)


@pytest.mark.parametrize("file", ["inventories/lab/hosts.yml", "inventories/lab/group_vars/all.yml"])
def test_inventory_contains_no_path_of_this_repository(file: str) -> None:
    assert str(REPOSITORY) not in (REPOSITORY / file).read_text()
