# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Running pods come back without being started anew, whatever was taken from under them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.attachment import Attachment
from ansible_collections.evio.cni.plugins.module_utils.kernel.boot import boot_id
from ansible_collections.evio.cni.plugins.module_utils.state.journal import Journal
from ansible_collections.evio.cni.tests.unit.runtime_double import serve

from .cni_runtime import CNI_PLUGINS, PLUGIN, NewPod, Node, PluginFailedError, Pod, overlay_says, with_paths
from .ovs_daemons import DATAPATH, in_namespace, needs_netdev, needs_system

pytestmark = pytest.mark.root


@pytest.fixture
def node(node: Node) -> Node:
    """The node, with its conflist where the operator's commands find it."""
    node.write_conflist()
    return node


def evio(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The operator's tool in the node's namespace."""
    command, *rest = arguments
    program = [*node.program, command, "--conf-dir", str(node.directory / "net.d"), *rest]
    return in_namespace(node.switch.netns, *program, check=False)


def repair(node: Node) -> dict[str, Any]:
    done = evio(node, "repair", "--json")
    assert done.returncode == 0, done.stderr
    [result] = json.loads(done.stdout)
    return dict(result)


def damage_bridge(node: Node) -> None:
    node.switch.vsctl("del-br", "br-evio")
    node.switch.vsctl("add-br", "br-evio", "--", "set", "Bridge", "br-evio", f"datapath_type={DATAPATH}")


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


def damage_vlan(node: Node) -> None:
    node.switch.vsctl("set", "Port", node.ports()[0], "tag=5")


def damage_flows(node: Node) -> None:
    target = f"unix:{node.switch.directory}/br-evio.mgmt"
    in_namespace(node.switch.netns, "ovs-ofctl", "-O", "OpenFlow13", "del-flows", target)


DAMAGES = [
    damage_bridge,
    damage_database,
    damage_rules,
    damage_gateway,
    damage_veths,
    damage_port,
    damage_vlan,
    damage_flows,
]


def status_errors(node: Node) -> list[tuple[str, str]]:
    """What ``evio status`` calls an error, each with its remedy."""
    told = json.loads(evio(node, "status", "--json", "--cri-socket=").stdout)
    return [(problem["what"], problem["remedy"]) for problem in told["problems"] if problem["severity"] == "error"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_status_names_the_damage_and_repair_restores_pods(
    node: Node, new_pod: NewPod, damage: Callable[[Node], None]
) -> None:
    one, other = node.add(new_pod()), node.add(new_pod())
    assert status_errors(node) == []
    damage(node)
    errors = status_errors(node)
    assert errors
    assert {remedy for _what, remedy in errors} == {"evio repair"}
    repair(node)
    assert status_errors(node) == []
    assert one.pings(other.address)
    assert one.pings("10.244.3.1")
    for pod in (one, other):
        assert node.call("CHECK", pod, prevResult=pod.result) == {}


def test_status_names_rules_that_are_missing_for_pods_alone(node: Node, new_pod: NewPod) -> None:
    """The overlay's agent makes the same table with its own chains: a table says nothing about pods."""
    assert "no rules for pods yet" in evio(node, "status").stdout
    pod = node.add(new_pod())
    assert "the rules for pods are installed" in evio(node, "status").stdout
    damage_rules(node)
    in_namespace(node.switch.netns, "nft", "add table inet evio_cni; add chain inet evio_cni overlay-in")
    [(what, remedy), *others] = status_errors(node)
    assert ("is missing or incomplete" in what, remedy) == (True, "evio repair")
    assert (len(others), "rules for pods are missing" in evio(node, "status").stdout) == (DATAPATH == "netdev", True)
    node.delete(pod)
    assert status_errors(node) == []


def test_pods_of_several_subnets_keep_their_rules(node: Node, new_pod: NewPod) -> None:
    """Without a gateway, the rules name the subnets of the pods: one pod's ADD must leave those of the others."""
    del node.conf["gateway"]
    node.conf.update(isGateway=False, isDefaultGateway=False)
    ranges = [[{"subnet": "10.244.3.0/30"}, {"subnet": "10.244.4.0/24"}]]
    node.conf["ipam"] = {**node.conf["ipam"], "ranges": ranges}
    node.write_conflist()
    pods = [node.add(new_pod()) for _number in range(2)]
    assert [pod.address for pod in pods] == ["10.244.3.2", "10.244.4.2"]
    assert status_errors(node) == []
    damage_rules(node)
    assert len(status_errors(node)) >= 2
    repair(node)
    assert status_errors(node) == []
    node.conf["clusterCIDRs"] = ["10.20.0.0/16"]
    node.write_conflist()
    repair(node)
    rules = in_namespace(node.switch.netns, "nft", "list", "ruleset").stdout
    assert ("10.10.0.0/16" in rules, rules.count("chain net-"), status_errors(node)) == (False, 2, [])


def test_repair_deletes_the_rules_of_subnets_without_pods(node: Node, new_pod: NewPod) -> None:
    """Without a gateway each subnet has a chain of its own; it is kept while an ADD may have made it."""
    del node.conf["gateway"]
    node.conf.update(isGateway=False, isDefaultGateway=False)
    node.conf["ipam"] = {**node.conf["ipam"], "ranges": [[{"subnet": "10.244.3.0/30"}, {"subnet": "10.244.4.0/24"}]]}
    node.write_conflist()
    pods = [node.add(new_pod()) for _number in range(2)]
    node.delete(pods[1])
    # As an ADD has it that runs or was killed.
    begun = Attachment(str(node.conf["name"]), "f" * 64, "eth0")
    journal = Journal(str(node.directory / "state"))
    journal.begin(begun, {"boot": boot_id()})
    repair(node)
    assert in_namespace(node.switch.netns, "nft", "list", "ruleset").stdout.count("chain net-") == 2
    journal.remove(begun)
    repair(node)
    assert in_namespace(node.switch.netns, "nft", "list", "ruleset").stdout.count("chain net-") == 1
    assert status_errors(node) == []


def test_status_takes_no_add_that_runs_for_a_fault(node: Node, new_pod: NewPod) -> None:
    """ADD sets the host's end up last, and notes the addresses after it."""
    pod = node.add(new_pod())
    damage_veths(node)
    [(what, _remedy)] = status_errors(node)
    assert "the host's end of the interface of 1 pod is down" in what
    entry = node.directory / "state" / Attachment(str(node.conf["name"]), pod.container_id, "eth0").path
    # What it has begun with; the addresses come last.
    entry.write_text(entry.read_text().partition("\n")[0] + "\n")
    assert status_errors(node) == []


def test_status_names_pods_without_port_security(node: Node, new_pod: NewPod) -> None:
    pod, other = node.add(new_pod()), node.add(new_pod())
    target = f"unix:{node.switch.directory}/br-evio.mgmt"
    port = node.switch.vsctl("get", "Interface", pod_port(pod), "ofport").strip()
    in_namespace(node.switch.netns, "ovs-ofctl", "-O", "OpenFlow13", "del-flows", target, f"in_port={port},arp")
    [(what, remedy)] = status_errors(node)
    assert "the port-security flows of 1 pod are missing or incomplete" in what
    assert (pod.container_id[:13] in what, other.container_id[:13] in what, remedy) == (True, False, "evio repair")


def pod_port(pod: Pod) -> str:
    """The name of the pod's host end, as ADD returned it."""
    [name] = [one["name"] for one in pod.result["interfaces"] if one["name"].startswith("evpod")]
    return str(name)


@needs_system
def test_deleted_datapath_of_the_kernel_is_back_with_another_vswitchd(node: Node, new_pod: NewPod) -> None:
    one, other = node.add(new_pod()), node.add(new_pod())
    in_namespace(node.switch.netns, "ovs-dpctl", "del-dp", "system@ovs-system")
    done = evio(node, "repair")
    assert done.returncode == 1
    assert "if the kernel's datapath was deleted, restart ovs-vswitchd" in done.stderr
    node.switch.kill_vswitchd()
    node.switch.start_vswitchd()
    repair(node)
    assert one.pings(other.address)
    assert one.pings("10.244.3.1")


def test_next_add_takes_up_what_a_lost_database_has_left(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    damage_database(node)
    assert node.add(new_pod()).pings("10.244.3.1")


def test_repair_restores_the_normal_flow(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    damage_flows(node)
    done = repair(node)
    assert (done["bridge"], done["guarded"]) == (["steering", "flow"], [f"{pod.container_id} eth0"])
    assert repair(node)["bridge"] == []


def test_flows_of_a_controller_are_left_alone(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.vsctl(
        "set-controller", "br-evio", "tcp:127.0.0.1:1", "--", "set", "Bridge", "br-evio", "fail_mode=secure"
    )
    damage_flows(node)
    assert "flow" not in repair(node)["bridge"]
    assert not pod.pings("10.244.3.1")


def test_foreign_flow_means_that_another_controls_the_bridge(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    damage_flows(node)
    target = f"unix:{node.switch.directory}/br-evio.mgmt"
    in_namespace(node.switch.netns, "ovs-ofctl", "-O", "OpenFlow13", "add-flow", target, "priority=5,arp,actions=drop")
    assert repair(node)["bridge"] == ["steering"]
    assert repair(node)["bridge"] == []


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("{", True),
        ("[]", False),
        ('{"plugins": 5}', False),
        ('{"name": "x", "cniVersion": 5, "plugins": [{"type": "evio", "mtu": "x"}]}', True),
        ('{"name": "x", "cniVersions": 5, "plugins": ["evio"]}', False),
    ],
)
def test_broken_conflist_beside_ours_does_not_stop_repair(
    node: Node, new_pod: NewPod, text: str, is_told: bool
) -> None:
    pod = node.add(new_pod())
    damage_port(node)
    (node.directory / "net.d/05-other.conflist").write_text(text)
    done = evio(node, "repair")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert ("05-other.conflist" in done.stderr) == is_told
    assert pod.pings("10.244.3.1")


def test_conflist_that_is_no_text_is_named_where_it_is_the_only_one(node: Node) -> None:
    (node.directory / "net.d/10-evio.conflist").write_bytes("{}".encode("utf-16"))
    done = evio(node, "repair")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "10-evio.conflist" in done.stderr


_GARBLED: dict[str, Any] = {
    "mac": [None, 5, "x", ""],
    "ips": [5, [5], ["x/y"], "10.244.3.2/24"],
    "netns": [5],
    "host": [5],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in _GARBLED.items() for value in values])
def test_damaged_journal_entry_affects_one_pod_only(node: Node, new_pod: NewPod, key: str, value: Any) -> None:
    garbled, pod = sorted((node.add(new_pod()) for _pod in range(2)), key=lambda one: one.container_id)
    node.note(garbled, **{key: value})
    (node.directory / "state/evio/-junk:eth0").write_text("5")
    for name in node.ports():
        node.switch.vsctl("del-port", name)
    done = evio(node, "repair")
    assert "Traceback" not in done.stderr
    assert pod.pings("10.244.3.1")
    is_fatal = key in ("mac", "ips")
    assert done.returncode == is_fatal
    assert garbled.pings("10.244.3.1") != is_fatal
    assert (f"{garbled.container_id} eth0: the journal entry is damaged" in done.stderr) == is_fatal
    for command in (["status"], ["explain", garbled.container_id], ["gc"]):
        assert "Traceback" not in evio(node, *command).stderr


def test_failures_are_not_said_to_be_in_order(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    assert evio(node, "repair").stdout == "network evio: all in order\n"
    (node.directory / f"state/evio/{pod.container_id}:eth0").write_text("{}")
    done = evio(node, "repair")
    assert (done.returncode, done.stdout) == (1, "network evio: nothing was mended\n")


def test_gc_command_prints_what_it_removed(node: Node) -> None:
    pod = node.add_and_lose()
    assert evio(node, "gc").stdout == "network evio: nothing was removed\n"
    entry = node.directory / f"state/evio/{pod.container_id}:eth0"
    os.utime(entry, (0, 0))
    assert evio(node, "gc").stdout == f"network evio: removed {pod.container_id} eth0\n"
    assert node.leftovers() == {}
    assert json.loads(evio(node, "gc", "--json").stdout) == [{"network": "evio", "removed": [], "failures": []}]


def test_repairs_that_are_started_at_once_do_the_work_once(node: Node, new_pod: NewPod) -> None:
    pods = [node.add(new_pod()) for _place in range(4)]
    damage_bridge(node)
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda _place: evio(node, "repair", "--json"), range(4)))
    assert [one.returncode for one in done] == [0] * 4, [one.stderr for one in done]
    plugged = [pod for one in done for pod in json.loads(one.stdout)[0]["plugged"]]
    assert sorted(plugged) == sorted(f"{pod.container_id} eth0" for pod in pods)
    assert all(pod.pings("10.244.3.1") for pod in pods)


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
    assert f"{heir.address} is reserved for {heir.container_id}" in failure
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
    node.note(pod, boot="another")
    repair(node)
    assert node.leftovers() == {}


def test_empty_journal_entry_does_not_stop_other_repairs(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    lost = node.add_and_lose()
    (node.directory / f"state/evio/{lost.container_id}:eth0").write_text("")
    node.switch.vsctl("del-br", "br-evio")
    assert repair(node)["removed"] == [f"{lost.container_id} eth0"]
    assert pod.pings("10.244.3.1")


def test_running_add_is_not_treated_as_a_dead_attachment(node: Node) -> None:
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
    node.add(pod)
    # A vswitchd that was just started forwards nothing before this, which evio-flows.path starts at once.
    repair(node)
    assert pod.pings("10.244.3.1")


def test_failed_repair_is_reported(node: Node) -> None:
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
    assert "is not a port of the bridge br-evio" in line
    assert line.endswith("-> evio repair")
    damage_gateway(node)
    links = {one["link"]: one["holds"] for one in json.loads(evio(node, "explain", pod.address, "--json").stdout)}
    assert links == {
        "attachment": True,
        "reservation": True,
        "pod": True,
        "host's end": True,
        "port": False,
        "bridge": False,
        "masquerade": True,
        "host ends": True,
    }


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (["ip", "route", "del", "default"], "the pod has lost its route to 0.0.0.0/0"),
        (["ip", "address", "flush", "dev", "eth0"], "eth0 has lost its address 10.244.3.2/24"),
        (["ip", "link", "set", "eth0", "mtu", "9000"], "eth0 has an MTU of 9000 bytes, its host end has 1420"),
        (["ip", "link", "set", "eth0", "address", "02:00:00:00:00:77"], "eth0 has the MAC 02:00:00:00:00:77"),
        pytest.param(
            ["ethtool", "-K", "eth0", "tx", "on"], "eth0 leaves its checksums to a datapath", marks=needs_netdev
        ),
    ],
)
def test_explanation_names_what_is_wrong_inside_the_pod(
    node: Node, new_pod: NewPod, damage: list[str], words: str
) -> None:
    pod = node.add(new_pod())
    assert evio(node, "explain", pod.container_id).returncode == 0
    pod.run(*damage)
    assert words in broken_link(node, pod, "pod")


