#!/usr/bin/env python3
"""Run a command while pods of different nodes ping each other and pods come and go on each node.

traffic.py REPORT COMMAND...: REPORT is a file that gets what was counted, as JSON:

pings, lost       pings that were sent between pods of each pair of nodes, one each INTERVAL, and those without a reply
longest_gap       the longest time without a reply, in seconds
added, failures   pods that were added to the nodes and removed again, and the errors of those that were not
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))

import nodes
import pods
from commands import LabError
from restarts import longest_gap
from state import Lab
from topology import Node

INTERVAL = 0.1
"""Seconds between two pings of a pair."""
PAUSE = 0.5
"""Seconds between the end of a pod and the next pod on its node."""
REPLY = re.compile(r"^\[([0-9.]+)\] .* icmp_seq=", re.MULTILINE)
SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) received")


class Churn(threading.Thread):
    """Adds a pod to a node and removes it again, until it is told to stop."""

    def __init__(self, lab: Lab, node: Node) -> None:
        super().__init__()
        self.lab, self.node = lab, node
        self.stop = threading.Event()
        self.added = 0
        self.failures: list[str] = []

    def run(self) -> None:
        with pods.runtime(self.lab, self.node) as runtime:
            while not self.stop.wait(PAUSE):
                uid = str(uuid.uuid4())
                try:
                    sandbox = runtime.run_sandbox(f"{self.node.name}-guest-{uid[:8]}", uid, {})
                    self.added += 1
                    runtime.remove_sandbox(sandbox)
                except LabError as error:
                    self.failures.append(f"{self.node.name}: {error}")


def main() -> int:
    """Run the command, and return its exit status."""
    report, command = Path(sys.argv[1]), sys.argv[2:]
    lab = Lab()
    topology = lab.topology()
    first = {pod.node: pod for pod in reversed(pods.running(lab))}
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        logs = []
        for source, target in permutations(first.values(), 2):
            netns = f"/proc/{nodes.pid(lab, topology.node(source.node))}/root/proc/{source.pid}/ns/net"
            log = Path(directory, f"{source.name}-{target.name}")
            ping = ["nsenter", f"--net={netns}", "ping", "-n", "-D", f"-i{INTERVAL}", target.address]
            output = stack.enter_context(log.open("wb"))
            logs.append((log, subprocess.Popen(ping, stdout=output)))
        churns = [Churn(lab, node) for node in topology.nodes]
        for churn in churns:
            churn.start()
        try:
            status = subprocess.run(command, check=False).returncode
        finally:
            for churn in churns:
                churn.stop.set()
            for churn in churns:
                churn.join()
            for _log, process in logs:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=10)
        texts = [log.read_text() for log, _process in logs]
    counted = [tuple(map(int, found.groups())) for text in texts if (found := SUMMARY.search(text))]
    gaps = [longest_gap([float(at) for at in REPLY.findall(text)], 0.0) for text in texts]
    result = {
        "pings": sum(sent for sent, _received in counted),
        # A ping that was sent last may not be answered yet.
        "lost": sum(max(0, sent - received - 1) for sent, received in counted),
        "longest_gap": round(max(gaps), 2),
        "added": sum(churn.added for churn in churns),
        "failures": [failure for churn in churns for failure in churn.failures],
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(result) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
