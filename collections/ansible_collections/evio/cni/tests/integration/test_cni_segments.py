# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Networks that share a bridge are kept apart as their configurations say; what the plugin cannot do, it refuses."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from typing import Any

import pytest

from .cni_runtime import NewPod, Node, PluginFailedError, Pod
from .ovs_daemons import in_namespace
from .test_cni_port_security import ipv4, mac_of, raw_socket

pytestmark = pytest.mark.root

LAYER_2: dict[str, Any] = {
    "gateway": None,
    "isGateway": False,
    "isDefaultGateway": False,
    "ipMasq": False,
}


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"cniVersion": "1.1.0", **LAYER_2}


def test_pods_of_different_vlans_on_one_bridge_do_not_reach_each_other(node: Node, new_pod: NewPod) -> None:
    in_100, other_in_100 = (node.add(new_pod(), vlan=100) for _place in range(2))
    in_200, in_none = node.add(new_pod(), vlan=200), node.add(new_pod())
    assert in_100.pings(other_in_100.address)
    for one, other in ((in_100, in_200), (in_none, in_100), (in_200, in_none)):
        assert not one.pings(other.address)
        assert not other.pings(one.address)
    node.call("CHECK", in_100, vlan=100, prevResult=in_100.result)
    node.delete(in_100, vlan=100)


def test_pod_without_port_security_does_not_enter_a_vlan_by_tagging_its_frames(node: Node, new_pod: NewPod) -> None:
    inside = node.add(new_pod(), vlan=100)
    outside, listener = (node.add(new_pod(), portSecurity=False) for _place in range(2))
    assert received([inside, listener], outside, vlan=100) == []
    assert received([inside, listener], outside, vlan=0) == [listener]


def test_trunk_carries_its_vlans_and_no_others(node: Node, new_pod: NewPod) -> None:
    in_100, in_200 = node.add(new_pod(), vlan=100), node.add(new_pod(), vlan=200)
    changes = {"vlanTrunk": [{"minID": 90, "maxID": 110}], "portSecurity": False}
    router, in_none = node.add(new_pod(), **changes), node.add(new_pod())
    node.call("CHECK", router, prevResult=router.result, **changes)
    others = [in_100, in_200, in_none]
    assert received(others, router, vlan=100) == [in_100]
    assert received(others, router, vlan=200) == []
    assert received(others, router, vlan=0) == [in_none]
    assert received([router, in_none], in_100, vlan=0) == [router]
    assert received([router, in_none], in_200, vlan=0) == []
    assert in_none.pings(router.address)


def received(receivers: list[Pod], sender: Pod, *, vlan: int) -> list[Pod]:
    """Return the receivers that see a broadcast of the sender, which is tagged with a VLAN that is not 0."""
    mark = uuid.uuid4().bytes
    tag = b"\x81\x00" + vlan.to_bytes(2, "big") if vlan else b""
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(raw_socket(pod)) for pod in receivers]
        with raw_socket(sender) as sending:
            for _again in range(3):
                sending.send(ipv4(mac_of(sender), sender.address, tag=tag) + mark)
        return [pod for pod, packets in zip(receivers, listening, strict=True) if _sees(packets, mark)]


def _sees(packets: socket.socket, mark: bytes) -> bool:
    deadline = time.monotonic() + 0.7
    while (remaining := deadline - time.monotonic()) > 0:
        packets.settimeout(remaining)
        with contextlib.suppress(TimeoutError):
            if packets.recv(65536).endswith(mark):
                return True
    return False


def test_isolated_pods_reach_the_gateway_and_not_each_other(node: Node, new_pod: NewPod) -> None:
    changes = {"gateway": "10.244.3.1/24", "isGateway": True, "portIsolation": True}
    one, other = (node.add(new_pod(), **changes) for _place in range(2))
    assert one.pings("10.244.3.1")
    assert not one.pings(other.address)
    node.call("CHECK", one, prevResult=one.result, **changes)
    node.switch.vsctl("set", "Port", one.result["interfaces"][1]["name"], "protected=false")
    with pytest.raises(PluginFailedError, match="is not isolated"):
        node.call("CHECK", one, prevResult=one.result, **changes)


