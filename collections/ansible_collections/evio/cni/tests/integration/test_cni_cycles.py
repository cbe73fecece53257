# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pods come and go by the thousand, many at a time: no live pod's address is given again, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .cni_runtime import Node, PluginFailedError, Pod
from .ovs_daemons import network_namespace

pytestmark = pytest.mark.root

_ADDRESSES = 96
"""In the range: few enough that each comes round many times."""
_LIVE = 4


@dataclass
class Report:
    """What a run has found."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"ADD": [], "DEL": []})
    failures: Counter[str] = field(default_factory=Counter)
    given_twice: list[str] = field(default_factory=list)
    lost_pings: int = 0
    left: dict[str, object] = field(default_factory=dict)
    daemon: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of vswitchd, before and after."""

    def __str__(self) -> str:
        lines = []
        for verb, seconds in self.seconds.items():
            times = sorted(one * 1000 for one in seconds)
            worst = times[int(len(times) * 0.99)]
            lines.append(f"{len(times)} {verb}: median {statistics.median(times):.0f} ms, p99 {worst:.0f} ms")
        lines.append(f"failures: {dict(self.failures) or 'none'}; addresses given twice: {len(self.given_twice)}")
        lines.append(f"pings lost between live pods: {self.lost_pings}; left: {self.left or 'nothing'}")
        lines += [f"vswitchd's {what}: {before} before, {after} after" for what, (before, after) in self.daemon.items()]
        return "\n".join(lines)


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"cniVersion": "1.1.0"}


@pytest.fixture
def node(node: Node) -> Node:
    """The node, with as many addresses as the test has pods at a time."""
    [[addresses]] = node.conf["ipam"]["ranges"]
    addresses["rangeEnd"] = f"10.244.3.{1 + _ADDRESSES}"
    return node


@contextlib.contextmanager
def live_pods(node: Node, report: Report) -> Iterator[list[Pod]]:
    """Pods that stay, each pinged all the time by the one before it."""
    with contextlib.ExitStack() as stack:
        pods = [node.add(Pod(stack.enter_context(network_namespace("evy-")))) for _place in range(_LIVE)]
        is_over = threading.Event()

        def ping(pod: Pod, other: Pod) -> None:
            while not is_over.is_set():
                report.lost_pings += not pod.pings(other.address)
                time.sleep(0.2)

        with ThreadPoolExecutor(_LIVE) as pool:
            pings = [pool.submit(ping, pod, other) for pod, other in zip(pods, pods[1:] + pods[:1], strict=True)]
            try:
                yield pods
            finally:
                is_over.set()
        for one in pings:
            one.result()


def run_cycles(node: Node, cycles: int, at_a_time: int) -> Report:
    """So many ADDs and DELs, in as many namespaces as are at work at a time."""
    report = Report()
    with live_pods(node, report) as live, contextlib.ExitStack() as stack:
        namespaces = [stack.enter_context(network_namespace("evy-")) for _place in range(at_a_time)]
        held = {pod.address for pod in live}
        lock = threading.Lock()
        before = node.leftovers()
        daemon = _daemon(node)

        def work(netns: str) -> None:
            for _cycle in range(cycles // at_a_time):
                pod = Pod(netns)
                try:
                    _time(report, "ADD", lambda pod=pod: node.add(pod))
                    with lock:
                        if pod.address in held:
                            report.given_twice.append(pod.address)
                        held.add(pod.address)
                except PluginFailedError as error:
                    report.failures[f"ADD: {error}"] += 1
                with lock:
                    held.discard(pod.address if pod.result else "")
                try:
                    _time(report, "DEL", lambda pod=pod: node.delete(pod))
                except PluginFailedError as error:
                    report.failures[f"DEL: {error}"] += 1

        with ThreadPoolExecutor(at_a_time) as pool:
            list(pool.map(work, namespaces))
        _await_rest(node)
        report.daemon = {what: (count, _daemon(node)[what]) for what, count in daemon.items()}
        valid = [{"containerID": pod.container_id, "ifname": "eth0"} for pod in live]
        node.call("GC", **{"cni.dev/valid-attachments": valid})
        report.left = {
            what: sorted(set(there) - set(before.get(what, ()))) for what, there in node.leftovers().items()
        } | {"flows": node.dead_flows()}
        report.left = {what: there for what, there in report.left.items() if there}
    return report


def _time(report: Report, verb: str, call: Callable[[], object]) -> None:
    start = time.monotonic()
    call()
    report.seconds[verb].append(time.monotonic() - start)


def _daemon(node: Node) -> dict[str, int]:
    """vswitchd's open files, and its memory in KiB."""
    pid = (node.switch.directory / "ovs-vswitchd.pid").read_text().strip()
    memory = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return {"files": len(os.listdir(f"/proc/{pid}/fd")), "KiB": int(memory.split()[1])}


def _await_rest(node: Node) -> None:
    """vswitchd closes devices one by one, after the DELs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        files = _daemon(node)["files"]
        time.sleep(0.5)
        if _daemon(node)["files"] == files:
            return


def check(report: Report) -> None:
    assert not report.failures, report
    assert not report.given_twice, report
    assert not report.left, report
    assert not report.lost_pings, report
    before, after = report.daemon["files"]
    assert after <= before + 2, report


def test_pods_that_come_and_go_many_at_a_time(node: Node) -> None:
    check(run_cycles(node, 96, 8))


@pytest.mark.long
def test_ten_thousand_cycles_thirty_two_at_a_time(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    report = run_cycles(node, int(os.environ.get("EVIO_CYCLES", "10000")), 32)
    with capsys.disabled():
        print(f"\n{report}\nin {time.monotonic() - start:.0f} s")
    check(report)
