# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The check of the inventory: a cluster that cannot work is refused, and the message has variable and value."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.errors import EvioError
from ansible_collections.evio.cni.plugins.module_utils.inventory.cluster import (
    Cluster,
    ClusterError,
    EdgeVpnMember,
    EdgeVpnSite,
    KubernetesSite,
    Node,
    check_cluster,
    check_leaving,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.config import EdgeVpnTuning
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.naming import node_id

GOOD = Cluster(
    name="kubernetes",
    host_overlay_cidr="10.10.0.0/16",
    pod_cidr="10.244.0.0/16",
    node_bits="8",
    nodes=(Node("node1", "10.10.0.1", "198.51.100.11"), Node("node2", "10.10.0.2")),
    control_plane=("node1",),
)

EVIO = replace(
    GOOD,
    overlay="evio",
    nodes=(
        Node("node1", "10.10.0.1", evio=EdgeVpnMember("n1-hosts@x", "n1-pods@x")),
        Node("node2", "10.10.0.2", evio=EdgeVpnMember("n2-hosts@x", "n2-pods@x", "0" * 32)),
    ),
    evio=EdgeVpnSite("xmpp.example", ("HOSTOVL", "PODOVL"), ("node1",)),
)


def with_evio(**settings: Any) -> Cluster:
    """Return EVIO with other settings of its second node."""
    first, second = EVIO.nodes
    return replace(EVIO, nodes=(first, replace(second, evio=replace(second.evio, **settings))))


def nodes(count: int) -> tuple[Node, ...]:
    return (
        Node("node0", "10.10.0.1", "198.51.100.11"),
        *(Node(f"node{i}", f"10.10.1.{i}") for i in range(1, count)),
    )


@pytest.mark.parametrize(
    "cluster",
    [
        GOOD,
        replace(GOOD, nodes=(Node("node1", "10.10.0.1"),)),
        replace(GOOD, pod_cidr="10.244.0.0/16,fd00:10:244::/48", node_bits="8,16"),
        replace(GOOD, overlay="external", nodes=(Node("node1", "10.10.0.1"), Node("node2", "10.10.0.2"))),
        EVIO,
        replace(GOOD, nodes=(Node("node1", "10.10.0.1", "[2001:db8::1]:51821"), Node("node2", "10.10.0.2"))),
        replace(GOOD, nodes=(Node("node1", "10.10.0.1", "node1.example.org:51821"), Node("node2", "10.10.0.2"))),
        replace(GOOD, mtu=1200),
        replace(GOOD, reserved_cidrs=("10.96.0.0/12",)),
        replace(GOOD, service_cidrs=("10.96.0.0/12",)),
        replace(
            GOOD,
            pod_cidr="10.244.0.0/16,fd00:10:244::/48",
            node_bits="8,16",
            service_cidrs=("10.96.0.0/12", "fd00:10:96::/108"),
        ),
    ],
)
def test_cluster_that_can_work_is_accepted(cluster: Cluster) -> None:
    check_cluster(cluster)


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (replace(GOOD, pod_cidr="10.244.0.0"), ["evio_pod_cidr", "10.244.0.0"]),
        (replace(GOOD, pod_cidr="ten"), ["evio_pod_cidr", "ten"]),
        (replace(GOOD, pod_cidr="10.244.0.16/16"), ["evio_pod_cidr", "10.244.0.16/16", "host bits"]),
        (replace(GOOD, node_bits="15"), ["evio_node_bits", "15"]),
        (replace(GOOD, node_bits="-1"), ["evio_node_bits", "-1"]),
        (replace(GOOD, node_bits="many"), ["evio_node_bits", "many"]),
        (replace(GOOD, node_bits="1", nodes=nodes(3)), ["evio_node_bits", "2 subnets", "3 nodes"]),
        (replace(GOOD, pod_cidr="10.10.0.0/17"), ["evio_host_overlay_cidr", "10.10.0.0/16", "evio_pod_cidr"]),
        (replace(GOOD, host_overlay_cidr="10.10.0.1/16"), ["evio_host_overlay_cidr", "10.10.0.1/16"]),
        (replace(GOOD, nodes=(GOOD.nodes[0], Node("node2", None))), ["evio_host_overlay_address", "node2"]),
        (replace(GOOD, nodes=(GOOD.nodes[0], Node("node2", "10.11.0.2"))), ["node2", "10.11.0.2", "10.10.0.0/16"]),
        (replace(GOOD, nodes=(GOOD.nodes[0], Node("node2", "10.10.0.0"))), ["node2", "10.10.0.0"]),
        (replace(GOOD, nodes=(GOOD.nodes[0], Node("node2", "10.10.0.1"))), ["10.10.0.1", "node1", "node2"]),
        (replace(GOOD, nodes=(GOOD.nodes[0], Node("node2", "two"))), ["node2", "two"]),
        (replace(GOOD, nodes=(Node("node1", "10.10.0.1"), GOOD.nodes[1])), ["evio_public_endpoint"]),
        (replace(GOOD, nodes=(Node("node1", "10.10.0.1", "1.2.3"), GOOD.nodes[1])), ["evio_public_endpoint", "1.2.3"]),
        (replace(GOOD, nodes=(Node("node1", "10.10.0.1", "h:0"), GOOD.nodes[1])), ["evio_public_endpoint", "h:0"]),
        (
            replace(GOOD, nodes=(Node("node1", "10.10.0.1", "node1"), GOOD.nodes[1])),
            ["node1: evio_public_endpoint", "'node1' is not address"],
        ),
        (
            replace(GOOD, nodes=(Node("node1", "10.10.0.1", "10.10.9.9"), GOOD.nodes[1])),
            ["10.10.9.9", "inside evio_host"],
        ),
        (replace(GOOD, nodes=(Node("node1", "10.10.0.1", "10.244.1.1"), GOOD.nodes[1])), ["inside evio_pod_cidr"]),
        (replace(GOOD, nodes=(Node("node1", "10.10.0.1", "[fe80::1%eth0]"), GOOD.nodes[1])), ["scope id"]),
        (replace(GOOD, nodes=()), ["evio_nodes"]),
        (replace(GOOD, control_plane=()), ["evio_control_plane"]),
        (replace(GOOD, control_plane=("node9",)), ["evio_control_plane", "node9"]),
        (replace(GOOD, overlay="flannel"), ["evio_overlay", "flannel"]),
        (replace(GOOD, name="a/b"), ["evio_cluster", "a/b"]),
        (replace(GOOD, mtu=100), ["evio_mtu", "100"]),
        (replace(GOOD, pod_cidr="fd00::/48", node_bits="16", mtu=1000), ["evio_mtu", "1000", "1280"]),
        (replace(GOOD, reserved_cidrs=("10.96/12",)), ["evio_reserved_cidrs[0]", "10.96/12"]),
        (replace(GOOD, service_cidrs=("10.96/12",)), ["evio_service_network", "10.96/12"]),
        (replace(GOOD, service_cidrs=("10.240.0.0/12",)), ["evio_service_network 10.240.0.0/12", "evio_pod_cidr"]),
        (replace(GOOD, service_cidrs=("10.0.0.0/12",)), ["evio_service_network 10.0.0.0/12", "evio_host_overlay_cidr"]),
        (replace(GOOD, service_cidrs=("10.96.0.0/12", "10.32.0.0/16")), ["10.32.0.0/16", "second of IPv4"]),
        (replace(GOOD, service_cidrs=("fd00::/108",)), ["evio_service_network", "IPv6", "evio_pod_cidr has no"]),
        (replace(EVIO, evio=replace(EVIO.evio, xmpp_host="")), ["evio_xmpp_host", "not given"]),
        (
            replace(EVIO, pod_cidr="10.244.0.0/16,fd00:244::/48", node_bits="8,16"),
            ["evio_pod_cidr", "fd00:244::/48", "evio_switch_protocol: STP"],
        ),
        (
            replace(
                EVIO,
                nodes=(*EVIO.nodes, Node("node3", "10.10.0.3", evio=EdgeVpnMember("n3-hosts@x", "n3-pods@x"))),
                evio=replace(EVIO.evio, switch_protocol="learning"),
            ),
            ["evio_switch_protocol", "between 3 nodes", "BF or STP"],
        ),
        (replace(EVIO, evio=replace(EVIO.evio, switch_protocol="RSTP")), ["evio_switch_protocol", "'RSTP'"]),
        (replace(EVIO, evio=replace(EVIO.evio, overlay_ids=("EVIO1H", "EVIO1P"))), ["'EVIO1H'", "'EVIO1P'", "first 5"]),
        (
            replace(
                EVIO,
                host_overlay_cidr="fd00:10::/64",
                nodes=(replace(EVIO.nodes[0], host_overlay_address="fd00:10::1"),),
            ),
            ["evio_host_overlay_cidr", "fd00:10::/64", "IPv4"],
        ),
        (with_evio(host_account=""), ["evio_xmpp_host_account of node2: not given"]),
        (with_evio(pod_account=""), ["evio_xmpp_pod_account of node2: not given"]),
        (
            with_evio(pod_account="n2-hosts@x"),
            ["n2-hosts@x", "evio_xmpp_host_account of node2", "evio_xmpp_pod_account of node2"],
        ),
        (
            with_evio(pod_account="N1-Pods@x"),
            ["N1-Pods@x", "evio_xmpp_pod_account of node1", "evio_xmpp_pod_account of node2"],
        ),
        (with_evio(node_id="2"), ["NodeId", "'2'"]),
        (with_evio(node_id=node_id("kubernetes", "node1")), ["node1 and node2", "same 10 characters"]),
    ],
)
def test_cluster_that_cannot_work_is_refused_with_variable_and_value(cluster: Cluster, words: list[str]) -> None:
    with pytest.raises(EvioError) as raised:
        check_cluster(cluster)
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_node_that_the_cluster_does_not_need_may_leave() -> None:
    check_leaving(GOOD, ["node2"])