@pytest.mark.parametrize(
    ("link", "damage", "words"),
    [
        ("port", damage_vlan, "has been put into VLAN 5  -> evio repair"),
        ("bridge", damage_flows, "has lost its NORMAL flow and forwards nothing  -> evio repair"),
    ],
)
def test_explanation_names_what_is_wrong_on_the_switch(
    node: Node, new_pod: NewPod, link: str, damage: Callable[[Node], None], words: str
) -> None:
    pod = node.add(new_pod())
    damage(node)
    assert words in broken_link(node, pod, link)
    repair(node)
    assert evio(node, "explain", pod.container_id).returncode == 0


def test_explanation_names_a_reservation_that_is_gone(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    reservation = node.directory / "ipam/evio" / pod.address
    reservation.write_text("another\neth0")
    assert f"{pod.address} is reserved for another" in broken_link(node, pod, "reservation")
    reservation.unlink()
    assert f"{pod.address} is reserved for nobody" in broken_link(node, pod, "reservation")


def test_explanation_names_a_lost_claim_on_the_pod_subnet(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    (node.directory / "state/.fence").write_text("etcd has no claim of it\n")
    words = "claim on its pod subnet is lost: etcd has no claim of it"
    assert words in broken_link(node, pod, "attachment")


def test_explanation_knows_the_routes_that_host_local_gives(node: Node, new_pod: NewPod) -> None:
    node.conf["ipam"]["routes"] = [{"dst": "192.0.2.0/24"}]
    conflist = node.directory / "net.d/10-evio.conflist"
    entry = {**node.conf, "cniVersion": None, "name": None}
    conflist.write_text(json.dumps({"cniVersion": "1.0.0", "name": "evio", "plugins": [entry]}))
    pod = node.add(new_pod())
    assert evio(node, "explain", pod.container_id).returncode == 0
    pod.run("ip", "route", "del", "192.0.2.0/24")
    assert "the pod has lost its route to 192.0.2.0/24" in broken_link(node, pod, "pod")


def broken_link(node: Node, pod: Pod, link: str) -> str:
    """What ``evio explain`` says of it."""
    done = evio(node, "explain", pod.container_id)
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if line.startswith(f"BROKEN  {link} ")]
    return line


def test_explanation_ends_with_the_tunnel(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    peers = [
        {"name": name, "address": "10.10.0.2", "path": path, "rtt_ms": None, "endpoint": None}
        for name, path in (("node2", "direct"), ("node3", None))
    ]
    state = {"node": "node1", "interface": "evio0", "device": "kernel", "updated": time.time(), "peers": peers}
    overlay_says(node, json.dumps(state))
    done = evio(node, "explain", pod.container_id)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "ok      tunnel      evio0 reaches 1 of 2 nodes, not node3"
    overlay_says(node, json.dumps({**state, "fault": "evio0 is gone"}))
    assert "the overlay is down: evio0 is gone" in broken_link(node, pod, "tunnel")
    overlay_says(node, json.dumps({**state, "updated": time.time() - 60}))
    assert "the overlay's agent has said nothing for 6" in broken_link(node, pod, "tunnel")


def test_pod_is_explained_by_its_namespace_and_name(node: Node, new_pod: NewPod, tmp_path: Path) -> None:
    pod = node.add(new_pod())
    with serve(tmp_path / "cri.sock") as (runtime, socket):
        runtime.runs(pod.container_id, "shop", "web-0")
        runtime.runs("f" * 64, "shop", "web-0")
        runtime.runs("e" * 64, "shop", "proxy")
        by_name = evio(node, "explain", "--cri-socket", socket, "shop/web-0")
        assert by_name.stdout == evio(node, "explain", pod.container_id).stdout
        for name, words in (
            ("shop/web-1", "no pod shop/web-1; look at: journalctl -t evio K8S_POD_NAMESPACE=shop K8S_POD_NAME=web-1"),
            ("shop/proxy", "shop/proxy has no attachment to a network of evio.cni"),
        ):
            unknown = evio(node, "explain", "--cri-socket", socket, name)
            assert (unknown.returncode, unknown.stdout) == (1, "")
            assert words in unknown.stderr
    gone = evio(node, "explain", "--cri-socket", socket, "shop/web-0")
    assert f"the container runtime at {socket} does not answer" in gone.stderr


def test_repair_and_gc_tell_the_names_of_pods(node: Node, new_pod: NewPod, tmp_path: Path) -> None:
    pod = node.add(new_pod())
    damage_port(node)
    with serve(tmp_path / "cri.sock") as (runtime, socket):
        runtime.runs(pod.container_id, "shop", "web-0")
        repaired = evio(node, "repair", "--cri-socket", socket).stdout
        assert f"added the port of shop/web-0 {pod.container_id} eth0 to the bridge" in repaired
        for name, shown in (("web-1", "shop/web-1 "), ("web-2\nnetwork forged: all in order", "")):
            lost = node.add_and_lose()
            os.utime(node.directory / f"state/evio/{lost.container_id}:eth0", (0, 0))
            runtime.runs(lost.container_id, "shop", name)
            collected = evio(node, "gc", "--cri-socket", socket).stdout
            assert collected == f"network evio: removed {shown}{lost.container_id} eth0\n"
    damage_port(node)
    without = evio(node, "repair", "--cri-socket", str(tmp_path / "none.sock"))
    assert (without.returncode, "shop/web-0" in without.stdout) == (0, False)
    assert f"added the port of {pod.container_id} eth0" in without.stdout


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
    [state] = json.loads(evio(node, "status", "--json").stdout)["networks"]
    assert (state["verdict"], state["reserved"], state["epoch"]) == (None, 1, 7)
    assert state["pods"][0]["state"] == "plugged in"
    node.switch.kill_vswitchd()
    down = evio(node, "status")
    assert down.returncode == 1
    assert "is ovs-vswitchd running" in down.stdout
    assert "plugged in" not in down.stdout
    assert "not served" in down.stdout


def test_commands_name_a_node_without_a_network(node: Node, tmp_path: Path) -> None:
    done = in_namespace(node.switch.netns, str(PLUGIN), "status", "--conf-dir", str(tmp_path / "none"), check=False)
    assert done.returncode == 1
    assert "has an entry of type evio" in done.stderr


def test_second_add_is_still_refused(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    with pytest.raises(PluginFailedError, match="has eth0 already"):
        node.call("ADD", pod)


def test_lost_reservations_are_told_and_restored(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    (node.directory / f"ipam/evio/{pod.address}").unlink()
    [status] = json.loads(evio(node, "status", "--json").stdout)["networks"]
    assert [one["state"] for one in status["pods"]] == ["not reserved"]
    assert repair(node)["reserved"] == [pod.address]
    node.call("CHECK", pod, prevResult=pod.result)
    assert "reserved" not in repair(node)
    assert node.add(new_pod()).address != pod.address
    node.delete(pod)
    assert pod.address not in node.reservations()


def test_wiped_files_of_ipam_are_told_in_words_and_restored(node: Node, new_pod: NewPod) -> None:
    """As by ``kubeadm reset``, which empties /var/lib/cni under running pods."""
    pods = [node.add(new_pod()) for _number in range(2)]
    shutil.rmtree(node.directory / "ipam")
    told = evio(node, "status").stdout
    assert "0 reserved; those of 2 running pods are not, evio repair reserves them again" in told
    assert [line.split()[-2:] for line in told.splitlines() if "eth0" in line] == [["not", "reserved"]] * 2
    done = evio(node, "repair")
    assert done.returncode == 0
    assert all(f"reserved {pod.address} again" in done.stdout for pod in pods)
    assert "2 reserved\n" in evio(node, "status").stdout
    assert evio(node, "repair").stdout == "network evio: all in order\n"
    assert node.add(new_pod()).address not in [pod.address for pod in pods]


# Plugins after ours


def test_mac_that_tuning_has_given_the_pod_is_told_and_repaired(node: Node, new_pod: NewPod) -> None:
    results = node.directory / "results"
    results.mkdir()
    with_paths(node, CNI_RESULTS=str(results))
    pod = node.add(new_pod())
    tuned = tune(node, pod, "02:11:22:33:44:55")
    (results / f"evio-{pod.container_id}-eth0").write_text(json.dumps({"kind": "cniCacheV1", "result": tuned}))
    assert not pod.pings("10.244.3.1")
    with pytest.raises(PluginFailedError, match=r"02:11:22:33:44:55; to mend it: evio repair"):
        node.call("CHECK", pod, prevResult=tuned)
    assert "02:11:22:33:44:55  -> evio repair" in evio(node, "explain", pod.container_id).stdout
    assert repair(node)["guarded"] == [f"{pod.container_id} eth0"]
    # The gateway asks for the pod's new MAC when its old entry has become stale.
    assert any(pod.pings("10.244.3.1") for _attempt in range(8))
    node.call("CHECK", pod, prevResult=tuned)
    assert repair(node)["guarded"] == []
    # The journal has it too: libcni's cache may get lost.
    (results / f"evio-{pod.container_id}-eth0").unlink()
    assert repair(node)["guarded"] == []
    node.delete(pod)
    assert node.leftovers() == {}


def test_mac_that_a_pod_gives_itself_is_not_let_in(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    pod.run("ip", "link", "set", "eth0", "address", "02:11:22:33:44:55")
    assert repair(node)["guarded"] == []
    assert not pod.pings("10.244.3.1")
    assert "has the MAC 02:11:22:33:44:55" in evio(node, "explain", pod.container_id).stdout


def tune(node: Node, pod: Pod, mac: str) -> dict[str, Any]:
    """Run the plugin tuning after ours, and return its result."""
    conf = {"cniVersion": "1.0.0", "name": "evio", "type": "tuning", "mac": mac, "prevResult": pod.result}
    environment = {"CNI_COMMAND": "ADD", "CNI_PATH": CNI_PLUGINS, "CNI_CONTAINERID": pod.container_id}
    environment |= {"CNI_NETNS": pod.path, "CNI_IFNAME": "eth0", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [f"{CNI_PLUGINS}/tuning"], input=json.dumps(conf), env=environment, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))
