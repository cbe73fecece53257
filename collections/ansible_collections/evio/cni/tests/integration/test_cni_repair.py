# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Running pods come back without being started anew, whatever was taken from under them."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .cni_runtime import PLUGIN, Node, PluginFailedError, Pod
from .ovs_daemons import OpenVSwitch, in_namespace, network_namespace

pytestmark = pytest.mark.root

NewPod = Callable[[], Pod]


@pytest.fixture
def node(ovs: OpenVSwitch, tmp_path: Path) -> Node:
    node = Node(ovs, tmp_path)
    conf_dir = tmp_path / "net.d"
    conf_dir.mkdir()
    entry = {key: value for key, value in node.conf.items() if key not in ("name", "cniVersion")}
    conflist = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "evio", "plugins": [entry]}
    (conf_dir / "10-evio.conflist").write_text(json.dumps(conflist))
    return node


@pytest.fixture
def new_pod() -> Iterator[NewPod]:
    with contextlib.ExitStack() as stack:
        yield lambda: Pod(stack.enter_context(network_namespace("evt-")))


def evio(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The operator's tool in the node's namespace."""
    command, *rest = arguments
    program = [str(PLUGIN), command, "--conf-dir", str(node.directory / "net.d"), *rest]
    return in_namespace(node.switch.netns, *program, check=False)


def repair(node: Node) -> dict[str, Any]:
    done = evio(node, "repair", "--json")
    assert done.returncode == 0, done.stderr
    [result] = json.loads(done.stdout)
    return dict(result)


def damage_bridge(node: Node) -> None:
    node.switch.vsctl("del-br", "br-evio")
    node.switch.vsctl("add-br", "br-evio", "--", "set", "Bridge", "br-evio", "datapath_type=netdev")


def damage_database(node: Node) -> None:
    node.switch.stop()
    node.switch.empty_database()
    node.switch.start()


def damage_rules(node: Node) -> None:
    in_namespace(node.switch.netns, "nft", "flush", "ruleset")


def damage_gateway(node: Node) -> None:
    in_namespace(node.switch.netns, "ip", "address", "flush", "dev", "br-evio")


def damage_veths(node: Node) -> None:
    for name in node.veths():
        in_namespace(node.switch.netns, "ip", "link", "set", name, "down")


def damage_port(node: Node) -> None:
    node.switch.vsctl("del-port", node.ports()[0])


DAMAGES = [damage_bridge, damage_database, damage_rules, damage_gateway, damage_veths, damage_port]


@pytest.mark.parametrize("damage", DAMAGES)
def test_pods_come_back(node: Node, new_pod: NewPod, damage: Callable[[Node], None]) -> None:
    one, other = node.add(new_pod()), node.add(new_pod())
    damage(node)
    repair(node)
    assert one.pings(other.address)
    assert one.pings("10.244.3.1")
    for pod in (one, other):
        assert node.call("CHECK", pod, prevResult=pod.result) == {}


def test_repair_of_what_is_in_order_changes_nothing(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    before = node.switch.vsctl("get", "Open_vSwitch", ".", "next_cfg")
    assert repair(node) == {
        "network": "evio",
        "bridge": [],
        "rules": False,
        "plugged": [],
        "raised": [],
        "guarded": [],
        "removed": [],
        "failures": [],
    }
    assert node.switch.vsctl("get", "Open_vSwitch", ".", "next_cfg") == before


def test_vswitchd_that_was_killed_takes_its_ports_up_again(node: Node, new_pod: NewPod) -> None:
    one, other = node.add(new_pod()), node.add(new_pod())
    node.switch.kill_vswitchd()
    node.switch.start_vswitchd()
    repair(node)
    assert one.pings(other.address)


def test_pod_whose_address_another_has_by_now_stays_unplugged(node: Node, new_pod: NewPod) -> None:
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.3"}]]
    halfway, kept = node.add(new_pod()), node.add(new_pod())
    # As far as a DEL that was killed: port and reservation are gone, the veth is not.
    node.switch.vsctl("del-port", halfway.result["interfaces"][1]["name"])
    (node.directory / "ipam/evio" / halfway.address).unlink()
    heir = node.add(new_pod())
    assert heir.address == halfway.address
    damage_port(node)
    done = evio(node, "repair", "--json")
    assert done.returncode == 1
    [result] = json.loads(done.stdout)
    [failure] = result["failures"]
    assert f"{heir.address} has been given to {heir.container_id}" in failure
    assert halfway.result["interfaces"][1]["name"] not in node.ports()
    assert kept.pings(heir.address)


def test_unfinished_delete_is_finished(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.stop()
    node.delete(pod)
    node.switch.start()
    assert repair(node)["removed"] == [f"{pod.container_id} eth0"]
    assert node.leftovers() == {}


def test_what_an_earlier_boot_left_is_removed(node: Node) -> None:
    pod = node.add_and_lose()
    entry = node.directory / f"state/evio/{pod.container_id}:eth0"
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "boot": "another"}))
    repair(node)
    assert node.leftovers() == {}


def test_entry_that_a_crash_of_the_host_has_emptied_does_not_stop_the_rest(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    lost = node.add_and_lose()
    (node.directory / f"state/evio/{lost.container_id}:eth0").write_text("")
    node.switch.vsctl("del-br", "br-evio")
    assert repair(node)["removed"] == [f"{lost.container_id} eth0"]
    assert pod.pings("10.244.3.1")


def test_add_at_work_is_not_taken_for_a_leftover(node: Node) -> None:
    node.add_and_lose()
    before = node.leftovers()
    assert repair(node)["removed"] == []
    assert evio(node, "gc").returncode == 0
    assert node.leftovers() == before


def test_same_container_can_be_added_after_an_unfinished_delete(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.stop()
    node.delete(pod)
    node.switch.start()
    assert node.add(pod).pings("10.244.3.1")


def test_repair_that_cannot_says_so(node: Node) -> None:
    node.switch.stop()
    done = evio(node, "repair")
    assert done.returncode == 1
    assert "is ovsdb-server running" in done.stderr
    assert "Traceback" not in done.stderr


def test_explanation_names_the_broken_link(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    whole = evio(node, "explain", pod.address)
    assert whole.returncode == 0
    assert "BROKEN" not in whole.stdout
    damage_port(node)
    broken = evio(node, "explain", pod.container_id[:12])
    assert broken.returncode == 1
    [line] = [line for line in broken.stdout.splitlines() if line.startswith("BROKEN")]
    assert "is no port of br-evio" in line
    assert line.endswith("-> evio repair")
    damage_gateway(node)
    links = {one["link"]: one["holds"] for one in json.loads(evio(node, "explain", pod.address, "--json").stdout)}
    assert links == {
        "attachment": True,
        "pod": True,
        "host's end": True,
        "port": False,
        "bridge": False,
        "masquerade": True,
        "host ends": True,
    }


def test_unknown_pod_is_named(node: Node) -> None:
    done = evio(node, "explain", "10.9.9.9")
    assert done.returncode == 1
    assert "10.9.9.9" in done.stderr


def test_status_for_people_and_machines(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    words = evio(node, "status")
    assert words.returncode == 0
    assert "network evio: ready for pods" in words.stdout
    assert pod.address in words.stdout
    [state] = json.loads(evio(node, "status", "--json").stdout)
    assert (state["verdict"], state["reserved"], state["epoch"]) == (None, 1, 7)
    assert state["pods"][0]["state"] == "plugged in"
    node.switch.kill_vswitchd()
    down = evio(node, "status")
    assert down.returncode == 1
    assert "is ovs-vswitchd running" in down.stdout


def test_node_without_a_network_is_told_so(node: Node, tmp_path: Path) -> None:
    done = in_namespace(node.switch.netns, str(PLUGIN), "status", "--conf-dir", str(tmp_path / "none"), check=False)
    assert done.returncode == 1
    assert "has an entry of type evio" in done.stderr


def test_second_add_is_still_refused(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    with pytest.raises(PluginFailedError, match="has eth0 already"):
        node.call("ADD", pod)
