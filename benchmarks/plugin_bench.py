#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plugin against Debian's reference plugin ``bridge``, in turns and in one run, with the same host-local.

Ours attaches pods to a private Open vSwitch (userspace datapath), the reference to a Linux bridge, each in its own
namespace. Ours masquerades by one rule a node, the reference with ipMasq by rules a pod: the same job done otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "collections/ansible_collections/evio/cni/tests"))

from integration.ovs_daemons import OpenVSwitch, network_namespace  # noqa: E402  (after the path to it)

CNI_PLUGINS = "/usr/lib/cni"
OURS = "evio"
TARGETS = {
    ("ADD", "bridge + ipMasq"): 0.6,
    ("DEL", "bridge + ipMasq"): 0.4,
    ("50 ADD", "bridge + ipMasq"): 0.6,
    ("50 DEL", "bridge + ipMasq"): 0.25,
    ("ADD", "bridge"): 1.15,
    ("DEL", "bridge"): 1.3,
    ("50 ADD", "bridge"): 1.4,
    ("50 DEL", "bridge"): 1.3,
}


@dataclass
class Plugin:
    """One of those compared: its program, its configuration, its node's namespace, and what was measured (ms)."""

    name: str
    program: str
    conf: dict[str, Any]
    netns: str
    times: dict[str, list[float]] = field(default_factory=dict)

    def call(self, command: str, container_id: str, pod: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": CNI_PLUGINS,
        }
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.netns}", self.program],
            input=json.dumps(self.conf).encode(),
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{self.name} {command}: {(done.stdout + done.stderr).decode()}")

    def note(self, what: str, seconds: float) -> None:
        self.times.setdefault(what, []).append(seconds * 1000)


def ours(netns: str, directory: Path, ovsdb: str) -> Plugin:
    conf = {
        "type": OURS,
        "bridge": "br-evio",
        "gateway": "10.244.3.1/24",
        "mtu": 1420,
        "clusterCIDRs": ["10.10.0.0/16", "10.244.0.0/16"],
        "datapathType": "netdev",
        "ovsdb": ovsdb,
        "stateDir": str(directory / "state"),
    }
    return Plugin(OURS, str(REPOSITORY / "build/bin/evio"), conf | _common(OURS, directory, True), netns)


def reference(name: str, netns: str, directory: Path, ip_masq: bool) -> Plugin:
    conf = {"type": "bridge", "bridge": "br-ref", "mtu": 1420} | _common(name.replace(" + ", "-"), directory, ip_masq)
    return Plugin(name, f"{CNI_PLUGINS}/bridge", conf, netns)


def _common(name: str, directory: Path, ip_masq: bool) -> dict[str, Any]:
    ipam = {"type": "host-local", "dataDir": str(directory / "ipam"), "ranges": [[{"subnet": "10.244.3.0/24"}]]}
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "isGateway": True,
        "isDefaultGateway": True,
        "ipMasq": ip_masq,
        "ipam": ipam,
    }


def one_by_one(plugin: Plugin, pod: str) -> None:
    container_id = uuid.uuid4().hex
    for command in ("ADD", "DEL"):
        start = time.perf_counter()
        plugin.call(command, container_id, pod)
        plugin.note(command, time.perf_counter() - start)


def many_at_once(plugin: Plugin, pods: list[str], at_a_time: int) -> None:
    containers = [(uuid.uuid4().hex, pod) for pod in pods]
    for command in ("ADD", "DEL"):

        def work(one: tuple[str, str], command: str = command) -> None:
            plugin.call(command, *one)

        start = time.perf_counter()
        with ThreadPoolExecutor(at_a_time) as pool:
            list(pool.map(work, containers))
        plugin.note(f"{len(pods)} {command}", time.perf_counter() - start)


@contextlib.contextmanager
def plugins(directory: Path) -> Iterator[list[Plugin]]:
    """All that are compared, each with a namespace as its node."""
    (directory / "ovs").mkdir()
    with network_namespace("evk-") as one, network_namespace("evk-") as two, network_namespace("evk-") as three:
        switch = OpenVSwitch(one, directory / "ovs")
        try:
            switch.start()
            yield [
                ours(one, directory, switch.ovsdb),
                reference("bridge + ipMasq", two, directory, True),
                reference("bridge", three, directory, False),
            ]
        finally:
            switch.stop()


def report(measured: list[Plugin]) -> bool:
    """Print the table; whether every ratio is within its target."""
    mine, *others = measured
    print(f"\n{'':<10}{OURS + ' ms':>12}", *(f"{other.name + ' ms':>20}{'ratio':>8}{'target':>8}" for other in others))
    met = True
    for what, times in mine.times.items():
        median = statistics.median(times)
        line = f"{what:<10}{median:>12.1f}"
        for other in others:
            theirs = statistics.median(other.times[what])
            target = TARGETS[(what, other.name)]
            met = met and median / theirs <= target
            line += f" {theirs:>20.1f}{median / theirs:>8.2f}{target:>8.2f}"
        print(line)
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="of one ADD and one DEL of each plugin (%(default)s)")
    parser.add_argument("--bursts", type=int, default=7, help="of 50 ADDs and 50 DELs, 10 at a time (%(default)s)")
    parser.add_argument("--standing", type=int, default=0, help="pods that each node has from the first (%(default)s)")
    options = parser.parse_args()
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.rounds} rounds, {options.bursts} bursts, "
        f"{options.standing} pods stand by"
    )
    with (
        tempfile.TemporaryDirectory(prefix="evk-") as directory,
        plugins(Path(directory)) as compared,
        contextlib.ExitStack() as stack,
    ):
        for plugin in compared:
            for _place in range(options.standing):
                plugin.call("ADD", uuid.uuid4().hex, stack.enter_context(network_namespace("evk-pod-")))
        pods = [stack.enter_context(network_namespace("evk-pod-")) for _place in range(50)]
        _take_turns(compared, options.rounds, lambda plugin, turn: one_by_one(plugin, pods[turn % len(pods)]))
        _take_turns(compared, options.bursts, lambda plugin, _turn: many_at_once(plugin, pods, 10))
        met = report(compared)
    print(f"load {os.getloadavg()[0]:.1f}; {'every target is met' if met else 'not every target is met'}")


def _take_turns(compared: list[Plugin], rounds: int, work: Callable[[Plugin, int], None]) -> None:
    """A round of each in turn, another first each time; the first round warms up and does not count."""
    for turn in range(rounds + 1):
        first = turn % len(compared)
        for plugin in compared[first:] + compared[:first]:
            work(plugin, turn)
        if turn == 0:
            for plugin in compared:
                for times in plugin.times.values():
                    if len(times) == 1:
                        times.clear()


if __name__ == "__main__":
    main()
