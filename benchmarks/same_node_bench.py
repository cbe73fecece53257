#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compare traffic between two pods of one node: evio.cni against a plain bridge of Open vSwitch, and against `bridge`.

evio.cni sends what pods of a node say to each other by the node's kernel, which Services need, and checks each frame's
sender. The plain bridge has the same datapath and does neither, so the first ratio is what both cost. All are measured
in turns. CPU time is that of the whole machine: in a virtual machine of vm/ nothing else runs.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))

from ansible_collections.evio.cni.tests.integration.ovs_daemons import OpenVSwitch, network_namespace
from overlay_bench import PodPath, Sample, measure
from plugin_bench import PROGRAM, Plugin, open_vswitch, ours, reference

OURS, PLAIN, BRIDGE = "evio.cni", "plain OVS", "bridge"
MTU = 1420


class NamedNamespace:
    """A pod's network namespace by its name, as ``measure`` uses namespaces."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*command), capture_output=True, text=True, timeout=120, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datapath", choices=("netdev", "system"), default="netdev", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each way (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of TCP in each of them (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evk-") as directory, contextlib.ExitStack() as stack:
        own, plain = Path(directory, "own"), Path(directory, "plain")
        for path in (own, plain):
            path.mkdir()
        switch = stack.enter_context(open_vswitch(own))
        node = stack.enter_context(network_namespace("evk-"))
        paths = [
            attached(stack, OURS, ours("evio", PROGRAM, switch, own, options.datapath)),
            plain_bridge(stack, stack.enter_context(open_vswitch(plain)), options.datapath),
            attached(stack, BRIDGE, reference(BRIDGE, node, Path(directory), ip_masq=False)),
        ]
        samples: dict[str, list[Sample]] = {path.name: [] for path in paths}
        for number in range(options.rounds + 1):
            for path in paths[:: 1 if number % 2 else -1]:
                sample = measure(path, [], options.seconds, is_whole_machine=True)
                if number:
                    samples[path.name].append(sample)
    report(options.datapath, samples)


def attached(stack: contextlib.ExitStack, name: str, plugin: Plugin) -> PodPath:
    """Attach two pods by a plugin."""
    pods = [stack.enter_context(network_namespace("evk-pod-")) for _pod in range(2)]
    for pod in pods:
        plugin.call("ADD", uuid.uuid4().hex, pod)
    client, server = (NamedNamespace(pod) for pod in pods)
    address = server.run("ip", "-4", "-oneline", "address", "show", "eth0").stdout.split()[3].split("/")[0]
    return PodPath(name, client, server, address, ())  # type: ignore[arg-type]


def plain_bridge(stack: contextlib.ExitStack, switch: OpenVSwitch, datapath: str) -> PodPath:
    """Connect two pods by a bridge of Open vSwitch that has only what it has by itself."""
    switch.vsctl("add-br", "br-plain", "--", "set", "bridge", "br-plain", f"datapath_type={datapath}")
    pods = []
    for number, port in enumerate(links(stack, switch, datapath), start=1):
        switch.vsctl("add-port", "br-plain", f"plain{number}")
        port.run("ip", "address", "add", f"10.244.3.{number}/24", "dev", "eth0")
        pods.append(port)
    return PodPath(PLAIN, pods[0], pods[1], "10.244.3.2", ())  # type: ignore[arg-type]


def links(stack: contextlib.ExitStack, switch: OpenVSwitch, datapath: str) -> Iterator[NamedNamespace]:
    """Make two pods with eth0, whose other ends are plain1 and plain2 on the switch's node."""
    node = NamedNamespace(switch.netns)
    for number in (1, 2):
        pod = NamedNamespace(stack.enter_context(network_namespace("evk-pod-")))
        peer = f"type veth peer name eth0 mtu {MTU} netns {pod.name}"
        node.run(*f"ip link add plain{number} mtu {MTU} {peer}".split())
        node.run("ip", "link", "set", f"plain{number}", "up")
        pod.run("ip", "link", "set", "eth0", "up")
        if datapath == "netdev":
            # As the plugin does it there: vswitchd would get frames without checksums.
            pod.run("ethtool", "--offload", "eth0", "tx", "off")
        yield pod


def report(datapath: str, samples: dict[str, list[Sample]]) -> None:
    """Print the medians and the ratios."""
    print(f"datapath {datapath}\n{'':12}{'TCP Mbit/s':>12}{'CPU s/GB':>12}{'RTT ms':>10}")
    medians = {}
    for name, taken in samples.items():
        values = [
            statistics.median(sample.mbit for sample in taken),
            statistics.median(sample.cpu_per_gb for sample in taken),
            statistics.median(sample.rtt_ms for sample in taken),
        ]
        medians[name] = values
        print("{:12}{:>12.0f}{:>12.2f}{:>10.3f}".format(name, *values))
    for other in (PLAIN, BRIDGE):
        ratios = [mine / theirs for mine, theirs in zip(medians[OURS], medians[other], strict=True)]
        print("{} / {}: TCP {:.2f} x, CPU for each GB {:.2f} x, round trip {:.2f} x".format(OURS, other, *ratios))


if __name__ == "__main__":
    sys.exit(main())
