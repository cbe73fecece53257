#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Time ADD and DEL of this checkout's plugin against Debian's `bridge` plugin, or against another build of ours.

Without --against: our plugin on a private Open vSwitch for each --datapath, and the reference plugin `bridge` on a
Linux bridge, each in a network namespace of its own and all with host-local. Our plugin has one masquerade rule for the
whole node; `bridge` with ipMasq makes rules for each pod.
With --against PROGRAM: two builds of our plugin on the same node, the same Open vSwitch and the same bridge, in turns.
Calls of our plugin are counted for `evio metrics`, as on a node that has metrics.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
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
sys.path.insert(0, str(REPOSITORY / "collections"))

from ansible_collections.evio.cni.plugins.module_utils.node.counters import update  # noqa: E402
from ansible_collections.evio.cni.plugins.module_utils.paths import DISTRIBUTION_CNI_DIR  # noqa: E402
from ansible_collections.evio.cni.tests.integration.ovs_daemons import (  # noqa: E402
    OpenVSwitch,
    inside_namespace,
    network_namespace,
)

PROGRAM = REPOSITORY / "build/bin/evio"
OURS = "evio"
PODS = 50
"""Pods of a burst."""
AT_A_TIME = 10
"""Calls of a burst that run at the same time: what kubelet starts at once by default."""
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
"""Highest ratio of our median to the reference's, by what is measured and with which configuration of `bridge`."""


@dataclass
class Plugin:
    """A compared plugin: its program, its configuration, its node's namespace, and its measurements in ms by name."""

    name: str
    program: Path
    conf: dict[str, Any]
    netns: str
    times: dict[str, list[float]] = field(default_factory=dict)

    def call(self, command: str, container_id: str, pod: str) -> None:
        """Call the plugin as a container runtime does. Raises SystemExit with what it printed if it fails."""
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": DISTRIBUTION_CNI_DIR,
        }
        # As a runtime does, and not by way of nsenter, which would be a program more to start.
        with inside_namespace(self.netns):
            done = subprocess.run(
                [self.program],
                input=json.dumps(self.conf).encode(),
                env=environment,
                capture_output=True,
                timeout=60,
                check=False,
            )
        if done.returncode != 0:
            raise SystemExit(f"{self.name} {command} failed: {(done.stdout + done.stderr).decode()}")

    def record(self, measurement: str, seconds: float) -> None:
        """Add one measurement."""
        self.times.setdefault(measurement, []).append(seconds * 1000)


def main() -> None:
    options = _parser().parse_args()
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.rounds} rounds, {options.bursts} bursts, "
        f"{options.standing} pods attached beforehand"
    )
    if options.against:
        compare_builds(options)
    else:
        compare_with_reference(options)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def compare_with_reference(options: argparse.Namespace) -> None:
    """Measure our plugin and `bridge` with and without ipMasq, each on a node of its own, and print the table."""
    with (
        tempfile.TemporaryDirectory(prefix="evk-") as directory,
        network_namespace("evk-") as masquerading_node,
        network_namespace("evk-") as plain_node,
        contextlib.ExitStack() as stack,
    ):
        mine = []
        for datapath in options.datapath:
            own = Path(directory, datapath)
            own.mkdir()
            mine.append(ours(f"{OURS} {datapath}", PROGRAM, stack.enter_context(open_vswitch(own)), own, datapath))
        others = [
            reference("bridge + ipMasq", masquerading_node, Path(directory), ip_masq=True),
            reference("bridge", plain_node, Path(directory), ip_masq=False),
        ]
        measure([*mine, *others], options)
    are_met = [print_reference_table(plugin, others) for plugin in mine]
    print("every target is met" if all(are_met) else "not every target is met")


