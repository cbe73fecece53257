# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ADD and DEL fail at every single step, in every way: the next DEL or GC leaves nothing, and nobody else feels it.

Faults are put in by fault_launcher; the switch, host-local and the kernel are the real ones.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from . import fault_launcher
from .cni_runtime import PLUGIN, Node, PluginFailedError, Pod, library
from .ovs_daemons import OpenVSwitch, network_namespace

pytestmark = pytest.mark.root

Remedy = Callable[[Node, Pod], None]


class FaultyNode(Node):
    """A node whose plugin can be had to fail at a step."""

    def fail(self, command: str, pod: Pod, kind: str = "none", step: int = 0) -> tuple[int, list[str]]:
        """The exit status, and the steps that were begun."""
        log = self.directory / "steps"
        log.unlink(missing_ok=True)
        self.program = ["/usr/bin/python3", "-ISE", fault_launcher.__file__, library(), kind, str(step), str(log)]
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
    """Two other pods, of whose packets not one is lost meanwhile."""
    with network_namespace("evf-") as one, network_namespace("evf-") as other:
        sender, receiver = node.add(Pod(one)), node.add(Pod(other))
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
        # The last may still have been under way when ping was ended.
        assert int(counted[2]) >= int(counted[1]) - 1, output


def leftovers(node: Node) -> dict[str, Sequence[str]]:
    return {**node.leftovers(), "flows": sorted(set(node.flows()) - set(node.dead_flows()))}


def delete(node: Node, pod: Pod) -> None:
    """containerd's second DEL: nothing of ADD's result is known, nor the namespace."""
    node.call("DEL", pod, CNI_NETNS="")
    remembered = node.switch.vsctl("get", "Bridge", "br-evio", "external_ids")
    for flow in node.dead_flows():
        number = flow.partition("in_port=")[2].split()[0].split(",")[0]
        assert f"evio-closed-{number}=" in remembered, flow


def collect(node: Node, pod: Pod) -> None:
    """GC with a list that has every pod but this one."""
    others = {name.partition(":")[0] for name in node.journal()} - {pod.container_id}
    valid = [{"containerID": container_id, "ifname": "eth0"} for container_id in sorted(others)]
    node.call("GC", **{"cni.dev/valid-attachments": valid})
    assert node.dead_flows() == []


@pytest.mark.parametrize("remedy", [delete, collect])
@pytest.mark.parametrize("kind", fault_launcher.KINDS)
def test_add_that_fails_at_any_step_leaves_nothing(node: FaultyNode, kind: str, remedy: Remedy) -> None:
    with undisturbed(node):
        before = leftovers(node)
        if remedy is delete:
            # A DEL leaves flows to the next ADD, a GC does not: from here on each ADD has such a step more.
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
                # All was done but the answer: GC takes such a pod for alive until its namespace goes.
                node.await_loss(pod)
                remedy(node, pod)
                assert leftovers(node) == before, f"step {number}, {name}"


@pytest.mark.parametrize("remedy", [delete, collect])
@pytest.mark.parametrize("kind", fault_launcher.KINDS)
def test_delete_that_fails_at_any_step_is_finished(node: FaultyNode, kind: str, remedy: Remedy) -> None:
    with undisturbed(node):
        before = leftovers(node)
        steps = _steps(node, "DEL")
        for number, name in enumerate(steps, start=1):
            with network_namespace("evf-") as netns:
                pod = node.add(Pod(netns))
                _status, begun = node.fail("DEL", pod, kind, number)
                assert begun[number - 1] == name
            # GC takes a pod for alive until the kernel has taken its namespace apart.
            node.await_loss(pod)
            remedy(node, pod)
            assert leftovers(node) == before, f"step {number}, {name}"


@pytest.mark.parametrize("step", ["evio_cni.kernel.netlink._open", "NetlinkSocket.change"])
def test_delete_gives_back_what_it_can_when_the_kernel_cannot_be_asked(node: FaultyNode, step: str) -> None:
    """The rest is for the next one: an address that stayed meanwhile would be nobody's."""
    steps = _steps(node, "DEL")
    number = next(at for at, name in enumerate(steps, start=1) if name.endswith(step))
    with network_namespace("evf-") as netns:
        pod = node.add(Pod(netns))
        status, _begun = node.fail("DEL", pod, "refusal", number)
        assert (status, node.reservations(), node.ports()) == (1, [], [])
        assert len(node.veths()) == 1
        node.delete(pod)
    assert node.leftovers() == {}


def _steps(node: FaultyNode, command: str) -> list[str]:
    """The names of a call's steps, from one that meets no fault."""
    with network_namespace("evf-") as netns:
        pod = Pod(netns)
        added, steps = node.fail("ADD", pod)
        deleted, later = node.fail("DEL", pod)
    assert (added, deleted) == (0, 0)
    return steps if command == "ADD" else later
