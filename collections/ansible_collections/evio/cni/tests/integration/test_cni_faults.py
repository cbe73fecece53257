# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ADD and DEL that fail at any of their steps: the next DEL or GC leaves nothing behind, and other pods lose no packet.

fault_launcher puts the faults into the plugin; Open vSwitch, host-local and the kernel are real.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.netconf import NetConf
from ansible_collections.evio.cni.plugins.module_utils.ovs.port_flows import PortFlows

from . import fault_launcher
from .cni_runtime import PLUGIN, Node, PluginFailedError, Pod, library
from .ovs_daemons import OpenVSwitch, network_namespace

pytestmark = pytest.mark.root

Remedy = Callable[[Node, Pod], None]


class FaultyNode(Node):
    """A node whose plugin fails at a given step, and takes ``few_pods`` for few."""

    few_pods = 1000

    def fail(self, command: str, pod: Pod, kind: str = "none", step: int = 0) -> tuple[int, list[str]]:
        """Call the plugin with a fault; return its exit status and the names of the steps that it began."""
        log = self.directory / "steps"
        log.unlink(missing_ok=True)
        arguments = [library(), kind, str(step), str(log), str(self.few_pods)]
        self.program = ["/usr/bin/python3", "-ISE", fault_launcher.__file__, *arguments]
        status = 0
        try:
            self.call(command, pod)
        except PluginFailedError as error:
            status = -signal.SIGKILL if not error.answer else 1
        finally:
            self.program = [str(PLUGIN)]
        return status, log.read_text().splitlines()


@pytest.fixture
def node(ovs: OpenVSwitch, tmp_path: Path) -> FaultyNode:
    return FaultyNode(ovs, tmp_path, cniVersion="1.1.0")