def compare_builds(options: argparse.Namespace) -> None:
    """Measure this checkout's build and another one on the same node, and print medians and pairwise ratios."""
    other: Path = options.against.resolve()
    if not os.access(other, os.X_OK):
        raise SystemExit(f"--against {other}: no such program; run `make plugin` in the other checkout")
    print(f"this checkout: {PROGRAM}\nthe other:     {other}")
    with tempfile.TemporaryDirectory(prefix="evk-") as directory, open_vswitch(Path(directory)) as switch:
        plugins = [
            ours(name, program, switch, Path(directory)) for name, program in (("this", PROGRAM), ("other", other))
        ]
        measure(plugins, options)
    print_builds_table(*plugins)


@contextlib.contextmanager
def open_vswitch(directory: Path) -> Iterator[OpenVSwitch]:
    """A running Open vSwitch in a network namespace of its own, which stands for our plugin's node."""
    (directory / "ovs").mkdir()
    with network_namespace("evk-") as netns:
        switch = OpenVSwitch(netns, directory / "ovs")
        try:
            yield switch.start()
        finally:
            switch.stop()


def ours(name: str, program: Path, switch: OpenVSwitch, directory: Path, datapath: str = "netdev") -> Plugin:
    """A build of our plugin on the node of this switch; two builds share bridge, journal and addresses."""
    state_dir = str(directory / "state")
    update(state_dir, {}, create=True)
    conf = {
        "type": OURS,
        "bridge": "br-evio",
        "gateway": "10.244.3.1/24",
        "mtu": 1420,
        "clusterCIDRs": ["10.10.0.0/16", "10.244.0.0/16"],
        "datapathType": datapath,
        "ovsdb": switch.ovsdb,
        "stateDir": state_dir,
    }
    return Plugin(name, program, conf | _common_conf(OURS, directory, ip_masq=True), switch.netns)


def reference(name: str, netns: str, directory: Path, *, ip_masq: bool) -> Plugin:
    """The reference plugin `bridge` of containernetworking-plugins, on a node of its own."""
    conf = {"type": "bridge", "bridge": "br-ref", "mtu": 1420}
    conf |= _common_conf(name.replace(" + ", "-"), directory, ip_masq=ip_masq)
    return Plugin(name, Path(DISTRIBUTION_CNI_DIR, "bridge"), conf, netns)


def measure(plugins: list[Plugin], options: argparse.Namespace) -> None:
    """Call the plugins in turns: rounds of one ADD and one DEL, then bursts. Adds to each plugin's times."""
    with contextlib.ExitStack() as stack:
        for plugin in {plugin.netns: plugin for plugin in plugins}.values():
            for _pod in range(options.standing):
                plugin.call("ADD", uuid.uuid4().hex, stack.enter_context(network_namespace("evk-pod-")))
        pods = [stack.enter_context(network_namespace("evk-pod-")) for _pod in range(PODS)]
        _in_turns(plugins, options.rounds, lambda plugin, number: add_and_delete(plugin, pods[number % PODS]))
        _in_turns(plugins, options.bursts, lambda plugin, _number: burst(plugin, pods))


def add_and_delete(plugin: Plugin, pod: str) -> None:
    """One ADD and one DEL: the time of each, and its CPU time (user and system, without what vswitchd does)."""
    container_id = uuid.uuid4().hex
    for command in ("ADD", "DEL"):
        cpu, start = _children_cpu_seconds(), time.perf_counter()
        plugin.call(command, container_id, pod)
        plugin.record(command, time.perf_counter() - start)
        plugin.record(f"{command} CPU", _children_cpu_seconds() - cpu)


def burst(plugin: Plugin, pods: list[str]) -> None:
    """An ADD for every pod, AT_A_TIME at the same time, then a DEL for every pod."""
    containers = [(uuid.uuid4().hex, pod) for pod in pods]
    for command in ("ADD", "DEL"):

        def call(container: tuple[str, str], command: str = command) -> None:
            plugin.call(command, *container)

        start = time.perf_counter()
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(call, containers))
        plugin.record(f"{len(pods)} {command}", time.perf_counter() - start)


