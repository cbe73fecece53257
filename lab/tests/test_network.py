"""The small internet behaves as the real one: what NAT lets through, what it hides, and what a fault takes away."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import faults
import network
import pytest
from commands import NETNS_DIR, LabError
from places import Lab
from topology import INTERNET_ADDRESS, Topology, plan

pytestmark = pytest.mark.root

Result = TypeVar("Result")


@pytest.fixture
def topology(lab: Lab) -> Topology:
    """The default lab's network, without its nodes' insides."""
    planned = plan(3)
    lab.write(planned, is_complete=True)
    network.build(lab.prefix, planned)
    return planned


@pytest.fixture
def udp(lab: Lab, topology: Topology) -> Iterator[Callable[[str, int], socket.socket]]:
    """Makes a UDP socket in a host's namespace."""
    sockets: list[socket.socket] = []

    def make(host: str, port: int) -> socket.socket:
        made = _inside(lab, host, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.settimeout(1.0)
        made.bind(("", port))
        sockets.append(made)
        return made

    yield make
    for made in sockets:
        made.close()


def _inside(lab: Lab, host: str, work: Callable[[], Result]) -> Result:
    """Call work in a thread that has entered the host's network namespace: the test's own thread stays where it is."""
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


def test_internet_sees_the_router_and_the_node_s_own_port(udp: Callable[[str, int], socket.socket]) -> None:
    outside, inside = udp("internet", 4000), udp("node2", 51820)
    inside.sendto(b"?", (INTERNET_ADDRESS, 4000))
    assert outside.recvfrom(16)[1] == ("198.51.100.22", 51820)


def test_nodes_with_the_same_address_are_two_to_the_internet(udp: Callable[[str, int], socket.socket]) -> None:
    outside = udp("internet", 4000)
    for node, address in (("node2", "198.51.100.22"), ("node3", "198.51.100.23")):
        inside = udp(node, 51820)
        assert inside.getsockname()[1] == 51820
        inside.sendto(b"?", (INTERNET_ADDRESS, 4000))
        assert outside.recvfrom(16)[1] == (address, 51820)
        outside.sendto(b"!", (address, 51820))
        assert inside.recvfrom(16)[0] == b"!"


def test_what_nobody_asked_for_reaches_neither_node_nor_router(
    lab: Lab, udp: Callable[[str, int], socket.socket]
) -> None:
    outside, node, router = udp("internet", 4000), udp("node2", 51820), udp("nat2", 51821)
    assert not _is_heard(outside, ("198.51.100.22", 51820), node)
    assert not _is_heard(outside, ("198.51.100.22", 51821), router)
    assert _is_heard(outside, ("198.51.100.11", 4001), udp("node1", 4001))


def test_two_nodes_behind_preserving_routers_punch_a_hole(udp: Callable[[str, int], socket.socket]) -> None:
    one, other = udp("node2", 51820), udp("node3", 51820)
    assert not _is_heard(one, ("198.51.100.23", 51820), other)
    assert _is_heard(other, ("198.51.100.22", 51820), one)
    assert _is_heard(one, ("198.51.100.23", 51820), other)


def test_symmetric_router_has_another_port_for_each_destination(
    lab: Lab, topology: Topology, udp: Callable[[str, int], socket.socket]
) -> None:
    faults.switch_nat(lab, topology, topology.node("node2"), "symmetric")
    destinations = [udp("internet", port) for port in range(4000, 4008)]
    node = udp("node2", 51820)
    seen = set()
    for destination in destinations:
        node.sendto(b"?", (INTERNET_ADDRESS, destination.getsockname()[1]))
        seen.add(destination.recvfrom(16)[1][1])
    assert len(seen) == len(destinations)
    assert lab.topology().routers[0].nat == "symmetric"


def test_router_that_forgets_lets_no_more_answers_in(
    lab: Lab, topology: Topology, udp: Callable[[str, int], socket.socket]
) -> None:
    outside, node = udp("internet", 4000), udp("node2", 51820)
    assert _is_heard(node, (INTERNET_ADDRESS, 4000), outside)
    assert _is_heard(outside, ("198.51.100.22", 51820), node)
    faults.forget(lab, topology, topology.node("node2"))
    assert not _is_heard(outside, ("198.51.100.22", 51820), node)


def test_public_node_has_no_router_to_forget_anything(lab: Lab, topology: Topology) -> None:
    with pytest.raises(LabError, match="node1 is public"):
        faults.forget(lab, topology, topology.node("node1"))


@pytest.mark.parametrize("name", ["node1", "node2"])
def test_cut_node_hears_nothing_and_keeps_its_carrier_until_it_is_healed(
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


def test_machine_s_own_namespace_stays_as_it_was(lab: Lab) -> None:
    def own() -> tuple[object, ...]:
        settings = [Path(f"/proc/sys/net/ipv4/{name}").read_text() for name in ("ip_forward", "conf/all/rp_filter")]
        rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout
        return sorted(os.listdir("/sys/class/net")), settings, rules

    before = own()
    network.build(lab.prefix, plan(3))
    assert own() == before
