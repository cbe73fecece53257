"""The Ansible inventory of the lab that is up, made from its topology; the variables are those of inventories/lab.

inventories/lab/hosts.yml describes by hand what this makes of the default lab: the two agree, and a test says so.
"""

from __future__ import annotations

from typing import Any

import ssh
import yaml
from state import REPOSITORY, Lab, write_file
from topology import Topology


def write(lab: Lab, topology: Topology) -> None:
    """Write hosts.yml into the lab's inventory, beside a link to the variables of inventories/lab."""
    hosts = describe(topology, ssh_config=str(ssh.configuration(lab)))
    write_file(lab.inventory / "hosts.yml", "---\n" + yaml.safe_dump(hosts, sort_keys=False))
    variables = lab.inventory / "group_vars"
    variables.unlink(missing_ok=True)
    variables.symlink_to(REPOSITORY / "inventories/lab/group_vars")


def describe(topology: Topology, *, ssh_config: str) -> dict[str, Any]:
    """The inventory as Ansible reads it from YAML."""
    every_host = {node.name: None for node in topology.nodes}
    hosts: dict[str, dict[str, str]] = {}
    for number, node in enumerate(topology.nodes, start=1):
        hosts[node.name] = {"evio_host_overlay_address": f"10.10.0.{number}"}
        if node.router is None:
            hosts[node.name]["evio_public_endpoint"] = topology.public_address(node)
    return {
        "all": {
            "vars": {"evio_lab_ssh_config": ssh_config},
            "children": {
                "evio_nodes": {"hosts": hosts},
                "evio_control_plane": {"hosts": {topology.nodes[0].name: None}},
                "evio_pod_nodes": {"hosts": every_host},
                "evio_signalling": {"hosts": {}},
            },
        }
    }
