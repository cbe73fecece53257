#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Time ADD on a node where pods stand already, beside `ovs-vsctl add-port` of a bare veth and Debian's `bridge`.

vswitchd looks at all ports of its bridges whenever a port is added or a device changes, so ADD takes longer as pods
pile up. In turns, each on a calm switch: an ADD of this checkout's plugin, `ovs-vsctl add-port` of a veth pair that was
made beforehand, and an ADD of the plugin `bridge`, with and without ipMasq, on Linux bridges with as many pods. Python
that starts and does nothing takes its turn too: an ADD cannot ask for its port before.
With --against PROGRAM, another build of our plugin takes its turn on the same node.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from plugin_bench import OURS, PROGRAM, REPOSITORY, Plugin, open_vswitch, ours, reference

sys.path.insert(0, str(REPOSITORY / "collections"))

from ansible_collections.evio.cni.tests.integration.ovs_daemons import OpenVSwitch, network_namespace

TARGET = 1.3
"""Highest ratio of our ADD with 110 pods standing to `ovs-vsctl add-port`."""
CALM_SECONDS = 0.03
"""A switch that uses no CPU for so long is calm."""
LONGEST_WAIT_SECONDS = 5.0
ADD_PORT = "add-port"
PYTHON_STARTS = "Python's start"


class Switch:
    """Open vSwitch's daemons and the CPU time of vswitchd."""

    def __init__(self, switch: OpenVSwitch) -> None:
        self._switch = switch
        self._process = Path("/proc", (switch.directory / "ovs-vswitchd.pid").read_text().strip(), "task")

    def cpu(self) -> float:
        """Return the CPU time of all threads that live, in ms."""
        total = 0.0
        for thread in self._process.iterdir():
            with contextlib.suppress(OSError):
                total += int((thread / "schedstat").read_text().split()[0]) / 1e6
        return total

    def await_calm(self) -> float:
        """Wait until vswitchd has no work, and return its CPU time in ms."""
        deadline, before = time.monotonic() + LONGEST_WAIT_SECONDS, self.cpu()
        while time.monotonic() < deadline:
            time.sleep(CALM_SECONDS)
            now = self.cpu()
            # Its threads wake up now and then.
            if now - before < 0.2:
                return now
            before = now
        return before

    def time(self, addition: Callable[[], None]) -> tuple[float, float]:
        """Return the time of an addition on a calm switch, and vswitchd's CPU time until it is calm; in ms."""
        before, start = self.await_calm(), time.perf_counter()
        addition()
        duration = time.perf_counter() - start
        return duration * 1000, self.await_calm() - before

    def add_port(self, pod: str) -> tuple[float, float]:
        """As ``time`` for `ovs-vsctl add-port` and a veth pair whose other end is in the pod."""
        name = f"bare{uuid.uuid4().hex[:8]}"
        self._ip("link", "add", name, "type", "veth", "peer", "name", "bare", "netns", pod)
        try:
            return self.time(lambda: self._vsctl("add-port", "br-evio", name))
        finally:
            self._vsctl("--if-exists", "del-port", "br-evio", name)
            self._ip("link", "delete", name)

    def add_pod(self, plugin: Plugin, pod: str) -> tuple[float, float]:
        """As ``time`` for an ADD of a plugin."""
        container_id = uuid.uuid4().hex
        try:
            return self.time(lambda: plugin.call("ADD", container_id, pod))
        finally:
            plugin.call("DEL", container_id, pod)

    def _vsctl(self, *arguments: str) -> None:
        self._switch.vsctl(*arguments)

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", "-n", self._switch.netns, *arguments], check=True)


def main() -> None:
    options = _parser().parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {options.rounds} rounds")
    ratios = [measure_and_print(pods, options) for pods in options.pods]
    print(f"load {os.getloadavg()[0]:.1f} at the end; target with 110 pods: {TARGET} x {ADD_PORT}")
    if ratios[-1] > TARGET:
        print("the target is not met")


def measure_and_print(pods: int, options: argparse.Namespace) -> float:
    """Measure with so many pods standing, print the table, and return the ratio of our ADD to `ovs-vsctl add-port`."""
    found = measure(pods, options)
    print(f"\n{pods:>3} pods {'':<10}{'ms':>8}{OURS + ' / it':>12}{'CPU of vswitchd, ms':>22}")
    for name, measured in found.items():
        times, cpu = zip(*measured, strict=True)
        ratio = _ratio(found[OURS], measured)
        vswitchd = "" if name.startswith(("bridge", PYTHON_STARTS)) else f"{statistics.median(cpu):.1f}"
        print(f"{name:<19}{statistics.median(times):>8.1f}{ratio:>12.2f}{vswitchd:>22}")
    return _ratio(found[OURS], found[ADD_PORT])


def measure(pods: int, options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Return by name the results of ``Switch.time`` of all rounds, each of which begins with another way."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evk-")))
        daemons = stack.enter_context(open_vswitch(directory))
        plugins = [ours(OURS, PROGRAM, daemons, directory)]
        for name, ip_masq in (("bridge + ipMasq", True), ("bridge", False)):
            netns = stack.enter_context(network_namespace("evk-"))
            plugins.append(reference(name, netns, directory, ip_masq=ip_masq))
        for plugin in plugins:
            # One at least: the first ADD makes the bridge.
            for _pod in range(max(pods, 1)):
                plugin.call("ADD", uuid.uuid4().hex, stack.enter_context(network_namespace("evk-pod-")))
        if options.against:
            plugins.append(ours("the other build", options.against.resolve(), daemons, directory))
        pod = stack.enter_context(network_namespace("evk-pod-"))
        switch = Switch(daemons)
        ways = {plugin.name: partial(switch.add_pod, plugin, pod) for plugin in plugins}
        ways[ADD_PORT] = partial(switch.add_port, pod)
        ways[PYTHON_STARTS] = partial(switch.time, start_python)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        # One round more comes first, which warms up.
        for number in range(options.rounds + 1):
            first = number % len(ways)
            for name in [*ways][first:] + [*ways][:first]:
                result = ways[name]()
                if number:
                    found[name].append(result)
        return found


def start_python() -> None:
    """Start Python as the plugin's launcher does, and end it at once."""
    subprocess.run(["/usr/bin/python3", "-ISE", "-c", "import posix; posix._exit(0)"], check=True, capture_output=True)


def _ratio(mine: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    """Return the median of the ratios of the times of each round."""
    return statistics.median(this[0] / other[0] for this, other in zip(mine, others, strict=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--against", type=Path, metavar="PROGRAM", help="another build's `evio`, which takes its turn on the same node"
    )
    parser.add_argument("--rounds", type=int, default=25, help="additions by each way (default: %(default)s)")
    parser.add_argument(
        "--pods", type=int, nargs="+", default=[0, 40, 110], help="pods that stand beforehand (default: 0 40 110)"
    )
    return parser


if __name__ == "__main__":
    main()
