"""Write the Ansible inventory of the lab that is up, from its topology, with the variables of inventories/lab.

For the default lab this is the same as inventories/lab/hosts.yml, which is written by hand; a test compares them.
"""

from __future__ import annotations

from typing import Any

import machines
import ssh
import yaml
from state import REPOSITORY, Lab, write_file
from topology import Topology


def write(lab: Lab, topology: Topology) -> None:
    """Write hosts.yml into the lab's inventory directory, and link the variables of inventories/lab.

    A lab with Kubernetes has those of inventories/lab-kubernetes.
    """
    hosts = describe(topology, ssh_config=str(ssh.configuration(lab)))
    if topology.has_machines:
        hosts["all"]["vars"].update(machines.SLOWNESS)
    write_file(lab.inventory / "hosts.yml", "---\n" + yaml.safe_dump(hosts, sort_keys=False))
    variables = lab.inventory / "group_vars"
    variables.unlink(missing_ok=True)
    of = "inventories/lab-kubernetes" if topology.has_kubernetes else "inventories/lab"
    variables.symlink_to(REPOSITORY / of / "group_vars")


def describe(topology: Topology, *, ssh_config: str) -> dict[str, Any]:
    """Return the inventory as Ansible reads it from YAML."""
    every_host = {node.name: None for node in topology.nodes}
    hosts: dict[str, dict[str, str]] = {}
    for number, node in enumerate(topology.nodes, start=1):
        hosts[node.name] = {"evio_host_overlay_address": f"10.10.0.{number}"}
        if node.router is None:
            hosts[node.name]["evio_public_endpoint"] = topology.public_address(node)
    return {
        "all": {
            "vars": {"lab_ssh_config": ssh_config},
            "children": {
                "evio_nodes": {"hosts": hosts},
                "evio_control_plane": {"hosts": {topology.nodes[0].name: None}},
                "evio_pod_nodes": {"hosts": every_host},
                "evio_signalling": {"hosts": {}},
            },
        }
    }
