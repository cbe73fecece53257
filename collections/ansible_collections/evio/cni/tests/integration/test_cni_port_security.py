# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A pod that lies, with raw frames from inside it: nothing of what is not its own reaches a neighbour."""

from __future__ import annotations

import contextlib
import copy
import json
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .cni_runtime import CNI_PLUGINS, PLUGIN, NewPod, Node, PluginFailedError, Pod
from .ovs_daemons import in_namespace, inside_namespace

pytestmark = pytest.mark.root

_BROADCAST = b"\xff" * 6
_MARK = b"evio-test-frame"
_STRANGER_MAC, _STRANGER = b"\x02\0\0\0\0\x99", "10.244.3.99"


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"gateway": ["10.244.3.1/24", "fd00:10:244:3::1/64"]}


@pytest.fixture
def node(node: Node) -> Node:
    """The node, with pods of both families."""
    node.conf["ipam"]["ranges"].append([{"subnet": "fd00:10:244:3::/64"}])
    return node


def mac_of(pod: Pod) -> bytes:
    return bytes.fromhex(pod.result["interfaces"][2]["mac"].replace(":", ""))


def arp(mac: bytes, sender_mac: bytes, sender: str, *, operation: int = 2) -> bytes:
    """A frame from mac that says sender is at sender_mac."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender_mac + socket.inet_aton(sender)
    return _BROADCAST + mac + b"\x08\x06" + body + _BROADCAST + socket.inet_aton(sender) + _MARK


def ipv4(mac: bytes, source: str, *, tag: bytes = b"") -> bytes:
    payload = struct.pack("!HHHH", 9, 9, 8 + len(_MARK), 0) + _MARK
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0)
    return (
        _BROADCAST + mac + tag + b"\x08\x00" + head + socket.inet_aton(source) + socket.inet_aton("10.244.3.255")
    ) + payload


def ipv6(mac: bytes, source: str, next_header: int, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 255)
    packet = head + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "ff02::1") + payload
    return b"\x33\x33\0\0\0\x01" + mac + b"\x86\xdd" + packet


def advertisement(mac: bytes, source: str, target: str, target_mac: bytes) -> bytes:
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + socket.inet_pton(socket.AF_INET6, target)
    return ipv6(mac, source, 58, body + b"\x02\x01" + target_mac + _MARK)


def arrives(sender: Pod, receiver: Pod, frame: bytes) -> bool:
    """Whether a frame that the sender's pod puts on its wire comes out of the receiver's."""
    # What comes behind it, and is always let through, ends the wait. vswitchd keeps the order of frames that the
    # datapath does not know, but one that it knows would overtake them: so the last frame is for a MAC that is nowhere.
    unknown_mac = b"\x02" + secrets.token_bytes(5)
    end = unknown_mac + arp(mac_of(sender), mac_of(sender), sender.address, operation=1)[6:] + b"-end"
    with raw_socket(receiver) as listening, raw_socket(sender) as sending:
        sending.send(frame)
        sending.send(end)
        listening.settimeout(5)
        seen = b""
        while not seen.endswith(_MARK + b"-end"):
            seen = listening.recv(65536)
            if seen == frame:
                return True
    return False


@contextlib.contextmanager
def raw_socket(pod: Pod, ifname: str = "eth0") -> Iterator[socket.socket]:
    with inside_namespace(pod.netns):
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        packets.bind((ifname, 0x0003))
    with packets:
        yield packets


def test_what_is_its_own_passes(node: Node, new_pod: NewPod) -> None:
    pod, other = node.add(new_pod()), node.add(new_pod())
    own6 = pod.result["ips"][1]["address"].partition("/")[0]
    assert arrives(pod, other, arp(mac_of(pod), mac_of(pod), pod.address))
    assert arrives(pod, other, ipv4(mac_of(pod), pod.address))
    assert arrives(pod, other, ipv6(mac_of(pod), own6, 59, _MARK))
    assert arrives(pod, other, advertisement(mac_of(pod), own6, own6, mac_of(pod)))


def test_frames_with_another_source_are_dropped(node: Node, new_pod: NewPod) -> None:
    pod, other = node.add(new_pod()), node.add(new_pod())
    mac, own, theirs = mac_of(pod), pod.address, other.address
    own6, theirs6 = (one.result["ips"][1]["address"].partition("/")[0] for one in (pod, other))
    router = ipv6(mac, own6, 58, struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + _MARK)
    lies = {
        "frame of another MAC": ipv4(_STRANGER_MAC, own),
        "packet of another address": ipv4(mac, _STRANGER),
        "packet of the neighbour": ipv4(mac, theirs),
        "ARP for the gateway": arp(mac, mac, "10.244.3.1"),
        "ARP for the neighbour": arp(mac, mac, theirs),
        "ARP with another MAC": arp(mac, _STRANGER_MAC, own),
        "ARP from another MAC": arp(_STRANGER_MAC, mac, own),
        "VLAN tag": ipv4(mac, own, tag=b"\x81\x00\x00\x05"),
        "IPv6 of another address": ipv6(mac, "fd00:10:244:3::99", 59, _MARK),
        "IPv6 of the neighbour": ipv6(mac, theirs6, 59, _MARK),
        "advertisement for the gateway": advertisement(mac, own6, "fd00:10:244:3::1", mac),
        "advertisement for the neighbour": advertisement(mac, own6, theirs6, mac),
        "advertisement with another MAC": advertisement(mac, own6, own6, _STRANGER_MAC),
        "router advertisement": router,
        "another protocol": _BROADCAST + mac + b"\x88\xcc" + _MARK,
    }
    assert {name for name, frame in lies.items() if arrives(pod, other, frame)} == set()


def test_second_interface_forwards_nothing_before_its_flows_are_there(node: Node, new_pod: NewPod) -> None:
    """A running pod with NET_ADMIN sets the new interface up itself, while the IPAM plugin takes its time.

    The host's end is up by then, so nothing but the flow that closes the port keeps its frames back.
    """
    pod, other = node.add(new_pod()), node.add(new_pod())
    plugins, waiting = node.directory / "ipam-plugins", node.directory / "wait"
    plugins.mkdir()
    slow = plugins / "slow"
    slow.write_text(f"#!/bin/sh\nwhile [ -e {waiting} ]; do sleep 0.05; done\nexec {CNI_PLUGINS}/host-local\n")
    slow.chmod(0o755)
    waiting.touch()
    node.conf["ipam"]["type"] = slow.name
    frame = arp(_STRANGER_MAC, _STRANGER_MAC, "10.244.3.1")
    with ThreadPoolExecutor(1) as pool, raw_socket(other) as listening:
        second = pool.submit(node.add, copy.copy(pod), CNI_IFNAME="eth1", CNI_PATH=f"{plugins}:{CNI_PLUGINS}")
        try:
            until(lambda: len(node.ports()) == 3)
            pod.run("ip", "link", "set", "eth1", "up")
            with raw_socket(pod, "eth1") as sending:
                for _attempt in range(20):
                    sending.send(frame)
                    time.sleep(0.02)
        finally:
            waiting.unlink()
        second.result()
        with raw_socket(pod, "eth1") as sending:
            sending.send(frame)
        pod.run("arping", "-c1", "-U", "-I", "eth1", pod.address, check=False)
        listening.settimeout(1)
        seen = []
        with contextlib.suppress(TimeoutError):
            while True:
                seen.append(listening.recv(65536))
    assert frame not in seen
    assert any(received[6:12] != _STRANGER_MAC for received in seen), "the second interface sends at all"
    assert "eth1" in pod.run("ip", "-o", "link", "show", "up")


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_neighbours_traffic_cannot_be_taken_over(node: Node, new_pod: NewPod) -> None:
    liar, one, other = (node.add(new_pod()) for _pod in range(3))
    assert one.pings(other.address)
    with raw_socket(liar) as sending:
        for _attempt in range(20):
            sending.send(ipv4(mac_of(other), other.address))
            sending.send(arp(mac_of(liar), mac_of(liar), other.address))
    assert one.pings(other.address)
    neighbours = one.run("ip", "neighbour", "show", other.address)
    assert other.result["interfaces"][2]["mac"] in neighbours


def test_pods_with_port_security_reach_each_other(node: Node, new_pod: NewPod) -> None:
    pod, other = node.add(new_pod()), node.add(new_pod())
    for address in (other.address, "10.244.3.1", "fd00:10:244:3::1", other.result["ips"][1]["address"].split("/")[0]):
        assert pod.pings(address)


def test_port_security_can_be_turned_off(node: Node, new_pod: NewPod) -> None:
    pod, other = (node.add(new_pod(), portSecurity=False) for _pod in range(2))
    assert arrives(pod, other, ipv4(mac_of(pod), _STRANGER))
    assert node.flows() == []


def test_delete_takes_the_flows_of_the_pod_alone(node: Node, new_pod: NewPod) -> None:
    pod, other = node.add(new_pod()), node.add(new_pod())
    before = node.flows()
    node.delete(pod)
    assert len(node.dead_flows()) == len(before) / 2
    third = node.add(new_pod())
    assert node.dead_flows() == []
    assert len(node.flows()) == len(before)
    node.delete(third)
    node.delete(other)
    valid = {"cni.dev/valid-attachments": []}
    node.call("GC", cniVersion="1.1.0", **valid)
    assert node.flows() == []
    assert "evio-closed" not in node.switch.vsctl("get", "Bridge", "br-evio", "external_ids")


def test_flows_of_a_running_pod_stay_when_its_port_number_is_reused(node: Node, new_pod: NewPod) -> None:
    """A vswitchd that is started anew counts ports from the start again."""
    pod = node.add(new_pod())
    before = node.flows()
    number = node.switch.vsctl("get", "Interface", node.ports()[0], "ofport")
    node.switch.vsctl("set", "Bridge", "br-evio", f"external_ids:evio-closed-{number}=evpod0123456789")
    other = node.add(new_pod())
    assert set(before) <= set(node.flows())
    assert "evio-closed" not in node.switch.vsctl("get", "Bridge", "br-evio", "external_ids")
    node.switch.vsctl("set", "Bridge", "br-evio", f"external_ids:evio-closed-{number}=evpod0123456789")
    valid = [{"containerID": one.container_id, "ifname": "eth0"} for one in (pod, other)]
    node.call("GC", cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid})
    assert set(before) <= set(node.flows())


@pytest.mark.parametrize("change", [{"portSecurity": False}, {"ipam": {"type": "nowhere"}}])
def test_next_add_deletes_the_flows_of_a_deleted_pod(node: Node, new_pod: NewPod, change: dict[str, object]) -> None:
    node.delete(node.add(new_pod()))
    with contextlib.suppress(PluginFailedError):
        node.add(new_pod(), **change)
    assert node.dead_flows()
    assert "evio-closed" in node.switch.vsctl("get", "Bridge", "br-evio", "external_ids")
    node.add(new_pod())
    assert node.dead_flows() == []


def test_pods_reach_the_node_by_its_bridge_alone(node: Node, new_pod: NewPod) -> None:
    """Where the datapath is vswitchd's, the node's kernel sees what pods send before Open vSwitch does."""
    pod = node.add(new_pod())
    host_end = pod.result["interfaces"][1]
    # As the distribution's rules for new interfaces leave it.
    for setting in ("rp_filter=2", "arp_ignore=0"):
        in_namespace(node.switch.netns, "sysctl", "-qw", f"net.ipv4.conf.{host_end['name']}.{setting}")
    in_namespace(node.switch.netns, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
    command = ["nft", "add table inet watch; add chain inet watch in { type filter hook input priority 0; };"]
    command[1] += f'add rule inet watch in iifname "{host_end["name"]}" counter'
    in_namespace(node.switch.netns, *command)
    in_namespace(node.switch.netns, "ip", "address", "add", "10.10.0.3/32", "dev", "lo")
    pod.run("ip", "neighbour", "replace", "10.244.3.1", "lladdr", host_end["mac"], "dev", "eth0")
    assert not pod.pings("10.10.0.3")
    assert "packets 0" in in_namespace(node.switch.netns, "nft", "list", "table", "inet", "watch").stdout
    # What is for the subnet of the pods goes to the bridge's own device, whatever MAC it is for: ovs/pod_steering.
    assert pod.pings("10.244.3.1")
    assert "packets 0" in in_namespace(node.switch.netns, "nft", "list", "table", "inet", "watch").stdout
    pod.run("ip", "neighbour", "delete", "10.244.3.1", "dev", "eth0")
    assert pod.pings("10.10.0.3")


def test_check_names_flows_that_are_gone(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    in_namespace(
        node.switch.netns, "ovs-ofctl", "-O", "OpenFlow13", "del-flows", f"unix:{node.switch.directory}/br-evio.mgmt"
    )
    with pytest.raises(PluginFailedError, match=r"port-security flows of the port .* are missing"):
        node.call("CHECK", pod, prevResult=pod.result)


@pytest.fixture
def conf_dir(node: Node) -> Path:
    """The node's conflist, where the operator's commands find it."""
    directory = node.directory / "net.d"
    directory.mkdir()
    conflist = {"cniVersion": "1.0.0", "name": node.conf["name"], "plugins": [node.conf]}
    (directory / "10-evio.conflist").write_text(json.dumps(conflist))
    return directory


def repair(node: Node, conf_dir: Path, *, succeeds: bool = True) -> dict[str, Any]:
    command = [str(PLUGIN), "repair", "--json", "--conf-dir", str(conf_dir)]
    done = in_namespace(node.switch.netns, *command, check=False)
    assert (done.returncode == 0) == succeeds, done.stderr
    [result] = json.loads(done.stdout)
    return dict(result)


def restart_vswitchd(node: Node) -> None:
    """Kill vswitchd and start it; return when it has taken up the ports again."""
    node.switch.kill_vswitchd()
    node.switch.start_vswitchd()
    node.switch.vsctl("set", "Open_vSwitch", ".", "external_ids:awaited=yes")


class Forger(contextlib.AbstractContextManager["Forger"]):
    """A pod that sends forged ARP all the time, and a neighbour that counts how many of these frames reach it."""

    def __init__(self, liar: Pod, neighbour: Pod) -> None:
        self.sent = self.seen = 0
        self._frame = arp(mac_of(liar), mac_of(liar), _STRANGER)
        self._ends = threading.Event()
        self._stack = contextlib.ExitStack()
        self._sending = self._stack.enter_context(raw_socket(liar))
        self._listening = self._stack.enter_context(raw_socket(neighbour))
        self._listening.settimeout(0.1)
        self._threads = [threading.Thread(target=target) for target in (self._send, self._listen)]

    def __enter__(self) -> Forger:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        self._stack.close()

    def _send(self) -> None:
        while not self._ends.wait(0.001):
            # The liar's end has no carrier while its port is plugged in again.
            with contextlib.suppress(OSError):
                self._sending.send(self._frame)
                self.sent += 1

    def _listen(self) -> None:
        while not self._ends.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                self.seen += self._listening.recv(65536) == self._frame


def test_no_forged_frame_passes_while_vswitchd_is_started_again(node: Node, new_pod: NewPod, conf_dir: Path) -> None:
    liar, other = node.add(new_pod()), node.add(new_pod())
    # Each knows its gateway's MAC: what fails from here on is forwarding, not the search for a neighbour.
    assert other.pings("10.244.3.1")
    assert liar.pings(other.address)
    with Forger(liar, other) as forger:
        for _restart in range(3):
            restart_vswitchd(node)
            assert not other.pings("10.244.3.1")
            repair(node, conf_dir)
            assert other.pings("10.244.3.1")
            assert liar.pings(other.address)
    assert forger.sent > 100
    assert forger.seen == 0


def test_no_forged_frame_passes_while_repair_plugs_a_port_in(node: Node, new_pod: NewPod, conf_dir: Path) -> None:
    liar, other = node.add(new_pod()), node.add(new_pod())
    port = liar.result["interfaces"][1]["name"]
    with Forger(liar, other) as forger:
        for _round in range(10):
            node.switch.vsctl("del-port", port)
            assert repair(node, conf_dir)["plugged"] == [f"{liar.container_id} eth0"]
            node.switch.vsctl("set", "Port", port, "tag=5")
            assert repair(node, conf_dir)["plugged"] == [f"{liar.container_id} eth0"]
    assert forger.sent > 100
    assert forger.seen == 0
    assert liar.pings(other.address)


def test_no_forged_frame_passes_while_repair_replaces_flows(node: Node, new_pod: NewPod, conf_dir: Path) -> None:
    liar, other = node.add(new_pod()), node.add(new_pod())
    number = node.switch.vsctl("get", "Interface", liar.result["interfaces"][1]["name"], "ofport")
    target = f"unix:{node.switch.directory}/br-evio.mgmt"
    with Forger(liar, other) as forger:
        for _round in range(10):
            in_namespace(node.switch.netns, "ovs-ofctl", "-OOpenFlow13", "del-flows", target, f"in_port={number},arp")
            assert repair(node, conf_dir)["guarded"] == [f"{liar.container_id} eth0"]
    assert forger.sent > 100
    assert forger.seen == 0
    assert liar.pings(other.address)


def test_bridge_of_an_earlier_version_keeps_its_flows_when_it_is_made_secure(
    node: Node, new_pod: NewPod, conf_dir: Path
) -> None:
    """An earlier version left the fail mode ``standalone``; its pods keep running."""
    liar, other = node.add(new_pod()), node.add(new_pod())
    target = f"unix:{node.switch.directory}/br-evio.mgmt"
    foreign = "cookie=0x7,priority=5,udp,tp_dst=7,actions=mod_tp_dst:8,normal"
    ofctl = ["ovs-ofctl", "-OOpenFlow13"]
    in_namespace(node.switch.netns, *ofctl, "add-flow", target, foreign)
    flows = node.directory / "flows"
    command = [*ofctl, "--no-stats", "dump-flows", target]
    flows.write_text(in_namespace(node.switch.netns, *command).stdout)
    node.switch.vsctl("set", "Bridge", "br-evio", "fail_mode=standalone")
    in_namespace(node.switch.netns, *ofctl, "add-flows", target, str(flows))
    with Forger(liar, other) as forger:
        assert repair(node, conf_dir)["bridge"] == ["fail_mode"]
        assert sorted(in_namespace(node.switch.netns, *command).stdout.splitlines()) == sorted(
            flows.read_text().splitlines()
        )
        assert other.pings("10.244.3.1")
        assert liar.pings(other.address)
    assert forger.sent > 100
    assert forger.seen == 0


def test_pod_whose_journal_entry_is_damaged_is_guarded_or_closed(node: Node, new_pod: NewPod, conf_dir: Path) -> None:
    liar, other = node.add(new_pod()), node.add(new_pod())
    entry = node.directory / f"state/evio/{liar.container_id}:eth0"
    entry.write_text("{}")
    with Forger(liar, other) as forger:
        restart_vswitchd(node)
        [failure] = repair(node, conf_dir, succeeds=False)["failures"]
        assert "the journal entry is damaged" in failure
        assert "its port is guarded, from the external_ids" in failure
        assert liar.pings(other.address)
        for table in ("Port", "Interface"):
            node.switch.vsctl("remove", table, liar.result["interfaces"][1]["name"], "external_ids", "attached-mac")
        restart_vswitchd(node)
        failures = repair(node, conf_dir, succeeds=False)["failures"]
        assert any("its port is closed; recreate the pod" in failure for failure in failures)
        assert not liar.pings(other.address)
        assert other.pings("10.244.3.1")
        assert any("is closed" in one for one in repair(node, conf_dir, succeeds=False)["failures"])
        entry.unlink()
        assert any("is closed" in one for one in repair(node, conf_dir, succeeds=False)["failures"])
    assert forger.sent > 100
    assert forger.seen == 0


def test_repair_guards_ports_that_a_new_vswitchd_knows_nothing_of(node: Node, new_pod: NewPod, conf_dir: Path) -> None:
    pod, other = node.add(new_pod()), node.add(new_pod())
    guarded = len(node.flows())
    restart_vswitchd(node)
    assert node.flows() == []
    done = repair(node, conf_dir)
    assert sorted(done["guarded"]) == sorted(f"{one.container_id} eth0" for one in (pod, other))
    assert len(node.flows()) == guarded
    assert pod.pings(other.address)
    assert not arrives(pod, other, ipv4(mac_of(pod), _STRANGER))
