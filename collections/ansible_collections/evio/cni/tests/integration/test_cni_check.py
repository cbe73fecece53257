# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CHECK holds what is there against what the result of ADD says, and names what cuts a pod off."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .cni_runtime import NewPod, Node, PluginFailedError
from .ovs_daemons import OpenVSwitch, in_namespace, needs_netdev

pytestmark = pytest.mark.root


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"cniVersion": "1.1.0"}


_LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no interfaces": lambda result: result.pop("interfaces"),
    "without ours": lambda result: result["interfaces"].pop(2),
    "ours twice": lambda result: result["interfaces"].append(result["interfaces"][2]),
    "of another name": lambda result: result["interfaces"][2].update(name="eth9"),
    "in another sandbox": lambda result: result["interfaces"][2].update(sandbox="/run/netns/other"),
    "another MAC": lambda result: result["interfaces"][2].update(mac="02:00:00:00:00:55"),
    "another MAC of the host's end": lambda result: result["interfaces"][1].update(mac="02:00:00:00:00:55"),
    "another MAC of the bridge": lambda result: result["interfaces"][0].update(mac="02:00:00:00:00:55"),
    "another name of the host's end": lambda result: result["interfaces"][1].update(name="veth0"),
    "another MTU": lambda result: result["interfaces"][2].update(mtu=9000),
    "no addresses": lambda result: result.pop("ips"),
    "addresses of no interface": lambda result: result["ips"][0].update(interface=77),
    "another address": lambda result: result["ips"][0].update(address="10.244.3.99/24"),
    "a route without gateway": lambda result: result["routes"].append({"dst": "198.18.0.0/15"}),
}


@pytest.mark.parametrize("lie", _LIES)
def test_check_compares_every_field_of_the_result(node: Node, new_pod: NewPod, lie: str) -> None:
    pod = node.add(new_pod())
    said = copy.deepcopy(pod.result)
    _LIES[lie](said)
    with pytest.raises(PluginFailedError) as raised:
        node.call("CHECK", pod, prevResult=said)
    assert raised.value.code == 101


def test_result_that_is_missing_is_the_configurations_fault(node: Node, new_pod: NewPod) -> None:
    with pytest.raises(PluginFailedError, match="prevResult is not in the configuration") as raised:
        node.call("CHECK", node.add(new_pod()))
    assert raised.value.code == 7


_GARBAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a MAC that is none": lambda result: result["interfaces"][2].update(mac=5),
    "an address that is none": lambda result: result["ips"][0].update(address="x/y"),
    "a gateway that is none": lambda result: result["routes"][0].update(gw=5),
}


@pytest.mark.parametrize("garbage", _GARBAGE)
def test_invalid_prevresult_is_a_configuration_error(node: Node, new_pod: NewPod, garbage: str) -> None:
    pod = node.add(new_pod())
    said = copy.deepcopy(pod.result)
    _GARBAGE[garbage](said)
    with pytest.raises(PluginFailedError, match=r"^(?!unexpected)") as raised:
        node.call("CHECK", pod, prevResult=said)
    assert raised.value.code == 7


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_result_of_every_version_is_understood(node: Node, new_pod: NewPod, version: str) -> None:
    pod = node.add(new_pod(), cniVersion=version)
    assert node.call("CHECK", pod, cniVersion=version, prevResult=pod.result) == {}


def test_bridge_without_a_gateway_may_change_its_mac(node: Node, new_pod: NewPod) -> None:
    """Open vSwitch takes it from the ports, which come and go."""
    node.conf |= {"gateway": None, "isGateway": False, "isDefaultGateway": False}
    pod = node.add(new_pod())
    in_namespace(node.switch.netns, "ip", "link", "set", "br-evio", "address", "02:00:00:00:00:55")
    assert node.call("CHECK", pod, prevResult=pod.result) == {}


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
@pytest.mark.parametrize("end", ["the pod's", "the host's"])
def test_mtu_of_one_end_is_named(node: Node, new_pod: NewPod, end: str, version: str) -> None:
    pod = node.add(new_pod(), cniVersion=version)
    netns, name = (pod.netns, "eth0") if end == "the pod's" else (node.switch.netns, node.veths()[0])
    in_namespace(netns, "ip", "link", "set", name, "mtu", "1300")
    with pytest.raises(PluginFailedError, match=r"has an MTU of 1[34][02]0 bytes"):
        node.call("CHECK", pod, cniVersion=version, prevResult=pod.result)