def print_reference_table(mine: Plugin, others: list[Plugin]) -> bool:
    """Print medians, ratios and targets; return whether every ratio is within its target."""
    print(
        f"\n{'':<10}{mine.name + ' ms':>15}",
        *(f"{other.name + ' ms':>20}{'ratio':>8}{'target':>8}" for other in others),
    )
    is_met = True
    for measurement, times in mine.times.items():
        if measurement.endswith("CPU"):
            continue
        median = statistics.median(times)
        line = f"{measurement:<10}{median:>15.1f}"
        for other in others:
            reference_median = statistics.median(other.times[measurement])
            target = TARGETS[(measurement, other.name)]
            is_met = is_met and median / reference_median <= target
            line += f" {reference_median:>20.1f}{median / reference_median:>8.2f}{target:>8.2f}"
        print(line)
    return is_met


def print_builds_table(this: Plugin, other: Plugin) -> None:
    """Print the medians, and the median of the ratios this / other of each round with its 95 % confidence interval."""
    print(f"\n{'':<10}{'this ms':>10}{'other ms':>10}{'this/other, by rounds':>24}{'95 % of its median':>22}")
    for measurement, times in this.times.items():
        ratios = sorted(mine / theirs for mine, theirs in zip(times, other.times[measurement], strict=True))
        medians = f"{statistics.median(times):>10.2f}{statistics.median(other.times[measurement]):>10.2f}"
        print(f"{measurement:<10}{medians}{statistics.median(ratios):>24.3f}{_median_interval(ratios):>22}")
    print("below 1: this checkout is faster; an interval around 1 means that no difference was found")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--against", type=Path, metavar="PROGRAM", help="another build's `evio`, instead of the reference plugin"
    )
    parser.add_argument(
        "--datapath",
        nargs="+",
        choices=("netdev", "system"),
        default=["netdev"],
        help="datapaths of our plugin's bridges (default: netdev); with --against it is netdev",
    )
    parser.add_argument("--rounds", type=int, default=40, help="rounds of one ADD and one DEL (default: %(default)s)")
    parser.add_argument(
        "--bursts", type=int, default=7, help=f"bursts of {PODS} ADDs and {PODS} DELs (default: %(default)s; 0: none)"
    )
    parser.add_argument(
        "--standing", type=int, default=0, help="pods attached to each node beforehand (default: %(default)s)"
    )
    return parser


def _common_conf(name: str, directory: Path, *, ip_masq: bool) -> dict[str, Any]:
    ipam = {"type": "host-local", "dataDir": str(directory / "ipam"), "ranges": [[{"subnet": "10.244.3.0/24"}]]}
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "isGateway": True,
        "isDefaultGateway": True,
        "ipMasq": ip_masq,
        "ipam": ipam,
    }


def _in_turns(plugins: list[Plugin], rounds: int, work: Callable[[Plugin, int], None]) -> None:
    """Do the work with each plugin in every round, beginning with another plugin each time.

    One round more comes first, which warms up: its measurements are dropped.
    """
    if not rounds:
        return
    known = {measurement for plugin in plugins for measurement in plugin.times}
    for number in range(rounds + 1):
        first = number % len(plugins)
        for plugin in plugins[first:] + plugins[:first]:
            work(plugin, number)
        if number == 0:
            for plugin in plugins:
                plugin.times = {name: times if name in known else [] for name, times in plugin.times.items()}


def _children_cpu_seconds() -> float:
    """User and system time of all children that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _median_interval(ordered: list[float]) -> str:
    """The 95 % confidence interval of the median, from order statistics (normal approximation of the binomial)."""
    count, reach = len(ordered), 0.98 * len(ordered) ** 0.5
    if count < 10:
        return "too few rounds"
    return f"{ordered[int(count / 2 - reach)]:.3f} to {ordered[int(count / 2 + reach)]:.3f}"


if __name__ == "__main__":
    main()
