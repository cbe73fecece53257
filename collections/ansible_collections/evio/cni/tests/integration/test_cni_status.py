# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""STATUS says what an ADD would meet, in milliseconds."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd
from ansible_collections.evio.cni.plugins.module_utils.ovs.datapath import probe_datapath
from ansible_collections.evio.cni.plugins.module_utils.subnets import parse_pools

from .ansible_module import run_module
from .cni_runtime import PLUGIN, NewPod, Node, PluginFailedError, overlay_says, own_ipam
from .etcd_server import EtcdServer
from .ovs_daemons import DATAPATH, in_namespace

pytestmark = pytest.mark.root


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"cniVersion": "1.1.0"}


def test_status_is_ready_before_and_after_the_first_pod(node: Node, new_pod: NewPod) -> None:
    assert node.call("STATUS") == {}
    node.add(new_pod())
    assert node.call("STATUS") == {}


def test_status_names_an_unwritable_state_directory(node: Node) -> None:
    state = node.directory / "state"
    state.mkdir()
    mount = f"mount --bind {state} {state} && mount -o remount,bind,ro {state}"
    node.program = ["unshare", "-m", "--propagation", "private", "sh", "-c", f"{mount} && exec {PLUGIN}"]
    with pytest.raises(PluginFailedError, match=f"stateDir: nothing can be written in {state}") as raised:
        node.call("STATUS")
    assert raised.value.code == 50


def test_status_does_not_create_the_state_directory(node: Node) -> None:
    assert node.call("STATUS", stateDir=str(node.directory / "not/yet")) == {}
    assert not (node.directory / "not").exists()


@pytest.mark.skipif(probe_datapath() == "system", reason="this kernel has Open vSwitch's module")
def test_datapath_that_the_kernel_lacks_is_refused(node: Node, new_pod: NewPod) -> None:
    begun = time.monotonic()
    for command, code in (("STATUS", 50), ("ADD", 100)):
        with pytest.raises(PluginFailedError, match="this kernel has no module openvswitch") as raised:
            node.call(command, new_pod(), datapathType="system")
        assert raised.value.code == code
    assert time.monotonic() - begun < 5
    assert (node.veths(), node.reservations(), node.journal()) == ([], [], [])


def test_status_names_an_ovsdb_that_does_not_answer(node: Node) -> None:
    node.switch.kill_server()
    with pytest.raises(PluginFailedError, match="is ovsdb-server running") as raised:
        node.call("STATUS")
    assert raised.value.code == 50


def test_status_names_a_missing_vswitchd(node: Node) -> None:
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


def test_status_names_the_exhausted_range(node: Node, new_pod: NewPod) -> None:
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.1", "rangeEnd": "10.244.3.3"}]]
    node.add(new_pod())
    assert node.call("STATUS") == {}
    pod = node.add(new_pod())
    with pytest.raises(PluginFailedError, match=r"no address of 10\.244\.3\.0/24 is left: 2 are reserved") as raised:
        node.call("STATUS")
    assert raised.value.code == 50
    node.delete(pod)
    assert node.call("STATUS") == {}


def test_status_counts_addresses_of_dead_attachments_as_free(node: Node, new_pod: NewPod) -> None:
    one = {"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.2"}
    node.conf["ipam"]["ranges"] = [[one]]
    node.add_and_lose()
    assert node.call("STATUS") == {}
    node.add(new_pod())
    with pytest.raises(PluginFailedError, match=r"no address of 10\.244\.3\.0/24 is left: 1 are reserved"):
        node.call("STATUS")


def test_gateway_of_the_bridge_is_no_address_for_a_pod(node: Node) -> None:
    node.conf["gateway"] = "10.244.3.254/24"
    only = {"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.254", "rangeEnd": "10.244.3.254"}
    node.conf["ipam"]["ranges"] = [[only]]
    with pytest.raises(PluginFailedError, match="no address of"):
        node.call("STATUS")


@pytest.mark.parametrize("name", ["README", "10.244.3.5~", "10.244.3.300", "last_reserved_ip.0", "é"])
def test_stray_file_among_the_reservations_is_ignored(node: Node, new_pod: NewPod, name: str) -> None:
    pod = node.add(new_pod())
    stray = node.directory / "ipam/evio" / name
    stray.write_text("")
    one = {"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.3"}
    node.conf["ipam"]["ranges"] = [[one]]
    assert node.call("STATUS") == {}
    assert node.add(new_pod()).pings(pod.address)


