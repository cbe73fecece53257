#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compare traffic between pods of two nodes behind NATs: evio.cni against VXLAN as flannel sets it up.

evio.cni: pods on the node's OVS bridge (datapath netdev with TSO, or system), routed into WireGuard: encapsulated once.
bare: pods on a veth pair that the host routes into the same WireGuard, without a bridge.
VXLAN: pods on a Linux bridge, and flannel's VXLAN backend rebuilt by hand between the nodes' host overlay addresses, so
packets are encapsulated by VXLAN and then by the same WireGuard. flannel itself does not run.
All are measured in turns, round by round, so that other load on the machine affects all alike. WireGuard is that of a
kernel that has it. Then CPU time is that of the whole machine, because the kernel's threads belong to no program: in a
virtual machine of vm/ nothing else runs.
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

from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import slow_userspace_version  # noqa: E402
from ansible_collections.evio.cni.tests.integration.overlay_lab import (  # noqa: E402
    DEVICE_KIND,
    USERSPACE,
    Namespace,
    Node,
    OverlayLab,
)
from ansible_collections.evio.cni.tests.integration.ovs_daemons import OpenVSwitch  # noqa: E402

VXLAN_OVERHEAD = 50
"""Bytes of VXLAN in IPv4: Ethernet 14, VXLAN 8, UDP 8, IP 20 (RFC 7348)."""
OVERLAY_MTU = 1420
INNER_PACKET = 1000
"""Bytes of the IP packet whose growth on the wire is measured."""
LEAST_GAIN = 3.0
"""Throughput of evio.cni, divided by that of VXLAN, that is the goal on the userspace datapath and wireguard-go."""
MOST_OVERHEAD = 0.6
"""Bytes that evio.cni adds to a packet, divided by those that VXLAN adds, that is the goal."""
OURS, VXLAN, BARE = "evio.cni", "flannel VXLAN", "bare WireGuard"


@dataclass(frozen=True)
class PodPath:
    """A path between two pods: both ends, and the daemons whose CPU time it takes besides wireguard-go's."""

    name: str
    client: Namespace
    server: Namespace
    address: str
    daemons: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One measurement: TCP throughput in Mbit/s, CPU seconds for each GB received, and the ping's round trip in ms."""

    mbit: float
    cpu_per_gb: float
    rtt_ms: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each path (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=int, default=3, help="seconds of TCP in each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--datapath", choices=("netdev", "system"), default="netdev", help="of the bridges (default: %(default)s)"
    )
    parser.add_argument(
        "--whole-machine", action="store_true", help="count the CPU time of the whole machine for wireguard-go as well"
    )
    arguments = parser.parse_args()
    is_whole_machine = arguments.whole_machine or DEVICE_KIND != USERSPACE or arguments.datapath == "system"
    if DEVICE_KIND == USERSPACE:
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
        paths = [ours(stack, nodes, switches, arguments.datapath), vxlan(stack, nodes), bare(stack, nodes)]
        for path in paths:
            path.client.run("ping", "-q", "-c", "3", "-i", "0.2", path.address)
        samples: dict[str, list[Sample]] = {path.name: [] for path in paths}
        for number in range(arguments.rounds):
            for path in paths[:: 1 if number % 2 else -1]:
                samples[path.name].append(measure(path, nodes, arguments.seconds, is_whole_machine=is_whole_machine))
        overheads = {path.name: overhead(path, nodes[0]) for path in paths}
    print(f"datapath {arguments.datapath}, WireGuard: {DEVICE_KIND}")
    has_goals = DEVICE_KIND == USERSPACE and arguments.datapath == "netdev"
    return report(samples, overheads, has_goals=has_goals)


