# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The overlay with a hostile peer, and on a node where another program has its port: real agents and devices."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import PROBE_PORT, probe_address
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import USERSPACE

from .overlay_lab import DEVICE_KIND, Node, OverlayLab, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        DEVICE_KIND == USERSPACE and shutil.which("wireguard-go") is None,
        reason="wireguard-go is not installed: setup/machine",
    ),
]

DIRECT = "direct"

FLOOD = """
import json, socket, sys, time
source, address, targets = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
port, seconds, per_second = map(int, sys.argv[4:])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind((source, port))
messages = [
    b'{"probe":["up",1e999,null,0,[]]}', b'{"probe":["down",1,null,0,["192.168.1.2:1"]]}', b"nonsense",
    b'{"probe":["up",1,null,0,["192.168.1.3:1"]]}', b'{"table":[["10.10.0.1","[fe80::1%x]:1",true,[]]]}',
    b'{"poll":["up",1,null,0,true]}', b'{"answer":["down",1,null,0,true,"192.0.2.7:1"]}',
]
# Calls for all nodes and for many that there are not, in its own name and in the first node's.
everybody = [f"10.10.{number // 250}.{number % 250 + 1}" for number in range(1000)]
for first in range(0, 1000, 50):
    for caller in (address, "10.10.0.1"):
        call = [caller, everybody[first : first + 50], ["10.10.0.1"], None, ["192.168.1.2:1"], False]
        messages.append(json.dumps({"call": call}).encode())
start, sent = time.monotonic(), 0
while (elapsed := time.monotonic() - start) < seconds:
    while sent < elapsed * per_second:
        for target in targets:
            try:
                sender.sendto(messages[sent % len(messages)], (target, port))
            except OSError:
                pass
        sent += 1
    time.sleep(0.002)
print(sent)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[OverlayLab]:
    overlay_lab = OverlayLab(tmp_path)
    try:
        yield overlay_lab
    finally:
        overlay_lab.close()


def flood(source: Node, targets: list[Node], seconds: int, per_second: int) -> subprocess.Popen[str]:
    """Send messages to the agents of these nodes as the agent of the source would; it must not run."""
    addresses = ",".join(probe_address(target.address) for target in targets)
    arguments = [
        probe_address(source.address),
        source.address,
        addresses,
        str(PROBE_PORT),
        str(seconds),
        str(per_second),
    ]
    return subprocess.Popen(
        source.namespace.command(sys.executable, "-c", FLOOD, *arguments), stdout=subprocess.PIPE, text=True
    )


def ping_loss_and_rtt(source: Node, address: str, seconds: int) -> tuple[float, float]:
    """Return the lost packets in percent and the mean round trip in ms, of 50 pings a second."""
    count = str(seconds * 50)
    output = source.namespace.run("ping", "-n", "-q", "-c", count, "-i", "0.02", "-W", "1", address, check=False).stdout
    loss, rtt = re.search(r"([0-9.]+)% packet loss", output), re.search(r"= [0-9.]+/([0-9.]+)/", output)
    assert loss is not None
    assert rtt is not None, output
    return float(loss.group(1)), float(rtt.group(1))


def test_flood_of_one_peer_leaves_the_paths_of_others_as_they_are(lab: OverlayLab) -> None:
    relay, loud = lab.public_node("relay"), lab.public_node("loud")
    first, second = lab.node("first", lab.router()), lab.node("second", lab.router())
    lab.start()
    lab.wait_path(first, second, DIRECT)
    lab.wait_path(second, first, DIRECT)
    lab.wait_reachable()
    loud.stop()
    quiet_loss, quiet_rtt = ping_loss_and_rtt(first, second.pod_gateway, 5)
    victims = [relay, first, second]
    sender = flood(loud, victims, seconds=9, per_second=5000 // len(victims))
    time.sleep(1)
    loss, rtt = ping_loss_and_rtt(first, second.pod_gateway, 6)
    sent = int(sender.communicate(timeout=30)[0])
    print(f"loss {quiet_loss} -> {loss} %, rtt {quiet_rtt} -> {rtt} ms, {sent} messages to each")
    assert loss <= quiet_loss + 2
    assert rtt <= quiet_rtt + 20
    for node in victims:
        assert node.agent is not None
        assert node.agent.poll() is None
        assert len([line for line in node.log.read_text().splitlines() if "loud" in line]) <= 15, node.log.read_text()
        assert node.state()["fault"] is None
    assert first.paths()["second"] == second.paths()["first"] == DIRECT
    loud.start()
    lab.wait_path(first, loud, DIRECT, 75)


NEIGHBOUR_FLOOD = """
import os, socket, sys, time
target, port, seconds, per_second = sys.argv[1], *map(int, sys.argv[2:])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
# A probe, or the start of a handshake of a key that the node does not know (WireGuard paper, 5.4.2).
message = b'{"probe":["up",1,null,0,[]]}' if port == 51821 else bytes([1, 0, 0, 0]) + os.urandom(144)
start, sent = time.monotonic(), 0
while (elapsed := time.monotonic() - start) < seconds:
    while sent < elapsed * per_second:
        try:
            sender.sendto(message, (target, port))
        except OSError:
            pass
        sent += 1
    time.sleep(0.002)