@pytest.mark.parametrize("ranges", [5, [5], [[5]], [[{"subnet": "x"}]], [[{"subnet": "10.244.3.0/24", "gateway": 5}]]])
def test_invalid_ranges_are_named(node: Node, ranges: Any) -> None:
    node.conf["ipam"]["ranges"] = ranges
    with pytest.raises(PluginFailedError, match=r"ipam\.ranges: ") as raised:
        node.call("STATUS")
    assert raised.value.code == 7


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


def test_status_names_ovs_before_the_overlay(node: Node) -> None:
    overlay_says(node, json.dumps({"fault": "evio0 is gone", "updated": time.time()}))
    node.switch.kill_server()
    with pytest.raises(PluginFailedError, match="is ovsdb-server running") as raised:
        node.call("STATUS")
    assert raised.value.code == 50


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_status_ignores_an_unreadable_overlay_state(node: Node, text: str) -> None:
    overlay_says(node, text)
    assert node.call("STATUS") == {}


def test_overlay_state_from_before_the_clock_was_set_back_says_nothing_against_pods(node: Node) -> None:
    overlay_says(node, json.dumps({"fault": None, "updated": time.time() + 60}))
    assert node.call("STATUS") == {}


def test_status_is_refused_before_cni_version_1_1_0(node: Node) -> None:
    with pytest.raises(PluginFailedError, match="STATUS came with CNI 1"):
        node.call("STATUS", cniVersion="1.0.0")


def test_node_whose_claim_is_lost_takes_no_new_pods_and_keeps_those_it_has(node: Node, new_pod: NewPod) -> None:
    pod, other = node.add(new_pod()), node.add(new_pod())
    (node.directory / "state/.fence").write_text("etcd has no claim of it\n")
    for command, arguments in (("STATUS", ()), ("ADD", (new_pod(),))):
        with pytest.raises(PluginFailedError, match="claim on its pod subnet is lost: etcd has no claim") as raised:
            node.call(command, *arguments)
        assert raised.value.code == 50
    assert pod.pings(other.address)
    node.delete(pod)
    node.delete(other)
    assert node.leftovers() == {}


def test_status_asks_etcd_whether_the_claim_holds_and_fences_the_node(node: Node, new_pod: NewPod) -> None:
    conf_dir, data = node.directory / "net.d", node.directory / "etcd"
    conf_dir.mkdir()
    data.mkdir()
    server = EtcdServer(data, tls=False).start()
    try:
        with Etcd(server.access) as etcd:
            registry = Registry(etcd, "kubernetes")
            pools = parse_pools("10.244.0.0/16", 8)
            claim = registry.claim([Request("node1", "m1", pin=("10.244.3.0/24",))], pools).claims["node1"]
            plugin = node.conf | {"epoch": claim.epoch}
            conflist = {"cniVersion": "1.1.0", "name": "evio", "plugins": [plugin]}
            (conf_dir / "10-evio.conflist").write_text(json.dumps(conflist))
            assert "ready for pods" in status(node, conf_dir, server)
            registry.release(["node1"])
            assert "claim on its pod subnet is lost: etcd has no claim of it" in status(node, conf_dir, server)
            with pytest.raises(PluginFailedError, match="is lost"):
                node.add(new_pod())
            registry.claim([Request("node1", "m1", pin=("10.244.3.0/24",))], pools, quarantine=0)
            assert "ready for pods" in status(node, conf_dir, server)
            assert node.add(new_pod()).pings("10.244.3.1")
    finally:
        server.stop()