def use_fast_wireguard_go() -> None:
    """Put Debian 13's wireguard-go first in PATH if this machine's is slow and setup/wireguard-go can download it."""
    if slow_userspace_version():
        result = subprocess.run([str(ROOT / "setup/wireguard-go")], capture_output=True, text=True, timeout=120)
        if result.returncode == 0:
            directory = str(Path(result.stdout.strip()).parent)
            os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"
    sys.stdout.write(f"wireguard-go: {shutil.which('wireguard-go')}, {slow_userspace_version() or 'with offload'}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def open_vswitch(node: Node) -> Iterator[OpenVSwitch]:
    """Run an Open vSwitch in the node's network namespace."""
    directory = node.directory / "ovs"
    directory.mkdir()
    switch = OpenVSwitch(f"/proc/{node.namespace.pid}/ns/net", directory, tso=True)
    try:
        yield switch.start()
    finally:
        switch.stop()


def ours(stack: contextlib.ExitStack, nodes: list[Node], switches: list[OpenVSwitch], datapath: str) -> PodPath:
    """Set up a pod on each node's OVS bridge, routed into the overlay, as evio.cni does."""
    pods = []
    for node, switch in zip(nodes, switches, strict=True):
        host = node.namespace
        host.run("ip", "link", "del", "pods")
        switch.vsctl("add-br", "br-evio", "--", "set", "bridge", "br-evio", f"datapath_type={datapath}")
        switch.vsctl("set", "interface", "br-evio", f"mtu_request={OVERLAY_MTU}")
        host.run("ip", "address", "add", f"{node.pod_gateway}/24", "dev", "br-evio")
        host.run("ip", "link", "set", "br-evio", "up")
        pod = new_pod(stack, host, "evio", node.pod_subnet, OVERLAY_MTU)
        if datapath == "netdev":
            # OVS reads frames in user space; without this rule the node's kernel would answer the pod's ARP as well.
            rule = 'add chain netdev pods ingress { type filter hook ingress device "evio" priority 0; policy drop; }'
            host.run("nft", "add table netdev pods")
            host.run("nft", rule)
        switch.vsctl("add-port", "br-evio", "evio")
        pods.append(pod)
    daemons = tuple(switch._switch.pid for switch in switches if switch._switch is not None)
    return PodPath(OURS, pods[0], pods[1], nodes[1].pod_subnet.replace(".0/24", ".2"), daemons)


def vxlan(stack: contextlib.ExitStack, nodes: list[Node]) -> PodPath:
    """Set up a pod on each node as flannel's VXLAN backend does, with the host overlay as VXLAN's underlay."""
    mtu = OVERLAY_MTU - VXLAN_OVERHEAD
    pods = []
    for node, other in (nodes, nodes[::-1]):
        host, subnet = node.namespace, node.pod_subnet.replace("10.244.", "10.245.")
        host.run("ip", "link", "add", "cni0", "type", "bridge")
        host.run("ip", "link", "set", "cni0", "mtu", str(mtu), "up")
        host.run("ip", "address", "add", subnet.replace(".0/24", ".1/24"), "dev", "cni0")
        pod = new_pod(stack, host, "flannel", subnet, mtu)
        host.run("ip", "link", "set", "flannel", "master", "cni0")
        add_vxlan = (
            f"ip link add flannel.1 mtu {mtu} type vxlan id 1 local {node.address} dev evio0 dstport 8472 nolearning"
        )
        host.run(*add_vxlan.split())
        host.run("ip", "link", "set", "flannel.1", "address", f"0e:00:00:00:00:0{node.index}", "up")
        remote, mac = other.pod_subnet.replace("10.244.", "10.245."), f"0e:00:00:00:00:0{other.index}"
        gateway = remote.replace(".0/24", ".0")
        host.run(*f"bridge fdb add {mac} dev flannel.1 dst {other.address}".split())
        host.run(*f"ip neighbor add {gateway} lladdr {mac} dev flannel.1 nud permanent".split())
        host.run(*f"ip route add {remote} via {gateway} dev flannel.1 onlink".split())
        pods.append(pod)
    return PodPath(
        VXLAN, pods[0], pods[1], nodes[1].pod_subnet.replace("10.244.", "10.245.").replace(".0/24", ".2"), ()
    )


def bare(stack: contextlib.ExitStack, nodes: list[Node]) -> PodPath:
    """Set up a pod on each node at the end of a veth pair that the host routes: what WireGuard itself costs."""
    pods = []
    for node in nodes:
        host, prefix = node.namespace, node.pod_subnet.removesuffix(".0/24")
        pod = Namespace()
        stack.callback(pod.close)
        peer = f"type veth peer name eth0 mtu {OVERLAY_MTU} netns {pod.pid}"
        host.run(*f"ip link add bare mtu {OVERLAY_MTU} {peer}".split())
        host.run("ip", "address", "add", f"{prefix}.202/31", "dev", "bare")
        host.run("ip", "link", "set", "bare", "up")
        pod.run("ip", "link", "set", "eth0", "up")
        pod.run("ip", "address", "add", f"{prefix}.203/31", "dev", "eth0")
        pod.run("ip", "route", "add", "default", "via", f"{prefix}.202")
        pods.append(pod)
    return PodPath(BARE, pods[0], pods[1], nodes[1].pod_subnet.replace(".0/24", ".203"), ())


def new_pod(stack: contextlib.ExitStack, host: Namespace, port: str, subnet: str, mtu: int) -> Namespace:
    """Make a pod's namespace with eth0 and the second address of the subnet; the first is its gateway."""
    pod = Namespace()
    stack.callback(pod.close)
    host.run(*f"ip link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pod.pid}".split())
    host.run("ip", "link", "set", port, "up")
    pod.run("ip", "link", "set", "eth0", "up")
    pod.run("ip", "address", "add", subnet.replace(".0/24", ".2/24"), "dev", "eth0")
    pod.run("ip", "route", "add", "default", "via", subnet.replace(".0/24", ".1"))
    return pod


def measure(path: PodPath, nodes: list[Node], seconds: int, *, is_whole_machine: bool) -> Sample:
    """Measure TCP for some seconds, with the CPU time of the daemons and of both iperf3 processes; then ping.

    Or with the CPU time of the whole machine.
    """
    server = subprocess.Popen(path.server.command("iperf3", "-s", "-1", "-J"), stdout=subprocess.PIPE)
    daemons = [*path.daemons, *(pid for node in nodes for pid in node.wireguard_pids())]
    try:
        time.sleep(0.3)
        before, all_before = sum(map(cpu_seconds, daemons)), busy_seconds()
        client = json.loads(path.client.run("iperf3", "-c", path.address, "-t", str(seconds), "-J").stdout)
        carried, all_carried = sum(map(cpu_seconds, daemons)) - before, busy_seconds() - all_before
        server.communicate(timeout=20)
    finally:
        server.kill()
        server.wait()
    end = client["end"]
    received = end["sum_received"]["bytes"]
    percent = end["cpu_utilization_percent"]
    ends = (percent["host_total"] + percent["remote_total"]) / 100 * end["sum_received"]["seconds"]
    ping = path.client.run("ping", "-q", "-c", "30", "-i", "0.02", path.address).stdout
    rtt = float(re.search(r"= [\d.]+/([\d.]+)/", ping)[1])  # type: ignore[index]
    spent = all_carried if is_whole_machine else carried + ends
    return Sample(end["sum_received"]["bits_per_second"] / 1e6, spent / (received / 1e9), rtt)


def overhead(path: PodPath, node: Node) -> int:
    """Return the bytes that encapsulation adds: the most frequent length of outer packets on eth0, less the inner."""
    capture = subprocess.Popen(
        node.namespace.command("tcpdump", "-n", "-l", "-v", "-i", "eth0", "-c", "20", "udp and greater 900"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        time.sleep(0.5)
        path.client.run("ping", "-q", "-c", "20", "-i", "0.02", "-s", str(INNER_PACKET - 28), path.address)
        output, _ = capture.communicate(timeout=10)
    finally:
        capture.kill()
        capture.wait()
    return (
        statistics.mode(int(length) for length in re.findall(r"proto UDP \(17\), length (\d+)", output)) - INNER_PACKET
    )


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Return the time that all processors have not been idle (proc(5), /proc/stat)."""
    user, nice, system, _idle, _iowait, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def report(samples: dict[str, list[Sample]], overheads: dict[str, int], *, has_goals: bool) -> int:
    """Print the medians as a table; return 1 if a goal is missed, else 0. The kernel's way has no goals."""
    line = "{:14} {:>10} {:>10} {:>9} {:>16}\n"
    sys.stdout.write(line.format("", "TCP Mbit/s", "CPU s/GB", "RTT ms", f"B over {INNER_PACKET} B"))
    medians, costs, round_trips = {}, {}, {}
    for name, taken in samples.items():
        medians[name] = statistics.median(sample.mbit for sample in taken)
        cpu = costs[name] = statistics.median(sample.cpu_per_gb for sample in taken)
        rtt = round_trips[name] = statistics.median(sample.rtt_ms for sample in taken)
        sys.stdout.write(line.format(name, f"{medians[name]:.0f}", f"{cpu:.1f}", f"{rtt:.2f}", overheads[name]))
    for name in (VXLAN, BARE):
        ratios = [values[OURS] / values[name] for values in (medians, costs, round_trips)]
        sys.stdout.write(
            "{} / {}: TCP {:.2f} x, CPU for each GB {:.2f} x, round trip {:.2f} x\n".format(OURS, name, *ratios)
        )
    gain = medians[OURS] / medians[VXLAN]
    less = overheads[OURS] / overheads[VXLAN]
    if not has_goals:
        return 0
    sys.stdout.write(
        f"{OURS} against {VXLAN}: throughput {gain:.1f} x (goal: at least {LEAST_GAIN}), "
        f"overhead {less:.2f} x (goal: at most {MOST_OVERHEAD})\n"
    )
    return 0 if gain >= LEAST_GAIN and less <= MOST_OVERHEAD else 1


if __name__ == "__main__":
    sys.exit(main())
