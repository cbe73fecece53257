"""How virtual machines are connected, entered and told from containers. `make test-kernel-nodes` boots them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import inventory
import machines
import network
import nodes
import pytest
import ssh
from commands import LabError, run
from state import Lab
from topology import from_dict, plan


def _prepared(lab: Lab) -> None:
    """Make disks, keys and the ssh configuration of two machines."""
    ssh.make_key(lab)
    topology = plan(2, has_machines=True)
    for node in topology.nodes:
        ssh.install(lab, node, machines.prepare(lab, node))
    ssh.write_configuration(lab, topology.nodes)


@pytest.mark.parametrize("other", [{"version": 6}, {"has_kubernetes": True}])
def test_machines_with_what_they_do_not_have_are_refused(other: dict[str, int]) -> None:
    with pytest.raises(LabError, match="--machines"):
        plan(2, has_machines=True, **other)  # type: ignore[arg-type]


def test_description_of_a_lab_tells_whether_it_has_machines() -> None:
    described = plan(2, has_machines=True).as_dict()
    assert from_dict(described).has_machines
    del described["has_machines"]
    assert not from_dict(described).has_machines


def test_machine_is_reached_through_its_router_and_a_public_one_from_the_internet(tmp_path: Path) -> None:
    lab = Lab(prefix="p", state=tmp_path)
    _prepared(lab)
    doors = []
    for name in ("node1", "node2"):
        shown = run("ssh", "-F", str(ssh.configuration(lab)), "-G", name)
        doors += [line.split(maxsplit=1)[1] for line in shown.splitlines() if line.startswith("proxycommand ")]
    assert doors == [
        "nsenter --net=/run/netns/p-internet nc -N 198.51.100.11 22",
        "nsenter --net=/run/netns/p-nat2 nc -N 192.168.1.10 22",
    ]


def test_command_on_a_machine_keeps_its_arguments(tmp_path: Path) -> None:
    lab = Lab(prefix="p", state=tmp_path)
    _prepared(lab)
    *_ssh, script = nodes.command(lab, plan(2).nodes[0], ["printf", "%s|", "two words", "$HOME", "it's"])
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == (
        "two words|$HOME|it's|"
    )


def test_machine_that_does_not_run_is_told_with_its_console(tmp_path: Path) -> None:
    lab = Lab(prefix="p", state=tmp_path)
    _prepared(lab)
    node = plan(2).nodes[0]
    (lab.node("node1") / "console").write_text("Kernel panic\n")
    (lab.node("node1") / "qemu.log").write_text("qemu: no such option\n")
    # A process of this machine that took the number of the ended one.
    (lab.node("node1") / "pid").write_text(f"{os.getpid()} 1\n")
    assert not nodes.is_running(lab, node)
    with pytest.raises(LabError, match=r"(?s)node1: its virtual machine has ended.*Kernel panic.*no such option"):
        machines.check(lab, node)


def test_processes_of_a_machine_have_no_id_here(tmp_path: Path) -> None:
    lab = Lab(prefix="p", state=tmp_path)
    _prepared(lab)
    with pytest.raises(LabError, match="without --machines"):
        nodes.pid(lab, plan(2).nodes[0])


def test_limits_of_time_are_longer_for_machines_alone(tmp_path: Path) -> None:
    lab = Lab(prefix="p", state=tmp_path)
    inventory.write(lab, plan(2, has_machines=True))
    assert "evio_ovs_timeout: 120" in (lab.inventory / "hosts.yml").read_text()
    inventory.write(lab, plan(2))
    assert "evio_ovs_timeout" not in (lab.inventory / "hosts.yml").read_text()


@pytest.mark.root
def test_taps_are_ports_of_the_nodes_segments(lab: Lab) -> None:
    topology = plan(2, has_machines=True, mtu=1280)
    lab.write(topology, is_complete=False)
    network.build(lab.prefix, topology)
    for segment, bridge, node, mtu in (("pub", "pub", "node1", 1280), ("nat2", "lan0", "node2", 1500)):
        shown = run("ip", "-n", lab.netns(segment), "-d", "link", "show", node)
        assert f"master {bridge}" in shown
        assert f"mtu {mtu} " in shown
        assert "tun type tap" in shown
    assert f"{lab.prefix}-node1" not in network.namespaces(lab.prefix)


def test_init_is_a_shell_script() -> None:
    subprocess.run(["sh", "-n", machines._INIT], check=True)
