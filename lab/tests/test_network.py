"""The lab's network behaves as the internet does: what NAT lets through and hides, and what faults take away."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import faults
import network
import pytest
from commands import NETNS_DIR, LabError
from state import Lab
from topology import Topology, plan

pytestmark = pytest.mark.root

INTERNET_ADDRESS = "198.51.100.254"

_IP_MTU = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}
_DONT_FRAGMENT = {4: (socket.IPPROTO_IP, 10, 2), 6: (socket.IPPROTO_IPV6, 23, 2)}
"""IP_MTU, the known MTU of a path, and IP_MTU_DISCOVER with PMTUDISC_DO, which sets DF (linux/in.h, in6.h)."""

Result = TypeVar("Result")

both_versions = pytest.mark.parametrize("topology", [plan(3), plan(3, version=6)], indirect=True, ids=["IPv4", "IPv6"])
ipv6 = pytest.mark.parametrize("topology", [plan(3, version=6)], indirect=True, ids=["IPv6"])


@pytest.fixture
def topology(lab: Lab, request: pytest.FixtureRequest) -> Topology:
    """The network of a lab whose nodes are not started: the default lab's, or that of a given plan."""
    planned: Topology = getattr(request, "param", plan(3))
    lab.write(planned, is_complete=True)
    network.build(lab.prefix, planned)
    return planned


@pytest.fixture
def udp(lab: Lab, topology: Topology) -> Iterator[Callable[[str, int], socket.socket]]:
    """Return a function that makes a bound UDP socket in a host's namespace."""
    sockets: list[socket.socket] = []

    def make(host: str, port: int) -> socket.socket:
        family = socket.AF_INET if topology.version == 4 else socket.AF_INET6
        made = _call_in_netns(lab, host, lambda: socket.socket(family, socket.SOCK_DGRAM))
        made.settimeout(1.0)
        made.bind(("", port))
        sockets.append(made)
        return made

    yield make
    for made in sockets:
        made.close()


def _call_in_netns(lab: Lab, host: str, work: Callable[[], Result]) -> Result:
    """Call work in a thread that enters the host's network namespace; the test's own thread stays in its namespace."""
    results: list[Result] = []

    def enter() -> None:
        namespace = os.open(f"{NETNS_DIR}/{lab.netns(host)}", os.O_RDONLY)
        try:
            _setns(namespace)
        finally:
            os.close(namespace)
        results.append(work())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(timeout=10)
    return results[0]


def _setns(namespace: int) -> None:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, 0x40000000) != 0:  # CLONE_NEWNET, linux/sched.h
        raise OSError(ctypes.get_errno(), "setns")


def _is_heard(sender: socket.socket, address: tuple[str, int], receiver: socket.socket) -> bool:
    sender.sendto(b"?", address)
    receiver.settimeout(0.3)
    try:
        receiver.recvfrom(16)
    except TimeoutError:
        return False
    return True


