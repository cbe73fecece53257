#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a running pod is cut off when something is taken from under it and ``evio repair`` is run at once.

Two pings go on all the while, to another pod and through the masquerade to a host outside; an outage is the longest
time between two replies. What starts repair on a node (a unit of systemd) comes on top, and what it waits for.
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
sys.path.insert(0, str(REPOSITORY / "collections/ansible_collections/evio/cni/tests"))

from integration.cni_runtime import PLUGIN, Node, Pod  # noqa: E402  (after the path to it)
from integration.ovs_daemons import OpenVSwitch, in_namespace, network_namespace  # noqa: E402

OUTSIDE = "192.0.2.2"
INTERVAL_SECONDS = 0.005
DEADLINE_SECONDS = 15.0


class Ping:
    """A ping of many packets a second while the context lasts."""

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
        """When they came, in seconds since 1970."""
        return [
            float(one) for one in re.findall(r"^\[([\d.]+)\] \d+ bytes from", self._output.read_text(), re.MULTILINE)
        ]

    def outage(self) -> float:
        """The longest time between two replies, ms."""
        return 1000 * max(after - before for before, after in pairwise(self.replies()))


def none(_node: Node) -> None:
    """Nothing: how even the replies come anyway."""


def bridge_made_again(node: Node) -> None:
    node.switch.vsctl("del-br", "br-evio")
    node.switch.vsctl("add-br", "br-evio", "--", "set", "Bridge", "br-evio", "datapath_type=netdev")


def database_from_nothing(node: Node) -> None:
    node.switch.stop()
    node.switch.empty_database()
    node.switch.start()


def ruleset_flushed(node: Node) -> None:
    in_namespace(node.switch.netns, "nft", "flush", "ruleset")


def gateway_flushed(node: Node) -> None:
    in_namespace(node.switch.netns, "ip", "address", "flush", "dev", "br-evio")


def vswitchd_killed(node: Node) -> None:
    node.switch.kill_vswitchd()
    node.switch.start_vswitchd()


DAMAGES = (none, bridge_made_again, database_from_nothing, ruleset_flushed, gateway_flushed, vswitchd_killed)


@contextlib.contextmanager
def node_with_outside(directory: Path) -> Iterator[Node]:
    """A node whose uplink leads to a host that knows no way back to pods: only masquerade brings replies."""
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
    """Outage towards the other pod and towards the outside, and repair's own run time: each in ms."""
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
    """Until each has had replies for a quarter of a second after this time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any((ping.replies() or [0.0])[-1] < since + 0.25 for ping in pings):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no reply within {DEADLINE_SECONDS:g} s")
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="of each damage, in turns (%(default)s)")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.rounds} rounds; ms, median (worst)")
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
