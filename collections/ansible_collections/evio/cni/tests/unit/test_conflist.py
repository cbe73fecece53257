# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The conflist has the keys and values that runtimes, the plugin and host-local expect."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.conflist import PodNetwork, build_conflist
from ansible_collections.evio.cni.plugins.module_utils.cni.netconf import NetConf
from ansible_collections.evio.cni.plugins.module_utils.cni.spec import CniError
from ansible_collections.evio.cni.plugins.module_utils.cni.unsupported import refuse_unsupported
from ansible_collections.evio.cni.plugins.module_utils.subnets import NodeSubnet

IPV4 = NodeSubnet("10.244.3.0/24")
IPV6 = NodeSubnet("fd00:10:244:3::/64")


def network(**changes: object) -> PodNetwork:
    values: dict[str, object] = {
        "bridge": "br-evio",
        "subnets": (IPV4,),
        "cluster_cidrs": ("10.10.0.0/16", "10.244.0.0/16"),
        "mtu": 1420,
        "epoch": 7,
        "datapath_type": "netdev",
    }
    return PodNetwork(**{**values, **changes})  # type: ignore[arg-type]


def test_old_and_new_runtimes_find_a_version_that_they_know() -> None:
    conflist = build_conflist(network())
    assert conflist["cniVersion"] == "1.0.0"
    assert conflist["cniVersions"] == ["0.4.0", "1.0.0", "1.1.0"]


def test_entry_has_the_reference_bridge_keys_and_ours() -> None:
    [entry] = build_conflist(network())["plugins"]
    assert entry["type"] == "evio"
    assert (entry["bridge"], entry["isGateway"], entry["isDefaultGateway"]) == ("br-evio", True, True)
    assert (entry["ipMasq"], entry["mtu"], entry["gateway"]) == (True, 1420, "10.244.3.1/24")
    assert entry["clusterCIDRs"] == ["10.10.0.0/16", "10.244.0.0/16"]
    assert (entry["datapathType"], entry["epoch"]) == ("netdev", 7)
    assert entry["ovsdb"] == "unix:/var/run/openvswitch/db.sock"
    assert entry["stateDir"] == "/var/lib/evio-cni"


def test_ipv4_subnet_has_253_pod_addresses() -> None:
    [entry] = build_conflist(network())["plugins"]
    assert entry["ipam"] == {
        "type": "host-local",
        "ranges": [
            [
                {
                    "subnet": "10.244.3.0/24",
                    "rangeStart": "10.244.3.2",
                    "rangeEnd": "10.244.3.254",
                    "gateway": "10.244.3.1",
                }
            ]
        ],
    }


def test_dual_stack_has_one_range_and_one_gateway_of_each_family() -> None:
    [entry] = build_conflist(network(subnets=(IPV4, IPV6)))["plugins"]
    assert entry["gateway"] == ["10.244.3.1/24", "fd00:10:244:3::1/64"]
    assert [len(ranges) for ranges in entry["ipam"]["ranges"]] == [1, 1]


def test_limit_that_the_datapath_does_not_enforce_is_refused_by_ours() -> None:
    """On vswitchd's datapath the plugin bandwidth lets pods send without a limit."""
    conflist = build_conflist(network(chained=("portmap", "bandwidth"), datapath_type="netdev"))
    assert [plugin["type"] for plugin in conflist["plugins"]] == ["evio", "portmap"]
    assert conflist["plugins"][0]["capabilities"] == {"ips": True, "mac": True, "bandwidth": True}
    ours = {**conflist["plugins"][0], "name": "evio", "cniVersion": "1.0.0"}
    refuse_unsupported(NetConf({**ours, "runtimeConfig": {"bandwidth": {"ingressRate": 0, "egressRate": 0}}}))
    with pytest.raises(CniError, match=r"runtimeConfig\.bandwidth: .* netdev, enforces no limit"):
        refuse_unsupported(NetConf({**ours, "runtimeConfig": {"bandwidth": {"egressRate": 10_000_000}}}))


def test_chained_plugins_come_after_ours() -> None:
    plugins = build_conflist(network(chained=("portmap", "bandwidth"), datapath_type="system"))["plugins"]
    assert [plugin["type"] for plugin in plugins] == ["evio", "portmap", "bandwidth"]
    assert plugins[1]["capabilities"] == {"portMappings": True}
    assert plugins[2]["capabilities"] == {"bandwidth": True}