def status(node: Node, conf_dir: Path, server: EtcdServer) -> str:
    """What ``evio status`` says. It asks etcd in the tests' own namespace: the node's has no way there."""
    answer = subprocess.run(
        [str(PLUGIN), "status", "--conf-dir", str(conf_dir), "--etcd", server.url, "--node", "node1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return answer.stdout + answer.stderr


def test_pods_that_keep_the_mtu_from_before_a_change_are_named(node: Node, new_pod: NewPod) -> None:
    conf_dir, pods = node.directory / "net.d", [node.add(new_pod()), node.add(new_pod())]
    conf_dir.mkdir()
    assert set_up_network(node, conf_dir, 1420).get("warnings", []) == []
    assert "MTU" not in status_on_node(node, conf_dir)
    [warning] = set_up_network(node, conf_dir, 1300)["warnings"]
    shown = status_on_node(node, conf_dir)
    for said in (json.dumps(warning), shown):
        assert "2 of 2 pods keep the MTU with which they were started, new pods get 1300 bytes" in said
        assert all(f"{pod.container_id[:13]} eth0 (1420)" in said for pod in pods)
        assert "longer packets of these pods are lost; recreate them" in said
    node.delete(pods[0])
    node.add(pods[0], mtu=1300)
    assert "1 of 2 pods keep" in status_on_node(node, conf_dir)
    node.delete(pods[1])
    assert "MTU" not in status_on_node(node, conf_dir)
    [warning] = set_up_network(node, conf_dir, 1400)["warnings"]
    assert "nothing is lost" in json.dumps(warning)


def test_new_configuration_gives_running_pods_its_rules(node: Node, new_pod: NewPod, tmp_path: Path) -> None:
    conf_dir = tmp_path / "conf"
    conf_dir.mkdir()
    set_up_network(node, conf_dir, 1420)
    assert rules_of_node(node) == ""
    node.add(new_pod())
    assert set_up_network(node, conf_dir, 1420)["changed"] is False
    node.conf["clusterCIDRs"].append("10.99.0.0/16")
    previewed = set_up_network(node, conf_dir, 1420, check_mode=True)
    assert "nftables chain net-" in json.dumps(previewed["diff"])
    assert "10.99.0.0/16" not in rules_of_node(node)
    set_up_network(node, conf_dir, 1420)
    assert "ip daddr 10.99.0.0/16 accept" in rules_of_node(node)
    assert rules_of_node(node).count("chain net-") == 1
    in_namespace(node.switch.netns, "nft", "flush ruleset")
    assert set_up_network(node, conf_dir, 1420)["changed"] is True
    assert set_up_network(node, conf_dir, 1420)["changed"] is False


def rules_of_node(node: Node) -> str:
    return in_namespace(node.switch.netns, "nft", "list ruleset").stdout


def set_up_network(node: Node, conf_dir: Path, mtu: int, **more: Any) -> dict[str, Any]:
    """Return the result of the module cni_config, which configures the network of the test's pods."""
    return run_module(
        "cni_config",
        netns=node.switch.netns,
        bridge=node.conf["bridge"],
        subnets=["10.244.3.0/24"],
        cluster_cidrs=node.conf["clusterCIDRs"],
        mtu=mtu,
        datapath_type=DATAPATH,
        conf_dir=str(conf_dir),
        state_dir=node.conf["stateDir"],
        ovsdb=node.conf["ovsdb"],
        **more,
    )


def status_on_node(node: Node, conf_dir: Path) -> str:
    return in_namespace(node.switch.netns, str(PLUGIN), "status", "--conf-dir", str(conf_dir), check=False).stdout


def test_status_of_the_ipam_plugin_is_reported(node: Node) -> None:
    with own_ipam(node, '{"cniVersion":"1.1.0","code":50,"msg":"the pool is closed"}', status=1) as calls:
        with pytest.raises(PluginFailedError, match="the pool is closed") as raised:
            node.call("STATUS", CNI_PATH=str(calls.parent))
        assert raised.value.code == 50
        assert calls.read_text().split() == ["STATUS"]


def test_status_names_a_firewall_that_cuts_pods_off(node: Node, new_pod: NewPod) -> None:
    """Without an agent, STATUS looks itself."""
    node.add(new_pod())
    in_namespace(node.switch.netns, "nft", "add table inet site")
    in_namespace(node.switch.netns, "nft", "add chain inet site ward { type filter hook prerouting priority -300; }")
    assert node.call("STATUS") == {}
    in_namespace(node.switch.netns, "nft", "add rule inet site ward iifname br-evio drop")
    with pytest.raises(PluginFailedError, match="a firewall of this node cuts pods off: inet site ward") as raised:
        status_until_it_fails(node)
    assert raised.value.code == 51


def status_until_it_fails(node: Node) -> None:
    """Ask five times: on a starved machine nft may not answer in time, and then nothing is said of firewalls."""
    for _attempt in range(5):
        node.call("STATUS")
