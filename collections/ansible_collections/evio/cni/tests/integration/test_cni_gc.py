# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GC takes what nobody knows any more, and nothing that lives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .cni_runtime import NewPod, Node, PluginFailedError, Pod, own_ipam
from .ovs_daemons import network_namespace

pytestmark = pytest.mark.root


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"cniVersion": "1.1.0"}


def collect(node: Node, *pods: Pod, **changes: Any) -> None:
    valid = [{"containerID": pod.container_id, "ifname": "eth0"} for pod in pods]
    node.call("GC", **{"cni.dev/valid-attachments": valid} | changes)


def test_gc_keeps_valid_attachments(node: Node, new_pod: NewPod) -> None:
    one, other = node.add(new_pod()), node.add(new_pod())
    before = node.leftovers()
    collect(node, one, other)
    assert node.leftovers() == before


def test_gc_removes_dead_attachments(node: Node, new_pod: NewPod) -> None:
    kept = node.add(new_pod())
    before = node.leftovers()
    node.add_and_lose()
    collect(node, kept)
    assert node.leftovers() == before
    assert kept.pings("10.244.3.1")


def test_gc_keeps_a_running_pod_that_the_list_lacks(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    before = node.leftovers()
    collect(node)
    assert node.leftovers() == before
    assert pod.pings("10.244.3.1")


def test_gc_with_an_empty_list_removes_all_dead_attachments(node: Node) -> None:
    node.add_and_lose()
    collect(node)
    assert node.leftovers() == {}


@pytest.mark.parametrize("trace", ["journal", "reservation", "port"])
def test_gc_finds_an_attachment_by_any_single_trace(node: Node, trace: str) -> None:
    pod = node.add_and_lose()
    if trace != "journal":
        (node.directory / f"state/evio/{pod.container_id}:eth0").unlink()
    if trace != "reservation":
        (node.directory / "ipam/evio" / pod.address).unlink()
    if trace != "port":
        node.switch.vsctl("del-port", node.ports()[0])
    collect(node)
    assert node.leftovers() == {}


def test_gc_ignores_foreign_files_and_ports(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    for name in (":eth0", "-x:eth0", "a:b:c", "README"):
        (node.directory / "state/evio" / name).write_text("{}")
    (node.directory / "ipam/evio/10.244.3.9").write_text("../../up\nnot an interface")
    collect(node)
    node.delete(pod)
    assert node.dead_flows() != []
    collect(node)
    assert node.flows() == []


@pytest.mark.parametrize("entry", [{"containerID": 5, "ifname": "eth0"}, {"containerID": "a"}, "a", ["a", "eth0"]])
def test_malformed_list_of_valid_attachments_is_an_error(node: Node, entry: Any) -> None:
    node.add_and_lose()
    before = node.leftovers()
    with pytest.raises(PluginFailedError, match="each entry has a containerID and an ifname") as raised:
        node.call("GC", **{"cni.dev/valid-attachments": [entry]})
    assert raised.value.code == 7
    assert node.leftovers() == before


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


def test_gc_continues_and_reports_when_ovs_is_down(node: Node) -> None:
    node.add_and_lose()
    node.switch.stop()
    with pytest.raises(PluginFailedError, match="not everything could be collected") as raised:
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


def test_ipam_plugin_that_knows_gc_is_told_which_attachments_are_valid(node: Node) -> None:
    valid = [{"containerID": "one", "ifname": "eth0"}]
    with own_ipam(node, "", status=0) as calls:
        node.call("GC", **{"CNI_PATH": str(calls.parent), "cni.dev/valid-attachments": valid})
        assert calls.read_text().split() == ["GC"]
        assert json.loads((calls.parent / "stdin").read_text())["cni.dev/valid-attachments"] == valid


def test_failure_of_the_ipam_plugin_does_not_stop_the_collection(node: Node) -> None:
    pod = node.add_and_lose()
    port = pod.result["interfaces"][1]["name"]
    with own_ipam(node, '{"cniVersion":"1.1.0","code":100,"msg":"the pool is closed"}', status=1) as calls:
        with pytest.raises(PluginFailedError, match="not everything could be collected") as raised:
            collect(node, CNI_PATH=str(calls.parent))
        assert "the pool is closed" in raised.value.answer["details"]
        assert calls.read_text().split() == ["DEL", "GC"]
    assert port not in node.ports()
    assert node.veths() == []