def _await(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 3
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_internet_sees_the_router_and_the_node_s_own_port(udp: Callable[[str, int], socket.socket]) -> None:
    outside, inside = udp("internet", 4000), udp("node2", 51820)
    inside.sendto(b"?", (INTERNET_ADDRESS, 4000))
    assert outside.recvfrom(16)[1] == ("198.51.100.22", 51820)


def test_internet_tells_nodes_with_the_same_private_address_apart(udp: Callable[[str, int], socket.socket]) -> None:
    outside = udp("internet", 4000)
    for node, address in (("node2", "198.51.100.22"), ("node3", "198.51.100.23")):
        inside = udp(node, 51820)
        assert inside.getsockname()[1] == 51820
        inside.sendto(b"?", (INTERNET_ADDRESS, 4000))
        assert outside.recvfrom(16)[1] == (address, 51820)
        outside.sendto(b"!", (address, 51820))
        assert inside.recvfrom(16)[0] == b"!"


@both_versions
def test_unsolicited_packet_reaches_neither_node_nor_router(
    topology: Topology, udp: Callable[[str, int], socket.socket]
) -> None:
    node1, node2, _ = topology.nodes
    router = topology.routers[0]
    outside, inside, at_router = udp("internet", 4000), udp("node2", 51820), udp(router.name, 51821)
    assert not _is_heard(outside, (topology.public_address(node2), 51820), inside)
    assert not _is_heard(outside, (router.wan_address, 51821), at_router)
    assert _is_heard(outside, (node1.host, 4001), udp("node1", 4001))


@both_versions
def test_two_nodes_behind_routers_that_keep_ports_punch_a_hole(
    topology: Topology, udp: Callable[[str, int], socket.socket]
) -> None:
    _, node2, node3 = topology.nodes
    one, other = udp("node2", 51820), udp("node3", 51820)
    assert not _is_heard(one, (topology.public_address(node3), 51820), other)
    assert _is_heard(other, (topology.public_address(node2), 51820), one)
    assert _is_heard(one, (topology.public_address(node3), 51820), other)


@ipv6
def test_internet_sees_the_address_of_a_node_behind_a_firewall(
    topology: Topology, udp: Callable[[str, int], socket.socket]
) -> None:
    outside, inside = udp("internet", 4000), udp("node2", 51820)
    inside.sendto(b"?", (topology.internet_address, 4000))
    assert outside.recvfrom(16)[1][:2] == ("2001:db8:22::10", 51820)


@ipv6
def test_site_with_another_prefix_gets_nothing_out_under_the_old_one(
    lab: Lab, topology: Topology, udp: Callable[[str, int], socket.socket]
) -> None:
    faults.readdress(lab, topology, topology.node("node2"))
    outside, inside = udp("internet", 4000), udp("node2", 51820)
    inside.sendto(b"?", (topology.internet_address, 4000))
    assert outside.recvfrom(16)[1][:2] == ("2001:db8:1::10", 51820)
    assert lab.topology().node("node2").host == "2001:db8:1::10"
    with _call_in_netns(lab, "node2", lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as stale:
        stale.bind(("2001:db8:22::10", 4001))
        assert not _is_heard(stale, (topology.internet_address, 4000), outside)


@pytest.mark.parametrize(
    "topology", [plan(3, mtu=1280), plan(3, version=6, mtu=1280)], indirect=True, ids=["IPv4", "IPv6"]
)
def test_node_behind_an_uplink_with_a_small_mtu_learns_it_from_its_router(
    topology: Topology, udp: Callable[[str, int], socket.socket]
) -> None:
    node, version = udp("node2", 51820), topology.version
    node.setsockopt(*_DONT_FRAGMENT[version])
    node.connect((topology.internet_address, 4000))
    assert node.getsockopt(*_IP_MTU[version]) == 1500
    node.send(b"?" * (1281 - 8 - (20 if version == 4 else 40)))
    _await(lambda: node.getsockopt(*_IP_MTU[version]) == 1280)


@both_versions
def test_symmetric_router_has_another_port_for_each_destination(
    lab: Lab, topology: Topology, udp: Callable[[str, int], socket.socket]
) -> None:
    faults.switch_nat(lab, topology, topology.node("node2"), "symmetric")
    destinations = [udp("internet", port) for port in range(4000, 4008)]
    node = udp("node2", 51820)
    seen = set()
    for destination in destinations:
        node.sendto(b"?", (topology.internet_address, destination.getsockname()[1]))
        seen.add(destination.recvfrom(16)[1][:2])
    assert len({port for _, port in seen}) == len(destinations)
    assert {address for address, _ in seen} == {topology.routers[0].wan_address}
    assert lab.topology().routers[0].nat == "symmetric"


@both_versions
def test_router_that_forgets_drops_replies_to_earlier_packets(
    lab: Lab, topology: Topology, udp: Callable[[str, int], socket.socket]
) -> None:
    outside, node = udp("internet", 4000), udp("node2", 51820)
    seen_as = topology.public_address(topology.node("node2"))
    assert _is_heard(node, (topology.internet_address, 4000), outside)
    assert _is_heard(outside, (seen_as, 51820), node)
    faults.forget(lab, topology, topology.node("node2"))
    assert not _is_heard(outside, (seen_as, 51820), node)


def test_public_node_has_no_router_that_could_forget(lab: Lab, topology: Topology) -> None:
    with pytest.raises(LabError, match="node1 is public"):
        faults.forget(lab, topology, topology.node("node1"))


@pytest.mark.parametrize("name", ["node1", "node2"])
def test_cut_node_sends_nothing_and_keeps_its_carrier_until_it_is_healed(
    lab: Lab, topology: Topology, udp: Callable[[str, int], socket.socket], name: str
) -> None:
    outside, inside = udp("internet", 4000), udp(name, 51820)
    assert _is_heard(inside, (INTERNET_ADDRESS, 4000), outside)
    faults.cut(lab, topology.node(name))
    assert not _is_heard(inside, (INTERNET_ADDRESS, 4000), outside)
    carrier = subprocess.run(
        ["ip", "netns", "exec", lab.netns(name), "cat", "/sys/class/net/eth0/carrier"], capture_output=True, check=True
    )
    assert carrier.stdout == b"1\n"
    faults.heal(lab, topology.node(name))
    assert _is_heard(inside, (INTERNET_ADDRESS, 4000), outside)


@pytest.mark.parametrize("planned", [plan(3), plan(3, version=6)], ids=["IPv4", "IPv6"])
def test_network_of_the_machine_itself_does_not_change(lab: Lab, planned: Topology) -> None:
    def own() -> tuple[object, ...]:
        names = ("ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv6/conf/all/forwarding")
        settings = [Path(f"/proc/sys/net/{name}").read_text() for name in names]
        rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout
        return sorted(os.listdir("/sys/class/net")), settings, rules

    before = own()
    network.build(lab.prefix, planned)
    assert own() == before