def test_check_knows_a_port_that_has_left_its_vlan(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod(), vlan=100)
    node.switch.vsctl("clear", "Port", pod.result["interfaces"][1]["name"], "tag")
    with pytest.raises(PluginFailedError, match="not in VLAN 100; to mend it: evio repair"):
        node.call("CHECK", pod, vlan=100, prevResult=pod.result)


def test_datapath_type_that_is_left_out_is_the_bridges(node: Node, new_pod: NewPod) -> None:
    """On a netdev bridge the pod fills in its checksums; without that, ping works and TCP does not."""
    node.switch.vsctl("add-br", "br-evio", "--", "set", "Bridge", "br-evio", "datapath_type=netdev")
    node.conf |= {"datapathType": None, "gateway": "10.244.3.1/24", "isGateway": True, "mtu": None}
    pod = node.add(new_pod())
    features = pod.run("ethtool", "-k", "eth0")
    assert "tx-checksumming: off" in features
    node.call("CHECK", pod, prevResult=pod.result)
    assert node.call("STATUS") == {}
    assert node.switch.vsctl("get", "Bridge", "br-evio", "datapath_type") == "netdev"
    pod.run("ethtool", "-K", "eth0", "tx", "on")
    with pytest.raises(PluginFailedError, match="leaves its checksums"):
        node.call("CHECK", pod, prevResult=pod.result)
    rules = in_namespace(node.switch.netns, "nft", "list", "ruleset").stdout
    assert "host-ends" in rules or "evpod" in rules


REFUSED: list[dict[str, Any]] = [
    {"hairpinMode": True},
    {"vlan": "100"},
    {"vlan": 100, "gateway": "10.244.3.1/24"},
    {"vlanTrunk": [{"id": 5}]},
    {"mtu": "x"},
    {"bridge": 5},
    {"bridge": "a/b"},
    {"gateway": "x"},
    {"ovsdb": "tcp:127.0.0.1:6640"},
    {"ovsdb": 5},
    {"stateDir": "relative"},
    {"portSecurity": "yes"},
    {"datapathType": "dpdk"},
    {"name": "a/b"},
    {"name": None},
    {"ipam": None},
    {"ipam": {"type": "../x"}},
    {"ipam": {"type": "absent"}},
    {"ipam": {"type": "host-local", "ranges": [[{"subnet": "x"}]]}},
    {"ipam": {"type": "host-local", "ranges": 5}},
    {"ipam": {"type": "static", "addresses": [{"address": "nonsense"}]}},
    {"cniVersion": "9.9.9"},
    {"cniVersion": 5},
    {"cniVersion": "0.1.0"},
    {"runtimeConfig": 5},
    {"runtimeConfig": {"mac": "nonsense"}},
    {"runtimeConfig": {"ips": ["nonsense"]}},
    {"args": "x"},
    {"prevResult": 5},
    {"dns": 5},
    {"epoch": "x"},
]


def test_delete_succeeds_and_leaves_nothing_with_each_configuration_that_add_refused(
    node: Node, new_pod: NewPod
) -> None:
    node.delete(node.add(new_pod()))  # It makes the bridge.
    pod = new_pod()
    for changes in REFUSED:
        with pytest.raises(PluginFailedError):
            node.call("ADD", pod, **changes)
        for _again in range(2):
            assert node.call("DEL", pod, **changes) == {}, changes
        assert node.leftovers() == {}, changes


def test_running_pod_is_removed_though_its_configuration_was_broken_since(node: Node, new_pod: NewPod) -> None:
    """The name and the state directory lead to the journal, and its entry has the rest."""
    pod = new_pod()
    for changes in REFUSED:
        if not {"name", "stateDir"} & changes.keys():
            node.add(pod)
            with contextlib.suppress(PluginFailedError):
                node.call("DEL", pod, **changes)
            assert (node.veths(), node.ports()) == ([], []), changes
            node.delete(pod)
            assert node.leftovers() == {}, changes