@pytest.mark.parametrize(
    ("cluster", "leaving", "words"),
    [
        (GOOD, [], "no node is named"),
        (GOOD, ["node9"], "'node9' is not in evio_nodes, which has node1, node2"),
        (GOOD, ["node1"], "no node left in evio_control_plane"),
        (replace(GOOD, control_plane=("node1", "node2")), ["node1"], "no relay left"),
        (replace(EVIO, control_plane=("node2",)), ["node1"], "no host left in evio_signalling"),
    ],
)
def test_node_that_the_cluster_needs_may_not_leave(cluster: Cluster, leaving: list[str], words: str) -> None:
    with pytest.raises(EvioError, match=words):
        check_leaving(cluster, leaving)


KUBEADM = replace(
    GOOD,
    pod_nodes=("node1", "node2"),
    kubernetes=KubernetesSite("kubeadm", node_names=("node1", "node2")),
)


def with_kubernetes(**settings: object) -> Cluster:
    return replace(KUBEADM, kubernetes=replace(KUBEADM.kubernetes, **settings))  # type: ignore[arg-type]


def test_clusters_of_kubeadm_that_can_work_pass() -> None:
    check_cluster(KUBEADM)
    check_cluster(with_kubernetes(endpoint="api.example.org:6443"))
    check_cluster(with_kubernetes(endpoint="[fd00::1]:6443"))
    check_cluster(replace(with_kubernetes(endpoint="10.10.0.1:6443"), control_plane=("node1", "node2")))


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (with_kubernetes(source="k3s"), "evio_kubernetes: 'k3s' is not one of none, kubeadm, existing"),
        (with_kubernetes(node_names=("Node_1",)), "evio_kubernetes_node_name: 'Node_1' cannot be the name"),
        (with_kubernetes(node_names=("a", "a")), "evio_kubernetes_node_name: 'a' is given to two hosts"),
        (replace(KUBEADM, pod_nodes=()), "group evio_pod_nodes: it has no host"),
        (replace(KUBEADM, pod_nodes=("node2",)), "group evio_control_plane: 'node1' is not in evio_pod_nodes"),
        (replace(KUBEADM, control_plane=("node1", "node2")), "evio_kubernetes_endpoint: not given, but"),
        (with_kubernetes(endpoint="10.10.0.1"), "evio_kubernetes_endpoint: '10.10.0.1' is not host:port"),
        (with_kubernetes(endpoint="10.10.0.1:70000"), "evio_kubernetes_endpoint: '10.10.0.1:70000' is not"),
    ],
)
def test_cluster_of_kubeadm_that_cannot_work_is_refused(cluster: Cluster, words: str) -> None:
    with pytest.raises(EvioError, match=re.escape(words)):
        check_cluster(cluster)


