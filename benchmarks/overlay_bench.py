#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pods of two nodes behind NATs: this overlay against the flannel way, both over the same WireGuard, in one run.

Ours: pods on the node's OVS bridge (userspace datapath with TSO), routed into the overlay, encapsulated once. The
flannel way: pods on a Linux bridge, kernel VXLAN between the nodes' host overlay addresses, so encapsulated twice.
The two are measured in turns, round by round, so that what else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import userspace_is_slow  # noqa: E402
from ansible_collections.evio.cni.tests.integration.overlay_lab import Namespace, Node, OverlayLab  # noqa: E402
from ansible_collections.evio.cni.tests.integration.ovs_daemons import OpenVSwitch  # noqa: E402

FLANNEL_MTU_LOSS = 50
"""Bytes of VXLAN in IPv4: Ethernet 14, VXLAN 8, UDP 8, IP 20."""
INNER_PACKET = 1000
LEAST_GAIN = 3.0
MOST_OVERHEAD = 0.6


@dataclass(frozen=True)
class Way:
    """One way from pod to pod: who talks, and whose CPU time carries it besides wireguard-go's."""

    name: str
    client: Namespace
    server: Namespace
    address: str
    daemons: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    mbit: float
    cpu_per_gb: float
    rtt_ms: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    use_fast_wireguard_go()
    with tempfile.TemporaryDirectory(prefix="evw-bench-") as directory, contextlib.ExitStack() as stack:
        lab = OverlayLab(Path(directory))
        stack.callback(lab.close)
        lab.public_node("relay")
        nodes = [lab.node(name, lab.router()) for name in ("first", "second")]
        switches = [stack.enter_context(open_vswitch(node)) for node in nodes]
        lab.start()
        for source, target in (nodes, nodes[::-1]):
            lab.wait_path(source, target, "direct")
        ways = [ours(stack, nodes, switches), flannel(stack, nodes)]
        for way in ways:
            way.client.run("ping", "-q", "-c", "3", "-i", "0.2", way.address)
        samples: dict[str, list[Sample]] = {way.name: [] for way in ways}
        for number in range(arguments.rounds):
            for way in ways[:: 1 if number % 2 else -1]:
                samples[way.name].append(measure(way, nodes, arguments.seconds))
        overheads = {way.name: overhead(way, nodes[0]) for way in ways}
    return report(samples, overheads)