@contextlib.contextmanager
def undisturbed(node: Node) -> Iterator[None]:
    """Assert that two other pods lose no packet between them meanwhile."""
    with network_namespace("evf-") as first, network_namespace("evf-") as second:
        sender, receiver = node.add(Pod(first)), node.add(Pod(second))
        assert sender.pings(receiver.address)
        command = ["nsenter", f"--net={sender.path}", "ping", "-q", "-n", "-i", "0.02", receiver.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ping:
            try:
                yield
            finally:
                ping.send_signal(signal.SIGINT)
                output, _errors = ping.communicate(timeout=10)
        counted = re.search(r"(\d+) packets transmitted, (\d+) received", output)
        assert counted is not None, output
        assert int(counted[1]) > 10
        # The last reply may have been on its way when ping was interrupted.
        assert int(counted[2]) >= int(counted[1]) - 1, output


def leftovers(node: Node) -> dict[str, Sequence[str]]:
    return {**node.leftovers(), "flows": sorted(set(node.flows()) - set(node.dead_flows()))}


def delete(node: Node, pod: Pod) -> None:
    """DEL as containerd repeats it: with neither the result of ADD nor the namespace."""
    node.call("DEL", pod, CNI_NETNS="")
    remembered = node.switch.vsctl("get", "Bridge", "br-evio", "external_ids")
    for flow in node.forgotten_flows():
        number = flow.partition("in_port=")[2].split()[0].split(",")[0]
        assert f"evio-closed-{number}=" in remembered, (flow, node.flows(), node.switch.vsctl("list", "Interface"), pod)


def collect(node: Node, pod: Pod) -> None:
    """GC with a list of all pods but this one."""
    others = {name.partition(":")[0] for name in node.journal()} - {pod.container_id}
    valid = [{"containerID": container_id, "ifname": "eth0"} for container_id in sorted(others)]
    node.call("GC", **{"cni.dev/valid-attachments": valid})
    assert node.forgotten_flows() == []


@pytest.mark.parametrize("remedy", [delete, collect])
@pytest.mark.parametrize("kind", fault_launcher.KINDS)
def test_add_that_fails_at_any_step_leaves_nothing(node: FaultyNode, kind: str, remedy: Remedy) -> None:
    with undisturbed(node):
        before = leftovers(node)
        if remedy is delete:
            # A DEL leaves its flows to the next ADD. After this DEL every ADD has a step more, which deletes them.
            _steps(node, "DEL")
        steps = _steps(node, "ADD")
        for number, name in enumerate(steps, start=1):
            with network_namespace("evf-") as netns:
                pod = Pod(netns)
                status, begun = node.fail("ADD", pod, kind, number)
                assert begun[number - 1] == name
                assert status == (-signal.SIGKILL if kind == "kill" else 1), (number, name)
                if kind not in ("kill", "outage"):
                    assert leftovers(node) == before, f"after the failed ADD itself, step {number}, {name}"
                if number < len(steps) or kind != "kill":
                    remedy(node, pod)
                    assert leftovers(node) == before, f"step {number}, {name}"
            if number == len(steps) and kind == "kill":
                # Killed after the last step: for GC the pod is alive until its namespace is gone.
                node.await_loss(pod)
                remedy(node, pod)
                assert leftovers(node) == before, f"step {number}, {name}"


@pytest.mark.parametrize("kind", ["refusal", "kill"])
def test_add_among_many_pods_that_fails_at_any_step_leaves_nothing(node: FaultyNode, kind: str) -> None:
    # The port is requested before the device exists. vswitchd may look for it too early, which is a step more in some
    # of the calls. So each call tells by itself whether it had as many steps.
    node.few_pods = -1
    with undisturbed(node):
        before = leftovers(node)
        _steps(node, "DEL")
        for number in itertools.count(1):
            with network_namespace("evf-") as netns:
                pod = Pod(netns)
                status, begun = node.fail("ADD", pod, kind, number)
                # A refused ADD takes steps back as well.
                has_failed = len(begun) >= number
                assert status == ((-signal.SIGKILL if kind == "kill" else 1) if has_failed else 0), begun
                if has_failed and kind != "kill":
                    assert leftovers(node) == before, f"after the failed ADD itself, {begun}"
                delete(node, pod)
                assert leftovers(node) == before, begun
            if not has_failed:
                break


@pytest.mark.parametrize("remedy", [delete, collect])
@pytest.mark.parametrize("kind", fault_launcher.KINDS)
def test_del_that_fails_at_any_step_is_finished_by_the_next_del_or_gc(
    node: FaultyNode, kind: str, remedy: Remedy
) -> None:
    with undisturbed(node):
        before = leftovers(node)
        steps = _steps(node, "DEL")
        for number, name in enumerate(steps, start=1):
            with network_namespace("evf-") as netns:
                pod = node.add(Pod(netns))
                _status, begun = node.fail("DEL", pod, kind, number)
                assert begun[number - 1] == name
            # For GC the pod is alive until the kernel has removed its namespace.
            node.await_loss(pod)
            remedy(node, pod)
            assert leftovers(node) == before, f"step {number}, {name}"


@pytest.mark.parametrize("step", ["evio_cni.kernel.netlink._open", "NetlinkSocket.change"])
def test_del_releases_port_and_address_when_the_kernel_refuses(node: FaultyNode, step: str) -> None:
    """The veth pair is left to the next DEL."""
    steps = _steps(node, "DEL")
    number = next(at for at, name in enumerate(steps, start=1) if name.endswith(step))
    with network_namespace("evf-") as netns:
        pod = node.add(Pod(netns))
        status, _begun = node.fail("DEL", pod, "refusal", number)
        assert (status, node.reservations(), node.ports()) == (1, [], [])
        assert len(node.veths()) == 1
        node.delete(pod)
    assert node.leftovers() == {}


def test_failed_add_goes_on_when_a_busy_bridge_has_carried_out_its_flows(node: FaultyNode) -> None:
    # The next ADD deletes what is left of them. Vswitchd could read that connection first, and the flows would stay.
    with network_namespace("evf-") as netns:
        node.delete(node.add(Pod(netns)))
    number, begun = 0xC123, time.monotonic()
    with node.switch.paused_vswitchd():
        resume = threading.Timer(0.5, node.switch.resume_vswitchd)
        resume.start()
        with contextlib.suppress(RuntimeError), PortFlows(NetConf(node.conf), "evunforeseen") as flows:
            flows.begin("0a:00:00:00:00:01", number)
            raise RuntimeError
        assert time.monotonic() - begun > 0.4
        resume.join()
    assert any(f"in_port={number}" in flow for flow in node.flows())


def _steps(node: FaultyNode, command: str) -> list[str]:
    """Return the names of the steps of a call without a fault."""
    with network_namespace("evf-") as netns:
        pod = Pod(netns)
        added, steps = node.fail("ADD", pod)
        deleted, later = node.fail("DEL", pod)
    assert (added, deleted) == (0, 0)
    return steps if command == "ADD" else later
