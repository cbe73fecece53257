"""The CPU time that pods cost on the nodes: of the CNI plugins, Open vSwitch and the overlay."""

from __future__ import annotations

import json
from collections import Counter

import nodes
from commands import run
from kubernetes_cluster import Cluster

_CPU = """\
import glob, json, os
seconds = {}
for path in glob.glob("/proc/[0-9]*"):
    try:
        with open(path + "/cmdline") as file:
            argv = file.read().split("\\0")
        with open(path + "/stat") as file:
            times = file.read().rpartition(")")[2].split()[11:15]
    except OSError:
        continue
    tick = os.sysconf("SC_CLK_TCK")
    name = os.path.basename(argv[0])
    own, children = (int(times[0]) + int(times[1])) / tick, (int(times[2]) + int(times[3])) / tick
    if name in ("ovs-vswitchd", "ovsdb-server", "wireguard-go"):
        seconds[name] = seconds.get(name, 0) + own
    elif "overlay" in argv and "run" in argv:
        seconds["overlay agent"] = own + children
    elif name == "containerd":
        seconds["CNI plugins and shim starts"] = children
print(json.dumps(seconds))
"""
"""CPU seconds of processes on a node. Children of containerd that have ended are CNI plugins and starts of shims."""


def seconds(cluster: Cluster) -> Counter[str]:
    """Return the CPU seconds of these processes so far, of all nodes together, by the processes' names."""
    total: Counter[str] = Counter()
    for node in cluster.nodes:
        total.update(json.loads(run(*nodes.command(cluster.lab, node, ["python3", "-c", _CPU]))))
    return total