print(sent)
"""


@pytest.mark.parametrize(("neighbour", "port"), [("pod", PROBE_PORT), ("LAN", PROBE_PORT), ("LAN", 51820)])
def test_flood_of_a_neighbour_leaves_the_paths_of_a_node_as_they_are(
    lab: OverlayLab, neighbour: str, port: int
) -> None:
    """5000 datagrams a second to one node's probe port, from a pod of it or its LAN; or to its WireGuard port."""
    victim, second = lab.public_node("victim"), lab.node("second", lab.router())
    loud = lab.neighbour(victim, neighbour)
    lab.start()
    lab.wait_path(victim, second, DIRECT)
    lab.wait_path(second, victim, DIRECT)
    lab.wait_reachable()
    quiet_loss, quiet_rtt = ping_loss_and_rtt(victim, second.pod_gateway, 5)
    address = probe_address(victim.address) if port == PROBE_PORT else "198.51.100.11"
    sender = subprocess.Popen(
        loud.command(sys.executable, "-c", NEIGHBOUR_FLOOD, address, str(port), "9", "5000"),
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(1)
    loss, rtt = ping_loss_and_rtt(victim, second.pod_gateway, 6)
    sent = int(sender.communicate(timeout=30)[0])
    print(f"loss {quiet_loss} -> {loss} %, rtt {quiet_rtt} -> {rtt} ms, {sent} messages")
    assert sent > 9 * 4000
    assert loss <= quiet_loss + 2
    assert rtt <= quiet_rtt + 20
    assert victim.state()["fault"] is None
    assert victim.paths()["second"] == second.paths()["victim"] == DIRECT
    assert len(victim.log.read_text().splitlines()) <= 15, victim.log.read_text()


def udp_holder(node: Node, port: int) -> subprocess.Popen[str]:
    """Hold the UDP port of the node, as another program does."""
    code = (
        f"import socket,time;s=socket.socket(2,2);s.bind(('0.0.0.0',{port}));print('held',flush=True);time.sleep(600)"
    )
    holder = subprocess.Popen(node.namespace.command(sys.executable, "-c", code), stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_used_port_is_a_fault_until_it_is_free(lab: OverlayLab) -> None:
    relay, other = lab.public_node("relay"), lab.public_node("other")
    holder = udp_holder(other, 51820)
    try:
        lab.start()
        wait_until(lambda: "51820 is used" in (other.state().get("fault") or ""), 10, "a fault", lab)
        time.sleep(12)
        assert "51820 is used" in other.state()["fault"]
    finally:
        holder.kill()
        holder.wait()
    wait_until(lambda: other.state()["fault"] is None, 10, "no fault", lab)
    lab.wait_reachable(10)
    lab.wait_path(relay, other, DIRECT, 10)


def test_changed_port_and_key_of_the_device_are_set_back(lab: OverlayLab) -> None:
    relay, other = lab.public_node("relay"), lab.public_node("other")
    lab.start()
    lab.wait_path(relay, other, DIRECT)
    foreign = lab.directory / "foreign.key"
    foreign.write_text(other.namespace.run("wg", "genkey").stdout)
    for changed in (["listen-port", "1234"], ["private-key", str(foreign)]):
        other.namespace.run("wg", "set", "evio0", *changed)
        wait_until(
            lambda: (
                other.namespace.run("wg", "show", "evio0", "listen-port").stdout.strip() == "51820"
                and other.namespace.run("wg", "show", "evio0", "public-key").stdout.strip() == other.public_key
            ),
            7,
            "port and key",
            lab,
        )
    lab.wait_reachable(15)


def test_bad_file_is_a_fault_until_it_is_mended_and_paths_stay(lab: OverlayLab) -> None:
    relay, other = lab.public_node("relay"), lab.public_node("other")
    lab.start()
    lab.wait_path(relay, other, DIRECT)
    good = (other.directory / "overlay.json").read_bytes()
    for bad in (b"{", b"\xff\xfe\x00", b'{"schema": 1, "peers": [{"name": 1e999}]}'):
        (other.directory / "overlay.json").write_bytes(bad)
        wait_until(lambda: bool(other.state()["fault"]), 5, "a fault", lab)
        time.sleep(2)
        assert other.state()["fault"]
        assert other.pings(relay.address)
        (other.directory / "overlay.json").write_bytes(good)
        wait_until(lambda: other.state()["fault"] is None, 5, "no fault", lab)
    assert other.paths() == {"relay": DIRECT}


FORMER_VERSION = """
import re, sys
sys.path.insert(0, re.search("sys.path.insert\\(0, '([^']*)'", open(sys.argv.pop(1)).read()).group(1))
from evio_cni.overlay.wireguard import config, interface, path_selection, probe_socket
for module in (config, interface, path_selection):
    module.probe_address = config.former_probe_address
probe_socket.ProbeSocket.__init__.__defaults__ = (config.former_probe_address,)
from evio_program.overlay_commands import run_overlay
sys.exit(run_overlay(sys.argv[2:]))
"""
"""The agent with the probe addresses of former versions."""


def test_nodes_of_a_former_version_and_of_this_one_reach_each_other_during_an_upgrade(lab: OverlayLab) -> None:
    nodes = relay, first, second = (
        lab.public_node("relay"),
        lab.node("first", lab.router()),
        lab.node("second", lab.router()),
    )
    present = relay.program
    for node in nodes:
        node.program = ("/usr/bin/python3", "-c", FORMER_VERSION, *present)
    lab.start()

    def wait_all_direct() -> None:
        for source, target in lab.pairs():
            lab.wait_path(source, target, DIRECT, 25)

    def former_addresses(node: Node) -> bool:
        shown = node.namespace.run("ip", "-4", "address", "show", "dev", "evio0").stdout
        return "169.254." in shown + node.namespace.run("ip", "-4", "route", "show", "dev", "evio0").stdout

    wait_all_direct()
    for node in (relay, first):
        node.stop()
        node.program = present
        node.start()
    time.sleep(6)
    wait_all_direct()
    time.sleep(6)
    assert second.paths() == {"relay": DIRECT, "first": DIRECT}
    assert first.paths() == {"relay": DIRECT, "second": DIRECT}
    assert former_addresses(first)
    second.stop()
    second.program = present
    second.start()
    time.sleep(6)
    wait_all_direct()
    for node in nodes:
        wait_until(lambda: not former_addresses(node), 15, f"no former address on {node.name}", lab)  # noqa: B023
    wait_all_direct()
    lab.wait_reachable()
    shown = first.namespace.run("wg", "show", "evio0", "allowed-ips").stdout
    assert "169.254." not in shown
    assert f"{probe_address(second.address)}/32" in shown


def test_new_node_never_takes_link_local_addresses(lab: OverlayLab) -> None:
    relay, other = lab.public_node("relay"), lab.public_node("other")
    lab.start()
    lab.wait_path(relay, other, DIRECT)
    for table in (["address"], ["route", "show", "table", "all"]):
        assert "169.254." not in other.namespace.run("ip", "-4", *table).stdout


def test_relay_with_a_dns_name_is_found_again_at_its_new_address(lab: OverlayLab) -> None:
    relay, first, second = (
        lab.public_node("relay"),
        lab.node("first", lab.router()),
        lab.node("second", lab.router()),
    )
    relay.endpoint = "relay.example.org:51820"
    hosts = lab.directory / "hosts"

    def set_address(address: str) -> None:
        hosts.write_text(f"127.0.0.1 localhost\n{address} relay.example.org\n")

    # Nothing has the name at first: the agents start all the same.
    set_address("127.0.0.1")
    for node in (first, second):
        node.namespace.run("mount", "--bind", str(hosts), "/etc/hosts")
    lab.start()
    wait_until(lambda: "relay.example.org:51820 has no address" in first.log.read_text(), 10, "a warning", lab)
    set_address("198.51.100.11")
    lab.wait_path(first, second, DIRECT, 30)
    lab.wait_path(first, relay, DIRECT)
    relay.namespace.run("ip", "address", "flush", "dev", "eth0")
    relay.namespace.run("ip", "address", "add", "198.51.100.77/24", "dev", "eth0")
    relay.namespace.run("ip", "route", "add", "default", "via", "198.51.100.254")
    # The relay has no endpoint to begin with: both agents must ask for the name again.
    relay.stop()
    relay.namespace.run("ip", "link", "delete", "evio0")
    set_address("198.51.100.77")
    relay.start()
    for node in (first, second):
        wait_until(
            lambda: "198.51.100.77:51820" in node.namespace.run("wg", "show", "evio0", "endpoints").stdout,  # noqa: B023
            30,
            "the new address",
            lab,
        )
        lab.wait_path(node, relay, DIRECT, 30)


def test_lan_inside_the_overlay_is_a_fault_until_it_is_gone(lab: OverlayLab) -> None:
    relay, other = lab.public_node("relay"), lab.public_node("other")
    other.namespace.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "far")
    other.namespace.run("ip", "link", "set", "lan", "up")
    lab.start()
    lab.wait_path(relay, other, DIRECT)
    for found in ("address 10.10.7.1/24", "route to 10.244.77.0/24", "route to 247.1.0.0/16"):
        kind, _to, cidr = found.rpartition(" ")
        command = ("address", "add", cidr, "dev", "lan") if kind == "address" else ("route", "add", cidr, "dev", "lan")
        other.namespace.run("ip", *command)
        words = f"the interface lan has the {found}"
        wait_until(lambda: words in (other.state()["fault"] or ""), 12, words, lab)  # noqa: B023
        other.namespace.run("ip", command[0], "del", *command[2:])
        wait_until(lambda: other.state()["fault"] is None, 12, "no fault", lab)
