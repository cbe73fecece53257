#!/usr/bin/env python3
"""Check that every pod of the lab reaches every other pod and its gateway, with packets of the full MTU: reach.py MTU.

Tries again for PATIENCE seconds, because tunnels and repairs take some time.
"""

from __future__ import annotations

import sys
import time
from itertools import permutations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))

import nodes
import pods
from commands import attempt
from pods import Pod
from state import Lab

IP_AND_ICMP_HEADERS = 28
PATIENCE = 90.0
"""Seconds."""


def main() -> int:
    """Print the pairs that do not reach each other; return 1 if there are any, or fewer than two pods."""
    lab, mtu = Lab(), int(sys.argv[1])
    topology = lab.topology()

    def reaches(source: Pod, address: str) -> bool:
        ping = ["ping", "-n", "-q", "-c", "1", "-W", "1", "-M", "do", "-s", str(mtu - IP_AND_ICMP_HEADERS), address]
        inside = ["nsenter", f"--net=/proc/{source.pid}/ns/net", *ping]
        return attempt(*nodes.command(lab, topology.node(source.node), inside)).returncode == 0

    running = pods.running(lab)
    pairs = [(source, target.address) for source, target in permutations(running, 2)]
    pairs += [(pod, pod.address.rpartition(".")[0] + ".1") for pod in running]
    deadline = time.monotonic() + PATIENCE
    began = time.monotonic()
    while missing := [(source, address) for source, address in pairs if not reaches(source, address)]:
        if time.monotonic() > deadline:
            break
    for source, address in missing:
        print(f"{source.name} ({source.address}) does not reach {address}")
    print(f"{len(pairs) - len(missing)} of {len(pairs)} pairs, after {time.monotonic() - began:.1f} s")
    return 1 if missing or len(running) < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
