#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measure how long a running pod has no network when its node is damaged and `evio repair` runs at once.

Two pings run meanwhile: to another pod, and through the masquerade to a host outside. An outage is the longest time
between two replies. On a real node, the time until systemd starts the repair comes on top.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "collections"))

from ansible_collections.evio.cni.tests.integration.cni_runtime import PLUGIN, Node, Pod  # noqa: E402
from ansible_collections.evio.cni.tests.integration.ovs_daemons import (  # noqa: E402
    OpenVSwitch,
    in_namespace,
    network_namespace,
)

OUTSIDE = "192.0.2.2"
INTERVAL_SECONDS = 0.005
DEADLINE_SECONDS = 15.0


class Ping:
    """A ping from a pod, with a packet every INTERVAL_SECONDS, for as long as the context lasts."""

    def __init__(self, pod: Pod, address: str, output: Path) -> None:
        self._command = ["nsenter", f"--net={pod.path}", "ping", "-n", "-D", "-i", str(INTERVAL_SECONDS), address]
        self._output = output

    def __enter__(self) -> Ping:
        with self._output.open("w") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=10)

    def replies(self) -> list[float]:
        """Return the times of the replies, in seconds since 1970."""
        lines = self._output.read_text()
        return [float(seconds) for seconds in re.findall(r"^\[([\d.]+)\] \d+ bytes from", lines, re.MULTILINE)]

    def outage(self) -> float:
        """Return the longest time between two replies, in ms."""
        return 1000 * max(after - before for before, after in pairwise(self.replies()))


def no_damage(_node: Node) -> None:
    """Do nothing: shows how regular the replies are without damage."""


def bridge_recreated(node: Node) -> None:
    """Delete the pod bridge with all its ports, and add an empty one."""
    node.switch.vsctl("del-br", "br-evio")
    node.switch.vsctl("add-br", "br-evio", "--", "set", "Bridge", "br-evio", "datapath_type=netdev")


def database_emptied(node: Node) -> None:
    """Restart Open vSwitch with an empty database."""
    node.switch.stop()
    node.switch.empty_database()
    node.switch.start()


def ruleset_flushed(node: Node) -> None:
    """Remove every nftables rule of the node."""
    in_namespace(node.switch.netns, "nft", "flush", "ruleset")


def gateway_flushed(node: Node) -> None:
    """Remove the gateway address from the pod bridge."""
    in_namespace(node.switch.netns, "ip", "address", "flush", "dev", "br-evio")


def vswitchd_killed(node: Node) -> None:
    """Kill ovs-vswitchd and start it again."""
    node.switch.kill_vswitchd()
    node.switch.start_vswitchd()


DAMAGES = (no_damage, bridge_recreated, database_emptied, ruleset_flushed, gateway_flushed, vswitchd_killed)


@contextlib.contextmanager
def node_with_outside(directory: Path) -> Iterator[Node]:
    """A node with an uplink to a host outside, which has no route to pods: it can answer masqueraded packets only."""
    with network_namespace("evf-") as netns, network_namespace("evf-") as outside:
        switch = OpenVSwitch(netns, directory)
        try:
            switch.start()
            uplink = ["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", outside]
            in_namespace(netns, *uplink)
            for name, device, address in ((netns, "uplink", "192.0.2.1/24"), (outside, "eth0", f"{OUTSIDE}/24")):
                in_namespace(name, "ip", "address", "add", address, "dev", device)
                in_namespace(name, "ip", "link", "set", device, "up")
            node = Node(switch, directory)
            entry = {key: value for key, value in node.conf.items() if key not in ("name", "cniVersion")}
            conflist = {"cniVersion": "1.0.0", "name": "evio", "plugins": [entry]}
            (directory / "10-evio.conflist").write_text(json.dumps(conflist))
            yield node
        finally:
            switch.stop()


def measure(node: Node, pod: Pod, other: Pod, damage: Callable[[Node], None]) -> tuple[float, float, float]:
    """Return the outage towards the other pod and towards the outside, and the time that repair ran, all in ms."""
    with (
        Ping(pod, other.address, node.directory / "to-pod") as to_pod,
        Ping(pod, OUTSIDE, node.directory / "to-outside") as to_outside,
    ):
        _await_replies([to_pod, to_outside], time.time())
        damage(node)
        begun = time.monotonic()
        done = in_namespace(node.switch.netns, str(PLUGIN), "repair", "--conf-dir", str(node.directory), check=False)
        took = 1000 * (time.monotonic() - begun)
        if done.returncode != 0:
            raise RuntimeError(f"{damage.__name__}: {done.stderr}")
        _await_replies([to_pod, to_outside], time.time())
    return to_pod.outage(), to_outside.outage(), took


def _await_replies(pings: list[Ping], since: float) -> None:
    """Wait until each ping has had a reply a quarter of a second after this time. Raises TimeoutError."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any((ping.replies() or [0.0])[-1] < since + 0.25 for ping in pings):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no reply within {DEADLINE_SECONDS:g} s")
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each damage, in turns (default: %(default)s)")
    options = parser.parse_args()
    print("outages of a pod on one node, with Open vSwitch's userspace datapath: ms, median (worst)")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.rounds} rounds")
    measured: dict[str, list[tuple[float, float, float]]] = {damage.__name__: [] for damage in DAMAGES}
    with (
        tempfile.TemporaryDirectory(prefix="evf-") as directory,
        node_with_outside(Path(directory)) as node,
        network_namespace("evf-") as one,
        network_namespace("evf-") as two,
    ):
        pod, other = node.add(Pod(one)), node.add(Pod(two))
        for _round in range(options.rounds):
            for damage in DAMAGES:
                measured[damage.__name__].append(measure(node, pod, other, damage))
    print(f"{'damage':<24}{'pod to pod':>18}{'pod to outside':>18}{'repair itself':>18}")
    for name, rows in measured.items():
        columns = [f"{statistics.median(column):.0f} ({max(column):.0f})" for column in zip(*rows, strict=True)]
        print(f"{name.replace('_', ' '):<24}" + "".join(f"{column:>18}" for column in columns))


if __name__ == "__main__":
    main()
