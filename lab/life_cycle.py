"""The lab from nothing to nodes that answer, and back to nothing: the order in which the other rooms are called."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import internet
import inventory
import mounts
import network
import nodes
import rootfs
from commands import NETNS_DIR, LabError, in_netns
from state import Lab
from topology import Topology


def up(lab: Lab, topology: Topology) -> None:
    """Bring up the lab; one that is up already and the same is left as it is.

    Raises LabError, with the half that was built left for a look: the next up or down removes it.
    """
    described = lab.read()
    if described and described.is_complete and all(nodes.is_running(lab, node) for node in described.topology.nodes):
        if _same_places(described.topology, topology):
            print("== the lab is up already")
            return
        raise LabError("another lab is up, with other nodes: take it away with lab/lab down first")
    if described:
        print("== removing what is left of an unfinished lab")
        _remove(lab)
    elif network.namespaces(lab.prefix):
        raise LabError(f"a lab of another checkout is up: there are namespaces {lab.prefix}-*")
    started = time.monotonic()
    base = rootfs.prepare(lab)
    lab.write(topology, is_complete=False)
    segment = f"a public segment of IPv{topology.version}, MTU {topology.mtu}"
    print(f"== network: {segment}; {len(topology.routers)} routers, {len(topology.nodes)} nodes")
    network.build(lab.prefix, topology)
    internet.start(in_netns(lab.netns(network.INTERNET), []), lab.internet_log, version=topology.version)
    print("== nodes: systemd, each in its namespace", flush=True)
    nodes.start_all(lab, topology.nodes, base)
    inventory.write(lab, topology)
    lab.write(topology, is_complete=True)
    print(f"== up in {time.monotonic() - started:.1f} s")


def down(lab: Lab) -> None:
    """Remove every trace of the lab but its cached files, whatever state it is in. Raises LabError if some is left."""
    _remove(lab)
    remaining = leftovers(lab)
    if remaining:
        raise LabError("left behind: " + "; ".join(remaining))
    print("== down: no process, namespace, mount, control group or interface of the lab is left")


def leftovers(lab: Lab) -> list[str]:
    """What there still is of a lab, in words."""
    return [
        *(f"process {process} ({_name(process)})" for process in _processes(lab)),
        *(f"namespace {name}" for name in network.namespaces(lab.prefix)),
        *(f"mount {mountpoint}" for mountpoint in (*mounts.below(lab.state), *mounts.below(lab.run))),
        *(f"control group {group}" for group in nodes.cgroups(lab)),
        *(f"interface {name} in the machine's namespace" for name in _interfaces(lab)),
    ]


def _remove(lab: Lab) -> None:
    nodes.remove_all(lab)
    _kill(lab)
    network.remove(lab.prefix)
    for directory in (lab.ssh, lab.inventory):
        shutil.rmtree(directory, ignore_errors=True)
    for file in (lab.internet_log, lab.capture, lab.description):
        file.unlink(missing_ok=True)


def _same_places(one: Topology, other: Topology) -> bool:
    """Whether two labs have the same nodes in the same places; how their routers translate may have been switched."""

    def places(topology: Topology) -> Topology:
        return replace(topology, routers=tuple(replace(router, nat="") for router in topology.routers))

    return places(one) == places(other)


def _kill(lab: Lab) -> None:
    """End what runs in the lab's namespaces or for its podman, politely, then not."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(20):
            processes = _processes(lab)
            if not processes:
                return
            for process in processes:
                _signal(process, sent)
            time.sleep(0.05)


def _signal(process: int, sent: signal.Signals) -> None:
    try:
        os.kill(process, sent)
    except ProcessLookupError:
        return


def _processes(lab: Lab) -> list[int]:
    """Processes that are the lab's: in a network namespace of its, or watching over one of its containers."""
    namespaces = {_inode(f"{NETNS_DIR}/{name}") for name in network.namespaces(lab.prefix)} - {None}
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (_inode(f"/proc/{entry}/ns/net") in namespaces or _is_conmon(lab, entry)):
            found.append(int(entry))
    return found


def _is_conmon(lab: Lab, process: str) -> bool:
    try:
        argv = Path("/proc", process, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return argv[0].endswith(b"conmon") and any(argument.startswith(bytes(lab.podman)) for argument in argv)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return "gone"


def _interfaces(lab: Lab) -> list[str]:
    return [name for name in os.listdir("/sys/class/net") if name.startswith(lab.prefix)]
