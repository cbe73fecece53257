# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""STATUS says what an ADD would meet, in milliseconds, and GC takes what nobody knows and nothing that lives."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .cni_runtime import Node, PluginFailedError, Pod, library
from .ovs_daemons import OpenVSwitch, network_namespace

pytestmark = pytest.mark.root

NewPod = Callable[[], Pod]


@pytest.fixture
def node(ovs: OpenVSwitch, tmp_path: Path) -> Node:
    return Node(ovs, tmp_path, cniVersion="1.1.0")


@pytest.fixture
def new_pod() -> Iterator[NewPod]:
    with contextlib.ExitStack() as stack:
        yield lambda: Pod(stack.enter_context(network_namespace("evt-")))


def collect(node: Node, *pods: Pod, **changes: Any) -> None:
    valid = [{"containerID": pod.container_id, "ifname": "eth0"} for pod in pods]
    node.call("GC", **{"cni.dev/valid-attachments": valid} | changes)


def test_all_is_well_before_the_first_pod_and_after(node: Node, new_pod: NewPod) -> None:
    assert node.call("STATUS") == {}
    node.add(new_pod())
    assert node.call("STATUS") == {}


def test_switch_that_does_not_answer(node: Node) -> None:
    node.switch.kill_server()
    with pytest.raises(PluginFailedError, match="is ovsdb-server running") as raised:
        node.call("STATUS")
    assert raised.value.code == 50


def test_switch_without_its_daemon(node: Node) -> None:
    node.switch.kill_vswitchd()
    with pytest.raises(PluginFailedError, match="is ovs-vswitchd running") as raised:
        node.call("STATUS")
    assert raised.value.code == 50
    node.switch.start_vswitchd()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(PluginFailedError):
            node.call("STATUS")
            return
    node.call("STATUS")


def test_missing_ipam_plugin(node: Node) -> None:
    with pytest.raises(PluginFailedError, match="host-local") as raised:
        node.call("STATUS", CNI_PATH="/nowhere")
    assert raised.value.code == 50


def test_last_address_given_out(node: Node, new_pod: NewPod) -> None:
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.1", "rangeEnd": "10.244.3.3"}]]
    node.add(new_pod())
    assert node.call("STATUS") == {}
    pod = node.add(new_pod())
    with pytest.raises(PluginFailedError, match=r"no address of 10\.244\.3\.0/24 is left: 2 are reserved") as raised:
        node.call("STATUS")
    assert raised.value.code == 50
    node.delete(pod)
    assert node.call("STATUS") == {}


def overlay_says(node: Node, text: str) -> None:
    """Let the plugin find this in the place where the overlay's agent writes, which is the whole host's."""
    state = node.directory / "overlay.json"
    state.write_text(text)
    launcher = (
        f"import sys; sys.path.insert(0, {library()!r}); from evio_cni import paths;"
        f"paths.OVERLAY_STATE = {str(state)!r}; from evio_program.main import main; main()"
    )
    node.program = ["/usr/bin/python3", "-ISE", "-c", launcher]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"fault": "evio0 is gone", "age": 0}, r"the overlay is down: evio0 is gone"),
        ({"fault": None, "age": 60}, r"the overlay's agent has said nothing for 6\d s"),
    ],
)
def test_overlay_that_is_down_limits_pods_but_takes_new_ones(
    node: Node, new_pod: NewPod, state: dict[str, Any], words: str
) -> None:
    overlay_says(node, json.dumps({"fault": state["fault"], "updated": time.time() - state["age"], "peers": []}))
    with pytest.raises(PluginFailedError, match=words) as raised:
        node.call("STATUS")
    assert raised.value.code == 51
    assert node.add(new_pod()).pings("10.244.3.1")


def test_switch_that_is_down_is_told_before_the_overlay(node: Node) -> None:
    overlay_says(node, json.dumps({"fault": "evio0 is gone", "updated": time.time()}))
    node.switch.kill_server()
    with pytest.raises(PluginFailedError, match="is ovsdb-server running") as raised:
        node.call("STATUS")
    assert raised.value.code == 50


@pytest.mark.parametrize("text", [json.dumps({"fault": None, "updated": time.time() + 60}), "{", "[]", "{}"])
def test_overlay_state_that_says_nothing_against_pods(node: Node, text: str) -> None:
    overlay_says(node, text)
    assert node.call("STATUS") == {}


def test_status_came_with_1_1_0(node: Node) -> None:
    with pytest.raises(PluginFailedError, match="STATUS came with CNI 1"):
        node.call("STATUS", cniVersion="1.0.0")


def test_collection_keeps_what_is_valid(node: Node, new_pod: NewPod) -> None:
    one, other = node.add(new_pod()), node.add(new_pod())
    before = node.leftovers()
    collect(node, one, other)
    assert node.leftovers() == before


def test_collection_takes_pods_that_are_gone(node: Node, new_pod: NewPod) -> None:
    kept = node.add(new_pod())
    before = node.leftovers()
    node.add_and_lose()
    collect(node, kept)
    assert node.leftovers() == before
    assert kept.pings("10.244.3.1")


def test_live_pod_that_the_list_does_not_know_yet_is_kept(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    before = node.leftovers()
    collect(node)
    assert node.leftovers() == before
    assert pod.pings("10.244.3.1")


def test_empty_list_collects_all_that_is_dead(node: Node) -> None:
    node.add_and_lose()
    collect(node)
    assert node.leftovers() == {}


@pytest.mark.parametrize("trace", ["journal", "reservation", "port"])
def test_any_single_trace_is_enough(node: Node, trace: str) -> None:
    pod = node.add_and_lose()
    if trace != "journal":
        (node.directory / f"state/evio/{pod.container_id}:eth0").unlink()
    if trace != "reservation":
        (node.directory / "ipam/evio" / pod.address).unlink()
    if trace != "port":
        node.switch.vsctl("del-port", node.ports()[0])
    collect(node)
    assert node.leftovers() == {}


def test_other_networks_and_foreign_ports_are_not_collected(node: Node, new_pod: NewPod) -> None:
    with network_namespace("evt-") as name:
        other = Node(node.switch, node.directory, cniVersion="1.1.0", name="other")
        other.add(Pod(name))
    node.switch.vsctl(
        "add-port", "br-evio", "tun0", "--", "set", "Interface", "tun0", "type=vxlan", "options:remote_ip=127.0.0.1"
    )
    before = sorted(node.ports())
    collect(node)
    assert sorted(node.ports()) == before
    assert (node.directory / "ipam/other/10.244.3.2").exists()


def test_missing_list_is_an_error_and_collects_nothing(node: Node) -> None:
    node.add_and_lose()
    before = node.leftovers()
    with pytest.raises(PluginFailedError, match=r"cni\.dev/valid-attachments is not in the configuration"):
        node.call("GC")
    assert node.leftovers() == before


def test_collection_goes_on_past_a_switch_that_is_down_and_says_so(node: Node) -> None:
    node.add_and_lose()
    node.switch.stop()
    with pytest.raises(PluginFailedError, match="could not be collected") as raised:
        collect(node)
    assert "is ovsdb-server running" in raised.value.answer["details"]
    assert node.reservations() == []
    node.switch.start()
    collect(node)
    assert node.leftovers() == {}


def test_address_of_a_live_pod_is_never_given_out_again(node: Node, new_pod: NewPod) -> None:
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.4"}]]
    pod = node.add(new_pod())
    for _attempt in range(4):
        other = new_pod()
        node.add(other)
        assert other.address != pod.address
        collect(node)
        node.delete(other)
    assert node.reservations() == [pod.address]
