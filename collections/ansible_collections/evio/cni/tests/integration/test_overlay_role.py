# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role overlay with nodes that do not reach each other, are unreachable for Ansible, or are left out of the run.

Hosts are namespaces with real agents but without systemd, so evio_overlay is ``external``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .overlay_lab import COLLECTIONS, SYMMETRIC, Node, OverlayLab

pytestmark = pytest.mark.root

PLAYBOOK = """
- hosts: evio_nodes
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: evio.cni.overlay
    - ansible.builtin.debug:
        msg: >-
          {{ inventory_hostname }} goes on:
          {{ __evio_overlay_ready }} {{ __evio_node_bridge }} {{ __evio_overlay_mtu }}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[OverlayLab]:
    overlay_lab = OverlayLab(tmp_path)
    try:
        overlay_lab.public_node("relay")
        for name in ("first", "second"):
            overlay_lab.node(name, overlay_lab.router(SYMMETRIC))
        overlay_lab.start()
        overlay_lab.wait_reachable()
        yield overlay_lab
    finally:
        overlay_lab.close()


def run_role(lab: OverlayLab, *options: str, **further: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the playbook on the lab's nodes and on further hosts, given with their variables."""
    variables = {"evio_overlay": "external", "evio_pod_bridge": "br-site", "evio_overlay_timeout": 4}
    hosts = {node.name: host_variables(node) for node in lab.nodes.values()}
    inventory = {"all": {"vars": variables, "children": {"evio_nodes": {"hosts": {**hosts, **further}}}}}
    files = {"hosts.json": json.dumps(inventory), "play.yml": PLAYBOOK, "ansible.cfg": ""}
    for name, content in files.items():
        (lab.directory / name).write_text(content)
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(lab.directory / "hosts.json"), str(lab.directory / "play.yml"), *options),
        ],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONFIG": str(lab.directory / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def host_variables(node: Node) -> dict[str, str]:
    python = node.directory / "python"
    python.write_text(f'#!/bin/sh\nexec {" ".join(node.namespace.command("/usr/bin/python3"))} "$@"\n')
    python.chmod(0o755)
    return {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(python),
        "evio_host_overlay_address": node.address,
    }


def continuing_nodes(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.split('"')[3].split()[0] for line in done.stdout.splitlines() if " goes on: True br-site 1420" in line}


def test_nodes_that_reach_each_other_get_the_facts_of_the_overlay(lab: OverlayLab) -> None:
    done = run_role(lab)
    assert done.returncode == 0, done.stdout
    assert continuing_nodes(done) == {"relay", "first", "second"}, done.stdout
    assert "first  -> second  reached" in done.stdout


def test_pair_that_does_not_reach_each_other_ends_the_run_with_a_table(lab: OverlayLab) -> None:
    lab.nodes["first"].namespace.run("ip", "route", "add", "blackhole", lab.nodes["second"].address)
    done = run_role(lab)
    assert done.returncode != 0
    assert continuing_nodes(done) == set()
    for line in ("first  -> second  no way   NO ANSWER", "relay  -> first   reached"):
        assert line in done.stdout, done.stdout
    assert "first does not reach second (10.10.0.3) at all" in done.stdout
    left_out = run_role(lab, "--limit=all:!second")
    assert continuing_nodes(left_out) == {"relay", "first"}, left_out.stdout


def test_node_that_ansible_cannot_reach_does_not_stop_the_others(lab: OverlayLab) -> None:
    lost = {"ansible_host": "127.0.0.1", "ansible_port": 1, "evio_host_overlay_address": "10.10.0.9"}
    done = run_role(lab, lost=lost)
    assert "lost" in done.stdout.split("unreachable=1")[0].splitlines()[-1], done.stdout
    assert continuing_nodes(done) == {"relay", "first", "second"}, done.stdout
    assert "first  -> lost    no way" in done.stdout


def test_node_of_a_limited_run_that_reaches_no_other_node_fails(lab: OverlayLab) -> None:
    alone = lab.nodes["first"]
    for other in ("relay", "second"):
        alone.namespace.run("ip", "route", "add", "blackhole", lab.nodes[other].address)
    refused = run_role(lab, "--limit=first")
    assert refused.returncode != 0, refused.stdout
    assert continuing_nodes(refused) == set()
    assert "first reaches none of the 2 other nodes, of which this run has none" in refused.stdout, refused.stdout
    first_of_cluster = run_role(lab, "--limit=first", "--extra-vars=evio_overlay_alone=true")
    assert continuing_nodes(first_of_cluster) == {"first"}, first_of_cluster.stdout
    alone.namespace.run("ip", "route", "del", "blackhole", lab.nodes["relay"].address)
    assert continuing_nodes(run_role(lab, "--limit=first")) == {"first"}


def test_external_overlay_without_a_bridge_is_refused(lab: OverlayLab) -> None:
    done = run_role(lab, "--extra-vars=evio_pod_bridge=")
    assert done.returncode != 0
    assert "evio_pod_bridge: not given" in done.stdout
