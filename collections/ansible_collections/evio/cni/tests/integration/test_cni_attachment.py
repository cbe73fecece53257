# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plugin as a runtime sees it, on a real Open vSwitch with real host-local: pods talk, and nothing stays behind."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .cni_runtime import NewPod, Node, PluginFailedError, Pod
from .ovs_daemons import in_namespace

pytestmark = pytest.mark.root


def test_pod_gets_what_the_result_says(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    bridge, host, container = pod.result["interfaces"]
    assert pod.result["cniVersion"] == "1.0.0"
    assert pod.result["ips"] == [{"interface": 2, "address": "10.244.3.2/24", "gateway": "10.244.3.1"}]
    assert pod.result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.244.3.1"}]
    assert (bridge["name"], container["name"], container["sandbox"]) == ("br-evio", "eth0", pod.path)
    [link] = json.loads(pod.run("ip", "-j", "address", "show", "dev", "eth0"))
    assert (link["address"], link["mtu"], link["operstate"]) == (container["mac"], 1420, "UP")
    [address] = [one for one in link["addr_info"] if one["family"] == "inet"]
    assert (address["local"], address["prefixlen"], address["broadcast"]) == ("10.244.3.2", 24, "10.244.3.255")
    [veth] = json.loads(in_namespace(node.switch.netns, "ip", "-j", "link", "show", "dev", host["name"]).stdout)
    assert (veth["address"], veth["mtu"]) == (host["mac"], 1420)
    assert node.ports() == [host["name"]]


def test_bridge_is_made_by_the_first_pod(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    [link] = json.loads(in_namespace(node.switch.netns, "ip", "-j", "address", "show", "dev", "br-evio").stdout)
    assert (link["address"], link["mtu"]) == ("0a:58:0a:f4:03:01", 1420)
    assert "10.244.3.1" in [one["local"] for one in link["addr_info"]]


def test_pods_reach_each_other_and_the_gateway_by_tcp_too(node: Node, new_pod: NewPod) -> None:
    one, other = node.add(new_pod()), node.add(new_pod())
    assert one.pings(other.address)
    assert other.pings(one.address)
    assert one.pings("10.244.3.1")
    assert transfer(one, other, 1 << 20) == 1 << 20


def transfer(sender: Pod, receiver: Pod, size: int) -> int:
    """Bytes that arrive of a TCP stream of this size."""
    count = f"timeout 10 nc -l {receiver.address} 5000 | wc -c"
    listen = ["nsenter", f"--net={receiver.path}", "sh", "-c", count]
    with subprocess.Popen(listen, stdout=subprocess.PIPE) as listener:
        until_listening = "until ss -ltn | grep -q :5000; do sleep .02; done"
        receiver.run("timeout", "5", "sh", "-c", until_listening)
        sender.run("timeout", "10", "sh", "-c", f"head -c {size} /dev/zero | nc -N {receiver.address} 5000")
        output, _errors = listener.communicate(timeout=15)
    return int(output)


@pytest.mark.parametrize("table", ["Interface", "Port"])
def test_port_carries_the_attachments_external_ids(node: Node, new_pod: NewPod, table: str) -> None:
    pod = node.add(new_pod())
    [name] = node.ports()
    ids = json.loads(node.switch.vsctl("--format=json", "--columns=external_ids", "find", table, f"name={name}"))
    found = dict(ids["data"][0][0][1])
    assert found == {
        "evio-owner": "evio.cni",
        "evio-container": pod.container_id,
        "evio-ifname": "eth0",
        "evio-network": "evio",
        "iface-id": f"{pod.container_id}:eth0",
        "attached-mac": pod.result["interfaces"][2]["mac"],
        "evio-ip": "10.244.3.2",
    }


def test_bridge_missing_from_ovsdb_only_is_recreated(node: Node, new_pod: NewPod) -> None:
    """Its device is there until vswitchd has found out."""
    node.delete(node.add(new_pod()))
    pod = new_pod()
    with ThreadPoolExecutor(1) as pool:
        with node.switch.paused_vswitchd():
            node.switch.vsctl("--no-wait", "del-br", "br-evio")
            added = pool.submit(node.add, pod)
            while not node.veths():
                time.sleep(0.01)
            time.sleep(0.2)
        added.result()
    assert pod.pings("10.244.3.1")
    node.delete(pod)
    assert node.leftovers() == {}


def test_longest_packets_that_a_userspace_bridge_carries(node: Node, new_pod: NewPod) -> None:
    node.conf["mtu"] = 65521
    pod = node.add(new_pod())
    assert pod.pings("10.244.3.1")
    assert pod.result["interfaces"][2]["name"] == "eth0"


def test_delete_leaves_nothing(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.delete(pod)
    assert node.leftovers() == {}
    assert "eth0" not in pod.run("ip", "-o", "link")


def test_containerd_deletes_twice_the_second_time_with_nothing_known(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.delete(pod)
    node.call("DEL", pod, CNI_NETNS="")
    assert node.leftovers() == {}


@pytest.mark.parametrize("path", ["", "/run/netns/evt-gone", "/etc/hostname"])
def test_delete_needs_neither_namespace_nor_result(node: Node, new_pod: NewPod, path: str) -> None:
    pod = node.add(new_pod())
    node.call("DEL", pod, CNI_NETNS=path)
    assert node.leftovers() == {}


def test_delete_of_an_unknown_attachment_succeeds(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    before = node.leftovers()
    node.call("DEL", new_pod())
    assert node.leftovers() == before


def test_delete_with_the_bridge_gone(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.vsctl("del-br", "br-evio")
    node.delete(pod)
    assert (node.veths(), node.reservations(), node.journal()) == ([], [], [])


def test_delete_with_open_vswitch_down_is_finished_by_the_next(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.stop()
    node.delete(pod)
    assert (node.veths(), node.reservations()) == ([], [])
    assert node.journal() != []
    node.switch.start()
    node.delete(pod)
    assert node.leftovers() == {}


def test_foreign_ports_survive_every_delete(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.vsctl(
        "add-port", "br-evio", "tun0", "--", "set", "Interface", "tun0", "type=vxlan", "options:remote_ip=127.0.0.1"
    )
    node.switch.vsctl("add-port", "br-evio", "pp0", "--", "set", "Interface", "pp0", "type=patch", "options:peer=pp1")
    node.delete(pod)
    node.call("DEL", new_pod())
    assert sorted(node.ports()) == ["pp0", "tun0"]


def test_second_add_is_refused_and_the_first_goes_on(node: Node, new_pod: NewPod) -> None:
    pod, other = node.add(new_pod()), node.add(new_pod())
    before = node.leftovers()
    with pytest.raises(PluginFailedError, match="has eth0 already"):
        node.call("ADD", pod)
    assert node.leftovers() == before
    assert pod.pings(other.address)


def test_interface_that_is_there_already_is_left_alone(node: Node, new_pod: NewPod) -> None:
    pod = new_pod()
    pod.run("ip", "link", "add", "eth0", "type", "veth")
    with pytest.raises(PluginFailedError, match="the pod has an interface eth0 already"):
        node.add(pod)
    assert "eth0" in pod.run("ip", "-o", "link")
    assert node.leftovers() == {}


def test_exhausted_range_leaves_nothing_but_what_was_there(node: Node, new_pod: NewPod) -> None:
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.2"}]]
    node.add(new_pod())
    before = node.leftovers()
    with pytest.raises(PluginFailedError, match=r"host-local ADD: .*no IP addresses available"):
        node.add(new_pod())
    assert node.leftovers() == before


def test_vswitchd_that_is_down_fails_the_add_and_leaves_nothing(node: Node, new_pod: NewPod) -> None:
    node.delete(node.add(new_pod()))
    node.switch.kill_vswitchd()
    with pytest.raises(PluginFailedError, match="is ovs-vswitchd running"):
        node.add(new_pod())
    assert (node.veths(), node.reservations(), node.journal()) == ([], [], [])


def test_missing_ipam_plugin_is_named(node: Node, new_pod: NewPod) -> None:
    with pytest.raises(PluginFailedError, match="the IPAM plugin 'nowhere' is not in CNI_PATH"):
        node.add(new_pod(), ipam={"type": "nowhere"})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (["ip", "address", "flush", "dev", "eth0"], "lost its address 10.244.3.2/24"),
        (["ip", "route", "del", "default"], "lost its route to 0.0.0.0/0"),
        (["ip", "link", "set", "eth0", "down"], "is down"),
        (["ip", "link", "del", "eth0"], "not in the pod any more"),
    ],
)
def test_check_names_damage_in_the_pod(node: Node, new_pod: NewPod, damage: list[str], words: str) -> None:
    pod = node.add(new_pod())
    assert node.call("CHECK", pod, prevResult=pod.result) == {}
    pod.run(*damage)
    with pytest.raises(PluginFailedError, match=words):
        node.call("CHECK", pod, prevResult=pod.result)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (["ip", "address", "flush", "dev", "br-evio"], "the bridge br-evio is not as configured"),
        (["nft", "flush", "ruleset"], "chain net-.* is missing or incomplete"),
    ],
)
def test_check_names_damage_on_the_host(node: Node, new_pod: NewPod, damage: list[str], words: str) -> None:
    pod = node.add(new_pod())
    in_namespace(node.switch.netns, *damage)
    with pytest.raises(PluginFailedError, match=words):
        node.call("CHECK", pod, prevResult=pod.result)


def test_check_names_a_lost_port_and_a_lost_reservation(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.vsctl("del-port", node.ports()[0])
    with pytest.raises(PluginFailedError, match="is not a port of the bridge"):
        node.call("CHECK", pod, prevResult=pod.result)
    other = node.add(new_pod())
    (node.directory / "ipam/evio" / other.address).unlink()
    with pytest.raises(PluginFailedError, match="is reserved for nobody"):
        node.call("CHECK", other, prevResult=other.result)


def test_next_add_repairs_bridge_and_rules(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    in_namespace(node.switch.netns, "ip", "address", "flush", "dev", "br-evio")
    in_namespace(node.switch.netns, "nft", "flush", "ruleset")
    pod = node.add(new_pod())
    assert pod.pings("10.244.3.1")
    assert node.call("CHECK", pod, prevResult=pod.result) == {}


def test_masquerade_spares_the_overlays(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    rules = in_namespace(node.switch.netns, "nft", "list", "table", "inet", "evio_cni").stdout
    for cidr in ("10.10.0.0/16", "10.244.0.0/16", "224.0.0.0/4"):
        assert f"ip saddr 10.244.3.0/24 ip daddr {cidr} accept" in rules
    assert 'oifname != "br-evio" masquerade' in rules


def test_changed_overlays_replace_the_rules(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    node.add(new_pod(), clusterCIDRs=["10.20.0.0/16"])
    rules = in_namespace(node.switch.netns, "nft", "list", "table", "inet", "evio_cni").stdout
    assert "10.20.0.0/16" in rules
    assert "10.10.0.0/16" not in rules
    assert rules.count("chain net-") == 1


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_result_has_the_shape_of_the_version_asked_for(node: Node, new_pod: NewPod, version: str) -> None:
    result = node.add(new_pod(), cniVersion=version).result
    assert result["cniVersion"] == version
    assert ("version" in result["ips"][0]) == (version < "1.0.0")
    assert ("mtu" in result["interfaces"][2]) == (version >= "1.1.0")


def test_dual_stack_has_a_gateway_a_family(node: Node, new_pod: NewPod) -> None:
    node.conf["gateway"] = ["10.244.3.1/24", "fd00:10:244:3::1/64"]
    node.conf["ipam"]["ranges"].append([{"subnet": "fd00:10:244:3::/64"}])
    one, other = node.add(new_pod()), node.add(new_pod())
    assert [ip["gateway"] for ip in one.result["ips"]] == ["10.244.3.1", "fd00:10:244:3::1"]
    assert [route["dst"] for route in one.result["routes"]] == ["0.0.0.0/0", "::/0"]
    assert one.pings("fd00:10:244:3::1")
    assert one.pings(other.result["ips"][1]["address"].partition("/")[0])


def test_pod_too_narrow_for_ipv6_talks(node: Node, new_pod: NewPod) -> None:
    one, other = node.add(new_pod(), mtu=1200), node.add(new_pod(), mtu=1200)
    [link] = json.loads(one.run("ip", "-j", "address", "show", "dev", "eth0"))
    assert (link["mtu"], [address["family"] for address in link["addr_info"]]) == (1200, ["inet"])
    assert one.pings(other.address)
    assert one.pings("10.244.3.1")
    node.call("CHECK", one, mtu=1200, prevResult=one.result)
    node.delete(one, mtu=1200)


def test_mac_and_address_can_be_asked_for(node: Node, new_pod: NewPod) -> None:
    arguments = "IgnoreUnknown=1;K8S_POD_NAME=web;MAC=02:11:22:33:44:55;IP=10.244.3.77"
    pod = node.add(new_pod(), CNI_ARGS=arguments)
    assert pod.result["interfaces"][2]["mac"] == "02:11:22:33:44:55"
    assert pod.address == "10.244.3.77"
    other = node.add(
        new_pod(), CNI_ARGS="IgnoreUnknown=1;MAC=02:11:22:33:44:55", runtimeConfig={"mac": "02:11:22:33:44:66"}
    )
    assert other.result["interfaces"][2]["mac"] == "02:11:22:33:44:66"


def test_chain_passes_on_what_came_before(node: Node, new_pod: NewPod) -> None:
    before = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "dummy0"}],
        "ips": [],
        "dns": {"nameservers": ["10.96.0.10"]},
    }
    result = node.add(new_pod(), prevResult=before).result
    assert result["interfaces"][0]["name"] == "dummy0"
    assert result["interfaces"][result["ips"][0]["interface"]]["name"] == "eth0"
    assert result["dns"] == {"nameservers": ["10.96.0.10"]}


def test_dns_of_the_configuration_wins(node: Node, new_pod: NewPod) -> None:
    dns = {"nameservers": ["10.96.0.10"], "search": ["cluster.local"]}
    assert node.add(new_pod(), dns=dns).result["dns"] == dns


def test_parallel_adds_get_addresses_of_their_own(node: Node, new_pod: NewPod) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pods = [new_pod() for _pod in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(node.add, pods))
    assert len({pod.address for pod in pods}) == 12
    assert all(pods[0].pings(pod.address) for pod in pods[1:])
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(node.delete, pods))
    assert node.leftovers() == {}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"CNI_CONTAINERID": ""}, 4, "CNI_CONTAINERID"),
        ({"CNI_NETNS": ""}, 4, "CNI_NETNS"),
        ({"CNI_NETNS": "/run/netns/evt-none"}, 4, "/run/netns/evt-none"),
        ({"CNI_CONTAINERID": "../../etc/passwd"}, 4, "CNI_CONTAINERID"),
        ({"CNI_IFNAME": "a/b"}, 4, "CNI_IFNAME"),
        ({"CNI_IFNAME": "sixteen-letters-"}, 4, "CNI_IFNAME"),
        ({"name": "../up"}, 7, "../up"),
        ({"name": None}, 7, "name"),
        ({"cniVersion": "0.1.0"}, 1, "0.1.0"),
        ({"bridge": "much-too-long-a-name"}, 7, "much-too-long-a-name"),
        ({"mtu": -5}, 7, "mtu: -5"),
        ({"ipMasq": "yes"}, 7, "ipMasq"),
        ({"ipam": {}}, 7, "ipam.type"),
        ({"gateway": "10.244.3.1"}, 7, "10.244.3.1"),
        ({"datapathType": "dpdk"}, 7, "dpdk"),
        ({"runtimeConfig": {"mac": "zz"}}, 7, "zz"),
        ({"stateDir": "relative"}, 7, "stateDir"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(
    node: Node, new_pod: NewPod, changes: dict[str, Any], code: int, words: str
) -> None:
    with pytest.raises(PluginFailedError) as raised:
        node.call("ADD", new_pod(), **changes)
    assert raised.value.code == code
    assert words in raised.value.answer["msg"]
    assert raised.value.answer["cniVersion"]
    assert (node.veths(), node.reservations(), node.journal()) == ([], [], [])


@pytest.mark.parametrize("stdin", ["", "{", "[]", "null", '{"name": "evio"} {}'])
def test_garbage_on_standard_input(node: Node, stdin: str) -> None:
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "a",
        "CNI_NETNS": "/n",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/p",
    }
    with pytest.raises(PluginFailedError) as raised:
        node.call_raw(stdin, environment)
    assert raised.value.code == 6


def test_version_needs_nothing_else(node: Node) -> None:
    environment = {"CNI_COMMAND": "VERSION", "CNI_PATH": "dummy", "CNI_NETNS": "dummy"}
    supported = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
    assert node.call_raw("", environment)["supportedVersions"] == supported
    assert node.call_raw('{"cniVersion": "0.4.0"}', environment) == {
        "cniVersion": "0.4.0",
        "supportedVersions": supported,
    }


def test_check_is_refused_for_cni_version_0_3_1(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    with pytest.raises(PluginFailedError) as raised:
        node.call("CHECK", pod, cniVersion="0.3.1", prevResult=pod.result)
    assert raised.value.code == 1


def test_journal_is_readable_by_root_only(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    directory = node.directory / "state/evio"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / f"{pod.container_id}:eth0").stat().st_mode & 0o777 == 0o600
