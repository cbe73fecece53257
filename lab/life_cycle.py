"""Build and remove the whole lab: the order in which network, internet host, nodes and inventory come and go."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import internet
import inventory
import kubernetes_layer
import mounts
import network
import nodes
import rootfs
from commands import NETNS_DIR, LabError, in_netns
from state import Lab
from topology import Topology


def up(lab: Lab, topology: Topology) -> None:
    """Bring up the lab; leave it as it is if a lab with the same nodes is up already.

    Raises LabError if the lab cannot be built. What was built until then stays, for inspection; the next `up` or
    `down` removes it.
    """
    described = lab.read()
    if described and described.is_complete and all(nodes.is_running(lab, node) for node in described.topology.nodes):
        if _have_same_nodes(described.topology, topology):
            print("== the lab is up already")
            return
        raise LabError("another lab is up, with other nodes: remove it with lab/lab down first")
    if described:
        print("== removing an unfinished lab", flush=True)
        _remove(lab)
    else:
        _refuse_lab_of_another_checkout(lab)
        if network.namespaces(lab.prefix):
            raise LabError(f"namespaces {lab.prefix}-* of a lab that nobody describes exist: run lab/lab down")
    started = time.monotonic()
    layers = _layers(lab, topology)
    lab.write(topology, is_complete=False)
    segment = f"a public segment with IPv{topology.version} and MTU {topology.mtu}"
    print(f"== network: {segment}, {len(topology.routers)} routers, {len(topology.nodes)} nodes", flush=True)
    network.build(lab.prefix, topology)
    internet.start(in_netns(lab.netns(network.INTERNET), []), lab.internet_log, version=topology.version)
    where = "a virtual machine for each" if topology.has_machines else "the network namespace of each"
    print(f"== nodes: starting systemd in {where}", flush=True)
    nodes.start_all(lab, topology, layers)
    inventory.write(lab, topology)
    lab.write(topology, is_complete=True)
    print(f"== the lab is up after {time.monotonic() - started:.1f} s", flush=True)


def _layers(lab: Lab, topology: Topology) -> dict[str, tuple[Path, ...]]:
    """Return the layers of each release's nodes; build those that are missing."""
    bases = {release: rootfs.prepare(lab, release) for release in topology.releases}
    if not topology.has_kubernetes:
        return {release: (base,) for release, base in bases.items()}
    # Its programs are static, and its images have their libraries: the same layer fits all releases.
    kubernetes = kubernetes_layer.prepare(lab, bases[topology.releases[0]])
    return {release: (kubernetes, base) for release, base in bases.items()}


def down(lab: Lab) -> None:
    """Remove the lab, whatever state it is in, except its cached files.

    Raises LabError if the lab with this prefix is that of another checkout, or if anything of it is left.
    """
    if lab.read() is None:
        _refuse_lab_of_another_checkout(lab)
    _remove(lab)
    remaining = leftovers(lab)
    if remaining:
        raise LabError("could not remove: " + "; ".join(remaining))
    print("== down: no process, namespace, mount, control group or interface of the lab is left")


def _refuse_lab_of_another_checkout(lab: Lab) -> None:
    owner = lab.other_owner()
    if owner:
        raise LabError(
            f"the lab {lab.prefix} is that of another checkout ({owner}): run lab/lab down there, or give this one "
            "another prefix in the environment variable EVIO_LAB_PREFIX"
        )


def leftovers(lab: Lab) -> list[str]:
    """Return what still exists of a lab, a description each."""
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


def _have_same_nodes(one: Topology, other: Topology) -> bool:
    """Whether two topologies are the same, except for how their routers translate: a fault may have changed that."""

    def without_nat(topology: Topology) -> Topology:
        return replace(topology, routers=tuple(replace(router, nat="") for router in topology.routers))

    return without_nat(one) == without_nat(other)


def _kill(lab: Lab) -> None:
    """End the processes in the lab's namespaces and of its podman: SIGTERM, and SIGKILL after a second."""
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
    """Return the ids of the lab's processes: those in its network namespaces, and podman's conmon of its nodes."""
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
