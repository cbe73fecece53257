#!/usr/bin/env python3
"""Run a command under streams of pings between all nodes, and between a pod of each: streams.py REPORT COMMAND...

REPORT is a file that gets JSON: for each stream how many pings were sent, one each INTERVAL, how many had no reply, and
the longest time without one in seconds.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))

import nodes
import pods
from restarts import longest_gap
from state import Lab

INTERVAL = 0.02
"""Seconds between two pings of a stream."""
REPLY = re.compile(r"^\[([0-9.]+)\] .* icmp_seq=\d+ .*time=", re.MULTILINE)
SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) received")


def main() -> int:
    """Run the command, and return its exit status."""
    report, command = Path(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        running = []
        for name, enter, address in streams(Lab()):
            log = Path(directory, name)
            ping = [*enter, "ping", "-n", "-D", f"-i{INTERVAL}", address]
            running.append((name, log, subprocess.Popen(ping, stdout=stack.enter_context(log.open("wb")))))
        try:
            status = subprocess.run(command, check=False).returncode
        finally:
            for _name, _log, process in running:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=10)
        counted = {name: count(log.read_text()) for name, log, _process in running}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(counted, indent=2) + "\n")
    return status


def streams(lab: Lab) -> list[tuple[str, list[str], str]]:
    """Return each stream's name, the command that enters its source, and the address of its target."""
    topology = lab.topology()
    # As lab/inventory.py gives them.
    addresses = {node.name: f"10.10.0.{number}" for number, node in enumerate(topology.nodes, 1)}
    found = []
    for source, target in permutations(topology.nodes, 2):
        enter = ["nsenter", f"--net=/proc/{nodes.pid(lab, source)}/ns/net"]
        found.append((f"{source.name}-{target.name}", enter, addresses[target.name]))
    first = {pod.node: pod for pod in reversed(pods.running(lab))}
    for pod, other in permutations(first.values(), 2):
        netns = f"/proc/{nodes.pid(lab, topology.node(pod.node))}/root/proc/{pod.pid}/ns/net"
        found.append((f"{pod.name}-{other.name}", ["nsenter", f"--net={netns}"], other.address))
    return found


def count(text: str) -> dict[str, float]:
    """Return what one stream's ping has told."""
    found = SUMMARY.search(text)
    sent, received = (int(found[1]), int(found[2])) if found else (0, 0)
    gap = longest_gap([float(at) for at in REPLY.findall(text)], 0.0)
    # A ping that was sent last may not be answered yet.
    return {"sent": sent, "lost": max(0, sent - received - 1), "longest_gap": round(gap, 2)}


if __name__ == "__main__":
    sys.exit(main())