def use_fast_wireguard_go() -> None:
    """Debian 13's, where it can be had: as a site with good throughput in mind would."""
    if userspace_is_slow():
        result = subprocess.run([str(ROOT / "setup/wireguard-go")], capture_output=True, text=True, timeout=120)
        if result.returncode == 0:
            directory = str(Path(result.stdout.strip()).parent)
            os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"
    sys.stdout.write(f"wireguard-go: {shutil.which('wireguard-go')}, {userspace_is_slow() or 'with offload'}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def open_vswitch(node: Node) -> Iterator[OpenVSwitch]:
    """The node's own Open vSwitch."""
    directory = node.directory / "ovs"
    directory.mkdir()
    switch = OpenVSwitch(f"/proc/{node.namespace.pid}/ns/net", directory, tso=True)
    try:
        yield switch.start()
    finally:
        switch.stop()


def ours(stack: contextlib.ExitStack, nodes: list[Node], switches: list[OpenVSwitch]) -> Way:
    pods = []
    for node, switch in zip(nodes, switches, strict=True):
        host = node.namespace
        host.run("ip", "link", "del", "pods")
        switch.vsctl("add-br", "br-evio", "--", "set", "bridge", "br-evio", "datapath_type=netdev")
        switch.vsctl("set", "interface", "br-evio", "mtu_request=1420")
        host.run("ip", "address", "add", f"{node.pod_gateway}/24", "dev", "br-evio")
        host.run("ip", "link", "set", "br-evio", "up")
        pod = new_pod(stack, host, "evio", node.pod_subnet, 1420)
        # The kernel of the node would answer the pod's ARP as well.
        rule = 'add chain netdev pods ingress { type filter hook ingress device "evio" priority 0; policy drop; }'
        host.run("nft", "add table netdev pods")
        host.run("nft", rule)
        switch.vsctl("add-port", "br-evio", "evio")
        pods.append(pod)
    daemons = tuple(switch._switch.pid for switch in switches if switch._switch is not None)
    return Way("evio.cni", pods[0], pods[1], nodes[1].pod_subnet.replace(".0/24", ".2"), daemons)


def flannel(stack: contextlib.ExitStack, nodes: list[Node]) -> Way:
    """What flannel's VXLAN backend sets up, with the host overlay as its underlay."""
    mtu = 1420 - FLANNEL_MTU_LOSS
    pods = []
    for node, other in (nodes, nodes[::-1]):
        host, subnet = node.namespace, node.pod_subnet.replace("10.244.", "10.245.")
        host.run("ip", "link", "add", "cni0", "type", "bridge")
        host.run("ip", "link", "set", "cni0", "mtu", str(mtu), "up")
        host.run("ip", "address", "add", subnet.replace(".0/24", ".1/24"), "dev", "cni0")
        pod = new_pod(stack, host, "flannel", subnet, mtu)
        host.run("ip", "link", "set", "flannel", "master", "cni0")
        vxlan = (
            f"ip link add flannel.1 mtu {mtu} type vxlan id 1 local {node.address} dev evio0 dstport 8472 nolearning"
        )
        host.run(*vxlan.split())
        host.run("ip", "link", "set", "flannel.1", "address", f"0e:00:00:00:00:0{node.index}", "up")
        remote, mac = other.pod_subnet.replace("10.244.", "10.245."), f"0e:00:00:00:00:0{other.index}"
        gateway = remote.replace(".0/24", ".0")
        host.run(*f"bridge fdb add {mac} dev flannel.1 dst {other.address}".split())
        host.run(*f"ip neighbor add {gateway} lladdr {mac} dev flannel.1 nud permanent".split())
        host.run(*f"ip route add {remote} via {gateway} dev flannel.1 onlink".split())
        pods.append(pod)
    return Way(
        "flannel way", pods[0], pods[1], nodes[1].pod_subnet.replace("10.244.", "10.245.").replace(".0/24", ".2"), ()
    )


def new_pod(stack: contextlib.ExitStack, host: Namespace, port: str, subnet: str, mtu: int) -> Namespace:
    pod = Namespace()
    stack.callback(pod.close)
    host.run(*f"ip link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pod.pid}".split())
    host.run("ip", "link", "set", port, "up")
    pod.run("ip", "link", "set", "eth0", "up")
    pod.run("ip", "address", "add", subnet.replace(".0/24", ".2/24"), "dev", "eth0")
    pod.run("ip", "route", "add", "default", "via", subnet.replace(".0/24", ".1"))
    return pod


def measure(way: Way, nodes: list[Node], seconds: float) -> Sample:
    """TCP for some seconds, and what it cost the daemons and both ends of it; then pings."""
    server = subprocess.Popen(way.server.command("iperf3", "-s", "-1", "-J"), stdout=subprocess.PIPE)
    daemons = [*way.daemons, *(pid for node in nodes for pid in node.wireguard_pids())]
    try:
        time.sleep(0.3)
        before = sum(map(cpu_seconds, daemons))
        client = json.loads(way.client.run("iperf3", "-c", way.address, "-t", str(seconds), "-J").stdout)
        carried = sum(map(cpu_seconds, daemons)) - before
        server.communicate(timeout=20)
    finally:
        server.kill()
        server.wait()
    end = client["end"]
    received = end["sum_received"]["bytes"]
    percent = end["cpu_utilization_percent"]
    ends = (percent["host_total"] + percent["remote_total"]) / 100 * end["sum_received"]["seconds"]
    ping = way.client.run("ping", "-q", "-c", "30", "-i", "0.02", way.address).stdout
    rtt = float(re.search(r"= [\d.]+/([\d.]+)/", ping)[1])  # type: ignore[index]
    return Sample(end["sum_received"]["bits_per_second"] / 1e6, (carried + ends) / (received / 1e9), rtt)


def overhead(way: Way, node: Node) -> int:
    """Bytes that an inner packet grows by: the outer packet most often seen in the node's network, less the inner."""
    capture = subprocess.Popen(
        node.namespace.command("tcpdump", "-n", "-l", "-v", "-i", "eth0", "-c", "20", "udp and greater 900"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        time.sleep(0.5)
        way.client.run("ping", "-q", "-c", "20", "-i", "0.02", "-s", str(INNER_PACKET - 28), way.address)
        output, _ = capture.communicate(timeout=10)
    finally:
        capture.kill()
        capture.wait()
    return (
        statistics.mode(int(length) for length in re.findall(r"proto UDP \(17\), length (\d+)", output)) - INNER_PACKET
    )


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(samples: dict[str, list[Sample]], overheads: dict[str, int]) -> int:
    """The medians as a table; 1 if the promise is not kept."""
    line = "{:12} {:>10} {:>10} {:>9} {:>16}\n"
    sys.stdout.write(line.format("", "TCP Mbit/s", "CPU s/GB", "RTT ms", f"B over {INNER_PACKET} B"))
    medians = {}
    for name, taken in samples.items():
        medians[name] = statistics.median(sample.mbit for sample in taken)
        cpu = statistics.median(sample.cpu_per_gb for sample in taken)
        rtt = statistics.median(sample.rtt_ms for sample in taken)
        sys.stdout.write(line.format(name, f"{medians[name]:.0f}", f"{cpu:.1f}", f"{rtt:.2f}", overheads[name]))
    gain = medians["evio.cni"] / medians["flannel way"]
    less = overheads["evio.cni"] / overheads["flannel way"]
    sys.stdout.write(
        f"throughput {gain:.1f} x (promised {LEAST_GAIN}), overhead {less:.2f} x (promised {MOST_OVERHEAD})\n"
    )
    return 0 if gain >= LEAST_GAIN and less <= MOST_OVERHEAD else 1


if __name__ == "__main__":
    sys.exit(main())
