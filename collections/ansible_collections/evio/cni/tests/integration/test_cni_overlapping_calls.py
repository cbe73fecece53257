# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls that overtake each other: a DEL beside an ADD that was given up, and an ADD that comes too late."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .cni_runtime import CNI_PLUGINS, PLUGIN, NewPod, Node, PluginFailedError, Pod
from .ovs_daemons import OpenVSwitch

pytestmark = pytest.mark.root


class SlowNode(Node):
    """A node whose IPAM plugin takes its time for an ADD, and does then what host-local does."""

    def __init__(self, switch: OpenVSwitch, directory: Path) -> None:
        super().__init__(switch, directory)
        plugins = directory / "ipam-plugins"
        plugins.mkdir()
        slow = plugins / "slow"
        slow.write_text(f'#!/bin/sh\n[ "$CNI_COMMAND" != ADD ] || sleep 1\nexec {CNI_PLUGINS}/host-local\n')
        slow.chmod(0o755)
        self.conf["ipam"]["type"] = slow.name
        self.path = f"{plugins}:{CNI_PLUGINS}"

    def add_by(self, program: list[str], pod: Pod) -> None:
        other = copy.copy(self)
        other.program = program
        other.add(pod, CNI_PATH=self.path)


@pytest.fixture
def slow_node(ovs: OpenVSwitch, tmp_path: Path) -> SlowNode:
    return SlowNode(ovs, tmp_path)


def test_delete_waits_for_an_add_that_is_at_work(slow_node: SlowNode, new_pod: NewPod) -> None:
    pod = new_pod()
    with ThreadPoolExecutor(1) as pool:
        added = pool.submit(slow_node.add, pod, CNI_PATH=slow_node.path)
        while not slow_node.journal():
            time.sleep(0.02)
        slow_node.delete(Pod(pod.netns, pod.container_id), CNI_PATH=slow_node.path)
        assert added.done()
    assert slow_node.leftovers() == {}


def test_delete_waits_for_the_ipam_plugin_of_an_add_that_was_killed(slow_node: SlowNode, new_pod: NewPod) -> None:
    pod = new_pod()
    killed = ["timeout", "--foreground", "-s", "KILL", "0.4", str(PLUGIN)]
    with ThreadPoolExecutor(1) as pool:
        added = pool.submit(slow_node.add_by, killed, pod)
        time.sleep(0.6)
        assert slow_node.reservations() == []
        slow_node.delete(Pod(pod.netns, pod.container_id), CNI_PATH=slow_node.path)
    with pytest.raises(PluginFailedError):
        added.result()
    assert (slow_node.reservations(), slow_node.journal(), slow_node.veths()) == ([], [], [])


def test_other_pods_do_not_wait_for_a_slow_one(slow_node: SlowNode, new_pod: NewPod) -> None:
    pod, other = new_pod(), new_pod()
    with ThreadPoolExecutor(1) as pool:
        added = pool.submit(slow_node.add, pod, CNI_PATH=slow_node.path)
        while not slow_node.journal():
            time.sleep(0.02)
        slow_node.delete(other, CNI_PATH=slow_node.path)
        assert not added.done()
    slow_node.delete(pod, CNI_PATH=slow_node.path)


def test_late_add_of_an_old_sandbox_takes_nothing_from_the_newer_one(
    ovs: OpenVSwitch, tmp_path: Path, new_pod: NewPod
) -> None:
    """A pod with an address of its own, which the runtime started anew while the first ADD was still under way."""
    node = Node(ovs, tmp_path)
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24"}]]
    own = {"capabilities": {"ips": True}, "runtimeConfig": {"ips": ["10.244.3.77/24"]}}
    neighbour = node.add(new_pod())
    newer = node.add(new_pod(), **own)
    before, flows = node.leftovers(), node.flows()
    old = new_pod()
    with pytest.raises(PluginFailedError, match=r"10\.244\.3\.77"):
        node.add(old, **own)
    node.delete(old)
    assert newer.address == "10.244.3.77"
    assert (node.leftovers(), [flow for flow in node.flows() if flow not in node.dead_flows()]) == (before, flows)
    assert neighbour.pings(newer.address)
