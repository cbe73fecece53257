# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A network on a bridge that somebody else has made: pods work there, and the bridge stays as its owner wants it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .cni_runtime import PLUGIN, NewPod, Node, PluginFailedError
from .ovs_daemons import DATAPATH, OTHER_DATAPATH, in_namespace

pytestmark = pytest.mark.root

_COLUMNS = "datapath_type,fail_mode,stp_enable,rstp_enable,other_config,controller"


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"bridge": "br-site", "mtu": None}


@pytest.fixture
def node(node: Node) -> Node:
    """The node, with the bridge of somebody else, which its owner has given an address and set up."""
    settings = [f"datapath_type={DATAPATH}", "fail_mode=secure", "external_ids:owner=site"]
    node.switch.vsctl("add-br", "br-site", "--", "set", "Bridge", "br-site", *settings)
    target = f"unix:{node.switch.directory}/br-site.mgmt"
    in_namespace(node.switch.netns, "ovs-ofctl", "-OOpenFlow13", "add-flow", target, "priority=1,actions=normal")
    in_namespace(node.switch.netns, "ip", "address", "add", "192.0.2.1/24", "dev", "br-site")
    in_namespace(node.switch.netns, "ip", "link", "set", "br-site", "up")
    return node


def settings(node: Node) -> tuple[str, str, int, str]:
    [link] = json.loads(in_namespace(node.switch.netns, "ip", "-j", "link", "show", "br-site").stdout)
    row = node.switch.vsctl(f"--columns={_COLUMNS}", "list", "Bridge", "br-site")
    interface = node.switch.vsctl("--columns=mtu,mtu_request,external_ids", "list", "Interface", "br-site")
    return row, interface, link["mtu"], link["address"]


def test_pods_work_on_it_and_its_settings_stay(node: Node, new_pod: NewPod) -> None:
    before = settings(node)
    pod, other = node.add(new_pod()), node.add(new_pod())
    assert pod.pings(other.address)
    assert pod.pings("10.244.3.1")
    assert pod.pings("192.0.2.1")
    assert node.call("CHECK", pod, prevResult=pod.result) == {}
    conf_dir = node.directory / "net.d"
    conf_dir.mkdir()
    entry = {key: value for key, value in node.conf.items() if value is not None}
    conflist = {"cniVersion": "1.0.0", "name": "evio", "plugins": [entry]}
    (conf_dir / "10-evio.conflist").write_text(json.dumps(conflist))
    in_namespace(node.switch.netns, "ip", "address", "del", "10.244.3.1/24", "dev", "br-site")
    repair = [str(PLUGIN), "repair", "--json", "--conf-dir", str(conf_dir)]
    [result] = json.loads(in_namespace(node.switch.netns, *repair).stdout)
    assert (result["bridge"], result["failures"]) == (["gateways"], [])
    assert pod.pings("10.244.3.1")
    node.delete(pod)
    node.delete(other)
    assert settings(node) == before
    assert "evio-owner" not in node.switch.vsctl("get", "Bridge", "br-site", "external_ids")


def test_bridge_without_gateways_may_be_down(node: Node, new_pod: NewPod) -> None:
    """Open vSwitch forwards on a bridge whose own interface is down, as it is where nobody has set it up."""
    del node.conf["gateway"]
    node.conf.update(isGateway=False, isDefaultGateway=False, ipMasq=False)
    in_namespace(node.switch.netns, "ip", "link", "set", "br-site", "down")
    node.write_conflist()
    pod, other = node.add(new_pod()), node.add(new_pod())
    assert pod.pings(other.address)
    assert node.call("CHECK", pod, prevResult=pod.result) == {}
    status = [str(PLUGIN), "status", "--json", "--cri-socket=", "--conf-dir", str(node.directory / "net.d")]
    told = json.loads(in_namespace(node.switch.netns, *status, check=False).stdout)
    assert [problem["what"] for problem in told["problems"] if problem["severity"] == "error"] == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"mtu": 1420}, "mtu is 1500, asked for is 1420"),
        ({"datapathType": OTHER_DATAPATH}, "datapath"),
    ],
)
def test_add_that_asks_for_another_change_is_refused(
    node: Node, new_pod: NewPod, asked: dict[str, Any], words: str
) -> None:
    before = settings(node)
    with pytest.raises(PluginFailedError, match=words):
        node.add(new_pod(), **asked)
    assert settings(node) == before
    shown = in_namespace(node.switch.netns, "ip", "-o", "address", "show", "dev", "br-site").stdout
    assert "10.244.3.1" not in shown
    assert node.leftovers() == {}
