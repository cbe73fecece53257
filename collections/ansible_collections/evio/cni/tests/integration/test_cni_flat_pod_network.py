# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pods of two nodes whose bridges are one layer-2 segment, flat and routed.

A veth pair between the bridges stands for EdgeVPN.io's tunnels, whose package cannot be had here.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.conflist import node_subnets

from .cni_runtime import Node, Pod
from .edgevpn_segment import conf_of, join
from .ovs_daemons import OpenVSwitch, network_namespace

pytestmark = pytest.mark.root


@pytest.mark.parametrize("nodes", ["flat", "routed"], indirect=True)
def test_pods_of_two_nodes_reach_each_other(nodes: list[Node], request: pytest.FixtureRequest) -> None:
    with contextlib.ExitStack() as stack:
        pods = [node.add(Pod(stack.enter_context(network_namespace("evt-")))) for node in nodes]
        join(nodes)
        one, other = pods
        assert (one.address, other.address) == ("10.244.1.2", "10.244.2.2")
        assert one.pings(other.address)
        assert other.pings(one.address)
        assert one.pings("10.244.1.1")
        [route] = json.loads(one.run("ip", "-j", "route", "get", other.address))
        is_flat = "flat" in request.node.name
        assert ("gateway" in route) is not is_flat
        for node, pod in zip(nodes, pods, strict=True):
            assert node.call("CHECK", pod, prevResult=pod.result) == {}
            node.delete(pod)
            assert node.leftovers() == {"ports": ["tunnel"]}


@pytest.mark.parametrize("flat", [True, False])
def test_conflist_tells_the_nodes_own_subnet(tmp_path: Path, flat: bool) -> None:
    conf = conf_of("10.244.7.0/24", OpenVSwitch("none", tmp_path), tmp_path, flat=flat)
    assert node_subnets(conf) == ("10.244.7.0/24",)
    assert conf["gateway"] == "10.244.7.1/16"
    [[addresses]] = conf["ipam"]["ranges"]  # type: ignore[index]
    assert addresses["subnet"] == ("10.244.0.0/16" if flat else "10.244.7.0/24")
    assert (addresses["rangeStart"], addresses["rangeEnd"]) == ("10.244.7.2", "10.244.7.254")