def test_vlan_tag_is_named(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.vsctl("set", "Port", node.veths()[0], "tag=5")
    with pytest.raises(PluginFailedError, match="has been put into VLAN 5"):
        node.call("CHECK", pod, prevResult=pod.result)


@needs_netdev
def test_check_names_checksums_that_nothing_computes(node: Node, new_pod: NewPod) -> None:
    """Pings pass then, and no TCP does."""
    pod = node.add(new_pod())
    pod.run("ethtool", "-K", "eth0", "tx", "on")
    with pytest.raises(PluginFailedError, match="leaves its checksums to a datapath that does not fill them in"):
        node.call("CHECK", pod, prevResult=pod.result)


@needs_netdev
@pytest.mark.parametrize("feature", ["tx-checksum-ip-generic", "tx-checksum-sctp"])
def test_pod_fills_in_its_checksums_itself(node: Node, new_pod: NewPod, feature: str) -> None:
    features = node.add(new_pod()).run("ethtool", "-k", "eth0")
    assert f"{feature}: off" in features


def test_offload_stays_on_with_a_datapath_that_computes_checksums(netns: str, tmp_path: Path, new_pod: NewPod) -> None:
    directory = tmp_path / "ovs"
    directory.mkdir()
    switch = OpenVSwitch(netns, directory, tso=True)
    try:
        node = Node(switch.start(), tmp_path)
        pod = node.add(new_pod())
        assert node.call("CHECK", pod, prevResult=pod.result) == {}
    finally:
        switch.stop()


@pytest.mark.parametrize("security", [True, False])
def test_bridge_that_has_lost_all_its_flows_is_named(node: Node, new_pod: NewPod, security: bool) -> None:
    node.conf["portSecurity"] = security
    pod = node.add(new_pod())
    target = f"unix:{node.switch.directory}/br-evio.mgmt"
    in_namespace(node.switch.netns, "ovs-ofctl", "-O", "OpenFlow13", "--strict", "del-flows", target, "priority=0")
    with pytest.raises(PluginFailedError, match="has lost its NORMAL flow"):
        node.call("CHECK", pod, prevResult=pod.result)
    node.switch.vsctl("set-controller", "br-evio", "tcp:127.0.0.1:1")
    if not security:  # Whoever sets a controller has taken all flows away, those of port security too.
        assert node.call("CHECK", pod, prevResult=pod.result) == {}


def test_check_without_vswitchd_asks_the_runtime_to_try_again(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.kill_vswitchd()
    with pytest.raises(PluginFailedError, match="is ovs-vswitchd running") as raised:
        node.call("CHECK", pod, prevResult=pod.result)
    assert raised.value.code == 11


def test_fault_that_is_known_is_named_while_vswitchd_does_not_run(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.switch.kill_vswitchd()
    in_namespace(node.switch.netns, "nft", "flush", "ruleset")
    with pytest.raises(PluginFailedError, match="is missing or incomplete; to mend it: evio repair") as raised:
        node.call("CHECK", pod, prevResult=pod.result)
    assert raised.value.code == 101


def test_check_names_each_missing_reservation(node: Node, new_pod: NewPod) -> None:
    node.conf["gateway"] = ["10.244.3.1/24", "fd00:10:244:3::1/64"]
    node.conf["ipam"]["ranges"].append([{"subnet": "fd00:10:244:3::/64"}])
    pod = node.add(new_pod())
    assert node.call("CHECK", pod, prevResult=pod.result) == {}
    for ip in pod.result["ips"]:
        reservation = node.directory / "ipam/evio" / ip["address"].partition("/")[0]
        text = reservation.read_text()
        for lost in (None, "another\neth0"):
            reservation.unlink() if lost is None else reservation.write_text(lost)
            with pytest.raises(PluginFailedError, match=r"host-local: .* is reserved for (nobody|another eth0)"):
                node.call("CHECK", pod, prevResult=pod.result)
        reservation.write_text(text)


def test_check_ignores_gateways_of_other_interfaces(node: Node, new_pod: NewPod) -> None:
    pod = new_pod()
    pod.run("ip", "link", "add", "first", "type", "veth", "peer", "name", "second")
    pod.run("ip", "address", "add", "192.0.2.5/24", "dev", "first")
    pod.run("ip", "link", "set", "first", "up")
    pod.run("ip", "link", "set", "second", "up")
    pod.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
    before = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "first", "sandbox": pod.path}],
        "ips": [{"address": "192.0.2.5/24", "interface": 0}],
        "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}],
    }
    node.add(pod, prevResult=before)
    node.call("CHECK", pod, prevResult=pod.result)
    pod.run("ip", "route", "del", "198.51.100.0/24")
    with pytest.raises(PluginFailedError, match=r"lost its route to 198\.51\.100\.0/24 via 192\.0\.2\.1"):
        node.call("CHECK", pod, prevResult=pod.result)