def test_kubernetes_that_is_left_alone_is_not_checked() -> None:
    check_cluster(replace(KUBEADM, pod_nodes=(), kubernetes=KubernetesSite(endpoint="x", node_names=("Node_1",))))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"overrides": {"Topology": {"TimerIntervall": 9}}}, "Topology.TimerIntervall: EdgeVPN.io 24 reads no such"),
        (
            {"overrides": {"Topology": {"Overlays": {"HOSTVL": {}}}}},
            "'HOSTVL' is not in Broker.Overlays; the nearest is",
        ),
        ({"overrides": {"LinkManager": {"Stun": []}}, "replaces_lists": True}, None),
        ({"overrides": {"LinkManager": {"Overlays": {"HOSTOVL": {"TapNamePrefix": "PODOV"}}}}}, "can be the same"),
        ({"tuning": EdgeVpnTuning(topology_interval=0)}, "Topology.TimerInterval: 0 is not 1 or more"),
        ({"tuning": EdgeVpnTuning(bounded_flood={"FlowIdelTimeout": 9})}, "the nearest is FlowIdleTimeout"),
        ({"tuning": EdgeVpnTuning(min_successors=3)}, None),
    ],
)
def test_settings_of_edgevpn_are_checked_before_a_node_is_changed(settings: dict[str, Any], words: str | None) -> None:
    cluster = with_evio(**settings)
    if words is None:
        check_cluster(cluster)
        return
    with pytest.raises(ClusterError, match=re.escape("settings of EdgeVPN.io for node2: ")) as error:
        check_cluster(cluster)
    assert words in str(error.value)
    check_cluster(replace(cluster, overlay="external"))


@pytest.mark.parametrize(
    "cluster",
    [
        replace(EVIO, evio=replace(EVIO.evio, switch_protocol="learning")),
        replace(
            EVIO,
            pod_cidr="10.244.0.0/16,fd00:244::/48",
            node_bits="8,16",
            evio=replace(EVIO.evio, switch_protocol="STP"),
        ),
        replace(
            EVIO,
            pod_cidr="10.244.0.0/16,fd00:244::/48",
            node_bits="8,16",
            nodes=(replace(EVIO.nodes[0], evio=EdgeVpnMember("n1-hosts@x")),),
            evio=replace(EVIO.evio, has_pod_overlay=False),
        ),
    ],
)
def test_edgevpn_cluster_that_can_work_is_accepted(cluster: Cluster) -> None:
    check_cluster(cluster)
