#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measure what a run of bootstrap.yml that changes nothing costs on the controller, task by task, as the cluster grows.

The nodes are fakes: their connection answers each module at once, so the figures are those of Ansible and of this
collection's plugins alone (ansible_plugins/connection/fake_node.py). Two tasks of the same run are the measure of all
others: a bare ``debug`` task, and a bare module, each for all hosts. CPU seconds are those of ansible-playbook and its
workers. With --inventory, the run is on that inventory's real nodes instead, as `lab/lab up` writes it.

A node's tasks are the results that the play recap counts for it: ok (with includes), changed and skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PLUGINS = REPOSITORY / "benchmarks/ansible_plugins"
BARE_DEBUG, BARE_MODULE = "Bare debug task", "Bare module"

BARE = f"""\
- hosts: evio_nodes
  gather_facts: false
  tasks:
    - name: {BARE_DEBUG}
      ansible.builtin.debug:
        msg: "{{{{ inventory_hostname }}}}"
    - name: {BARE_MODULE}
      evio.cni.host_info:
- ansible.builtin.import_playbook: {REPOSITORY}/playbooks/bootstrap.yml
"""


def inventory(nodes: int) -> dict[str, Any]:
    """Return an inventory as the lab's, of this many fake nodes, two of them public."""
    hosts: dict[str, dict[str, str]] = {
        f"node{number}": {"evio_host_overlay_address": f"10.10.{number // 250}.{number % 250 + 1}"}
        for number in range(1, nodes + 1)
    }
    for number in (1, 2):
        hosts[f"node{number}"]["evio_public_endpoint"] = f"198.51.100.{number}"
    variables = {
        "ansible_connection": "fake_node",
        "ansible_python_interpreter": "/usr/bin/python3",
        "evio_etcd_managed": True,
        "evio_containerd_managed": True,
        # 1 024 node subnets.
        "evio_node_bits": 10,
    }
    groups = {
        "evio_nodes": {"hosts": hosts},
        "evio_control_plane": {"hosts": {"node1": None}},
        "evio_pod_nodes": {"hosts": dict.fromkeys(hosts)},
        "evio_signalling": {"hosts": {}},
    }
    return {"all": {"vars": variables, "children": groups}}


def run(directory: Path, hosts: Path) -> tuple[dict[str, Any], float]:
    """Run the playbook; return what the callback task_profile has written, and the wall time in seconds."""
    (directory / "play.yml").write_text(BARE)
    profile = directory / "profile.json"
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
        "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS / "callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "task_profile",
        "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"),
        "ANSIBLE_PIPELINING": "true",
        "TASK_PROFILE": str(profile),
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(hosts), str(directory / "play.yml")]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall = time.monotonic() - started
    if done.returncode != 0:
        failure = max(0, done.stdout.find("fatal:"))
        sys.exit(done.stdout[failure : failure + 3000] + done.stderr[-3000:])
    return json.loads(profile.read_text()), wall


def report(profile: dict[str, Any], wall: float, most: int) -> None:
    """Print the sum, and the tasks that cost most beside the two bare tasks."""
    counts = [count - 2 for count in profile["hosts"].values()]
    nodes = len(counts)
    cpu = {}
    for task in profile["tasks"]:
        cpu[task["name"]] = cpu.get(task["name"], 0.0) + task["cpu"]
    debug, module = cpu.pop(BARE_DEBUG), cpu.pop(BARE_MODULE)
    total = sum(cpu.values())
    print(
        f"\n{nodes} nodes: {wall:.0f} s, {total:.1f} CPU s of the controller = {1000 * total / nodes:.0f} ms a node; "
        f"tasks of a node: {statistics.median(counts):.0f} (median), {max(counts)} (most); "
        f"changed: {sum(profile['changed'].values())}"
    )
    print(f"  {'task':100.100} {'CPU s':>7} {'/ debug':>8} {'/ module':>8}")
    rows = [(BARE_DEBUG, debug), (BARE_MODULE, module)]
    rows += sorted(cpu.items(), key=lambda row: row[1], reverse=True)[:most]
    for name, seconds in rows:
        print(f"  {name:100.100} {seconds:7.2f} {seconds / debug:8.2f} {seconds / module:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[50, 200, 800], help="numbers of fake nodes")
    parser.add_argument("--inventory", type=Path, help="inventory of real nodes, instead of fake ones")
    parser.add_argument("--most", type=int, default=8, help="how many tasks to show")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evio-playbook-bench-") as name:
        directory = Path(name)
        if options.inventory:
            report(*run(directory, options.inventory), options.most)
            return
        for nodes in options.nodes:
            hosts = directory / "hosts.json"
            hosts.write_text(json.dumps(inventory(nodes)))
            report(*run(directory, hosts), options.most)


if __name__ == "__main__":
    main()
