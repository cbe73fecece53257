"""Nodes come up as bare hosts; a lab is removed without a trace, also if it is unfinished, killed or broken."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import faults
import internet
import life_cycle
import network
import nodes
import probes
import pytest
import ssh
from commands import NETNS_DIR, LabError, attempt, run
from state import Lab
from topology import plan

pytestmark = pytest.mark.root

_MACHINE_SETTINGS = ("kernel.pid_max", "kernel.core_pattern", "fs.file-max", "fs.nr_open", "vm.overcommit_memory")


def test_nodes_are_bare_hosts_that_answer_ssh_and_cannot_set_the_machine_s_kernel(lab: Lab) -> None:
    before = run("sysctl", *_MACHINE_SETTINGS)
    planned = plan(2).with_releases(["node2=trixie"])
    life_cycle.up(lab, planned)
    topology = lab.topology()
    versions = [run(*nodes.command(lab, node, ["cat", "/etc/debian_version"])) for node in topology.nodes]
    assert [version.partition(".")[0] for version in versions] == ["12", "13"]
    for node in topology.nodes:
        command = ["ssh", "-F", str(ssh.configuration(lab)), node.name]
        assert run(*command, "uname -n; systemctl is-system-running").split() == [node.name, "running"]
        assert (
            attempt(*command, "systemctl is-active openvswitch-switch containerd etcd").stdout.split()
            == ["inactive"] * 3
        )
        assert attempt(*command, "sysctl -qw vm.overcommit_memory=0").returncode != 0
        assert run(*command, "sysctl -qw net.ipv4.ip_forward=1 && cat /proc/sys/net/ipv4/ip_forward") == "1\n"
    assert run("sysctl", *_MACHINE_SETTINGS) == before
    machine_ids = {(lab.node(node.name) / "root/etc/machine-id").read_text() for node in topology.nodes}
    assert len(machine_ids) == 2

    node = topology.node("node2")
    run(*nodes.command(lab, node, ["sh", "-c", "echo kept >/root/file; ip link add gone0 type dummy; nft add table t"]))
    faults.reboot(lab, topology, node)
    assert run(*nodes.command(lab, node, ["cat", "/root/file"])) == "kept\n"
    assert attempt(*nodes.command(lab, node, ["ip", "link", "show", "gone0"])).returncode != 0
    assert run(*nodes.command(lab, node, ["nft", "list", "tables"])) == ""
    assert run(*nodes.command(lab, node, ["ping", "-c1", "-W2", "198.51.100.11"]))

    life_cycle.up(lab, planned)
    assert (lab.node("node2") / "root/root/file").read_text() == "kept\n"
    for other in (plan(3), plan(2)):
        with pytest.raises(LabError, match="another lab is up"):
            life_cycle.up(lab, other)
    life_cycle.down(lab)
    assert life_cycle.leftovers(lab) == []


def test_nodes_of_an_ipv6_lab_reach_its_internet_and_nothing_by_ipv4(lab: Lab) -> None:
    life_cycle.up(lab, plan(2, version=6, mtu=1280))
    topology = lab.topology()
    answers = probes.ask_nodes(lab, topology)
    assert [(answer.rtt_ms is not None, answer.is_body_right) for answer in answers.values()] == [(True, True)] * 2
    clients = {request["path"]: request["client"] for request in internet.requests_since(lab.internet_log, 0)}
    assert clients == {"/body?node1": "2001:db8::11", "/body?node2": "2001:db8:22::10"}
    node = topology.node("node2")
    assert run(*nodes.command(lab, node, ["ip", "-4", "-brief", "address", "show", "eth0"])).split()[2:] == []
    faults.readdress(lab, topology, node)
    topology = lab.topology()
    faults.reboot(lab, topology, topology.node("node2"))
    assert "2001:db8:1::10/64" in run(*nodes.command(lab, node, ["ip", "-brief", "address", "show", "eth0"]))
    assert probes.ask_nodes(lab, topology)["node2"].is_body_right
    with pytest.raises(LabError, match="another lab is up"):
        life_cycle.up(lab, plan(2, version=6))


def test_down_without_podman_s_state_finds_every_process_and_mount(lab: Lab) -> None:
    before = {*os.listdir("/run")}
    life_cycle.up(lab, plan(1))
    process = nodes.pid(lab, lab.topology().nodes[0])
    subprocess.run(["rm", "-rf", lab.podman / "libpod", lab.run], check=True)
    life_cycle.down(lab)
    assert life_cycle.leftovers(lab) == []
    # The process is dead, though its new parent may not have waited for it yet.
    assert not Path(f"/proc/{process}/root/etc").exists()
    assert {"runc", lab.run.name}.isdisjoint({*os.listdir("/run")} - before)


def test_lab_with_a_dead_node_is_built_again(lab: Lab) -> None:
    life_cycle.up(lab, plan(1))
    process = nodes.pid(lab, lab.topology().nodes[0])
    os.kill(process, 9)
    # A killed process is there until the kernel has ended all of its namespace.
    deadline = time.monotonic() + 10
    while nodes.is_running(lab, lab.topology().nodes[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    life_cycle.up(lab, plan(1))
    assert nodes.is_running(lab, lab.topology().nodes[0])


def test_unfinished_network_is_removed_with_the_processes_in_it(lab: Lab) -> None:
    topology = plan(3)
    lab.write(topology, is_complete=False)
    network.build(lab.prefix, plan(2))
    inside = subprocess.Popen(["nsenter", f"--net={NETNS_DIR}/{lab.netns('node2')}", "sleep", "60"])
    assert life_cycle.leftovers(lab)
    life_cycle.down(lab)
    assert life_cycle.leftovers(lab) == []
    assert inside.wait(timeout=5) != 0
    life_cycle.down(lab)


def test_lab_that_is_not_up_has_no_topology(lab: Lab) -> None:
    with pytest.raises(LabError, match="the lab is not up"):
        lab.topology()
    lab.write(plan(3), is_complete=False)
    with pytest.raises(LabError, match="the lab is not up"):
        lab.topology()


def test_lab_is_changed_by_one_process_at_a_time(lab: Lab) -> None:
    with lab.lock(), pytest.raises(LabError, match="another lab/lab"), lab.lock():
        pass


def test_lab_of_another_checkout_is_neither_built_over_nor_removed(lab: Lab, tmp_path: Path) -> None:
    lab.write(plan(1), is_complete=False)
    run("ip", "netns", "add", lab.netns("node1"))
    other = Lab(prefix=lab.prefix, state=tmp_path / "other")
    other.state.mkdir()
    for action in (lambda: life_cycle.up(other, plan(1)), lambda: life_cycle.down(other)):
        with pytest.raises(LabError, match=f"that of another checkout .{lab.state}"):
            action()
    assert network.namespaces(lab.prefix) == [lab.netns("node1")]
    life_cycle.down(lab)
    life_cycle.down(other)
    run("ip", "netns", "add", lab.netns("node1"))
    with pytest.raises(LabError, match="nobody describes"):
        life_cycle.up(other, plan(1))
    life_cycle.down(other)


@pytest.fixture
def left_by_killed_tests(prefix: str, tmp_path: Path) -> Lab:
    left = Lab(prefix=prefix, state=tmp_path / "former")
    left.state.mkdir()
    left.write(plan(1), is_complete=False)
    run("ip", "netns", "add", left.netns("node1"))
    return left


def test_what_killed_tests_left_is_gone_before_the_next_test(left_by_killed_tests: Lab, lab: Lab) -> None:
    assert left_by_killed_tests.read() is None
    assert life_cycle.leftovers(lab) == []
    assert lab.other_owner() is None
