"""The lab's nodes: podman containers with systemd as process 1, each in the network namespace that network.py made.

In a lab of virtual machines, machines.py starts them. A node's files are an overlay over the root file system of its
Debian release, which may have layers. They outlive a reboot of the node; its network settings do not.
"""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import machines
import mounts
import network
import ssh
from commands import NETNS_DIR, REPORT_INTERVAL, LabError, attempt, run
from rootfs import INIT_PATH
from state import Lab, write_file
from topology import Node, Topology

BOOT_TIMEOUT = 60.0
"""Seconds from the start of process 1 until systemd says that all units are up."""

_HIGHEST_LIMIT = 20000
"""Limit of open files of a process, and of root's processes on this machine."""
_RUNC_DIR = "/run/runc"

_CONTAINERS_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"""
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n"


def start_all(lab: Lab, topology: Topology, layers: Mapping[str, Sequence[Path]]) -> None:
    """Start nodes at the same time, and return when each has all its units up and answers on its ssh port.

    By release, the root file system is the last of the layers; a file of an earlier layer hides those of later ones.
    """
    nodes = topology.nodes
    ssh.make_key(lab)
    if topology.has_machines:
        _on_all(lambda node: _write_identity(lab, node, machines.prepare(lab, node)), nodes)
        ssh.write_configuration(lab, nodes)
        _on_all(lambda node: machines.start(lab, node, layers[node.release][-1]), nodes)
        _on_all(lambda node: _await_boot(lab, node), nodes)
        return
    write_file(_containers_conf(lab), _CONTAINERS_CONF)
    _on_all(lambda node: _create(lab, node, layers[node.release]), nodes)
    ssh.write_configuration(lab, nodes)
    _on_all(lambda node: _await_boot(lab, node), nodes)


def reboot(lab: Lab, topology: Topology, node: Node) -> None:
    """Shut a node down (a container has 3 s), make its network namespace anew, and start it."""
    if lab.is_machine(node.name):
        machines.reboot(lab, node)
        _await_boot(lab, node)
        return
    _podman(lab, "stop", "--time=3", lab.netns(node.name))
    network.remove_node(lab.prefix, node)
    network.build_node(lab.prefix, topology, node)
    _podman(lab, "start", lab.netns(node.name))
    _await_boot(lab, node)


def pid(lab: Lab, node: Node) -> int:
    """Return the process id, on this machine, of the node's process 1.

    Raises LabError if the node does not run, or is a virtual machine, whose processes have no id here.
    """
    if lab.is_machine(node.name):
        raise LabError(f"{node.name} is a virtual machine: this works in a lab without --machines only")
    try:
        number = int(_pid_file(lab, node).read_text())
    except (FileNotFoundError, ValueError) as error:
        raise LabError(f"{node.name} does not run: see lab/lab status") from error
    if not Path(f"/proc/{number}/root/{INIT_PATH}").exists():
        raise LabError(f"{node.name} does not run: its process 1 has ended")
    return number


def is_running(lab: Lab, node: Node) -> bool:
    """Whether the node's process 1 is alive."""
    if lab.is_machine(node.name):
        return machines.pid(lab, node) is not None
    try:
        pid(lab, node)
    except LabError:
        return False
    return True


def command(lab: Lab, node: Node, argv: Iterable[str]) -> list[str]:
    """Return the command line that runs argv in all of a node's namespaces, as root and without ssh.

    A virtual machine is entered by ssh.
    """
    if lab.is_machine(node.name):
        return machines.command(lab, node, argv)
    return ["nsenter", f"--target={pid(lab, node)}", "-m", "-u", "-i", "-n", "-p", "-C", "--", *argv]


def remove_all(lab: Lab) -> None:
    """Kill every node, whatever its state, and remove its files: through podman, then without it what podman left."""
    if _containers_conf(lab).exists():
        try:
            _podman(lab, "rm", "--all", "--force", "--time=0")
        except LabError as error:
            print(f"   podman could not remove the nodes, removing them without it: {error}", flush=True)
    _kill_cgroup(lab)
    for mountpoint in (*mounts.below(lab.state), *mounts.below(lab.run)):
        attempt("umount", "--lazy", mountpoint)
    _remove_runc_state(lab)
    _remove_cgroup(lab)
    for directory in (lab.state / "nodes", lab.podman, lab.run):
        shutil.rmtree(directory, ignore_errors=True)


def cgroups(lab: Lab) -> list[Path]:
    """Return the lab's control groups in all of the machine's hierarchies, innermost first."""
    tops = [*Path("/sys/fs/cgroup").glob(f"*/{lab.prefix}"), Path("/sys/fs/cgroup", lab.prefix)]
    found = [Path(path) for top in tops for path, _, _ in os.walk(top)]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _create(lab: Lab, node: Node, layers: Sequence[Path]) -> None:
    root = _mount_root(lab, node, layers)
    _write_identity(lab, node, root)
    containerd = lab.node(node.name) / "containerd"
    containerd.mkdir(exist_ok=True)
    # --privileged would give nodes the machine's disks, and --systemd under cgroup v1 would let all nodes share the
    # machine's hierarchy: neither is used, and the options below give systemd what it asks of a container manager.
    _podman(
        lab, "run", "--detach", f"--name={lab.netns(node.name)}", f"--hostname={node.name}",
        "--systemd=false", "--env=container=podman", "--stop-signal=SIGRTMIN+3",
        "--tmpfs=/run:mode=755", "--tmpfs=/run/lock", "--tmpfs=/tmp",
        "--cap-add=ALL", "--security-opt=seccomp=unconfined", "--security-opt=unmask=ALL", "--device=/dev/net/tun",
        "--cgroupns=private", f"--cgroup-parent={lab.cgroup}",
        f"--ulimit=nofile=1024:{_limit(resource.RLIMIT_NOFILE)}", f"--ulimit=nproc={_limit(resource.RLIMIT_NPROC)}",
        f"--network=ns:{NETNS_DIR}/{lab.netns(node.name)}", "--no-hosts", "--dns=none",
        # containerd's snapshots are overlays, which cannot be on the node's own overlay: a volume holds them.
        f"--volume={containerd}:/var/lib/containerd",
        f"--pidfile={_pid_file(lab, node)}", "--rootfs", str(root), INIT_PATH,
    )  # fmt: skip


def _limit(which: int) -> int:
    """Return a hard limit that a container can have even if this machine's root may not raise limits."""
    _, most = resource.getrlimit(which)
    return min(most if most != resource.RLIM_INFINITY else 1 << 20, _HIGHEST_LIMIT)


def _mount_root(lab: Lab, node: Node, layers: Sequence[Path]) -> Path:
    directory = lab.node(node.name)
    upper, work, root = directory / "upper", directory / "work", directory / "root"
    for path in (upper, work, root):
        path.mkdir(parents=True)
    # volatile: a node's fsync does not wait for the disk, because the lab's files need not survive a power cut.
    options = f"lowerdir={':'.join(map(str, layers))},upperdir={upper},workdir={work},volatile"
    run("mount", "-t", "overlay", "-o", options, "overlay", str(root))
    return root


def _write_identity(lab: Lab, node: Node, root: Path) -> None:
    """Write a node's name, machine-id and host key, and the key that may log in."""
    write_file(root / "etc/hostname", f"{node.name}\n")
    write_file(root / "etc/hosts", _HOSTS.format(name=node.name))
    # The lab has no DNS: queries to the loopback are refused at once instead of timing out.
    write_file(root / "etc/resolv.conf", "nameserver 127.0.0.1\n")
    write_file(root / "etc/machine-id", f"{secrets.token_hex(16)}\n", mode=0o444)
    ssh.install(lab, node, root)


def _await_boot(lab: Lab, node: Node) -> None:
    """Wait until a node is up; report every 10 s. Raises LabError with the failed units, or when it took too long."""
    started = reported = time.monotonic()
    is_machine = lab.is_machine(node.name)
    timeout = machines.BOOT_TIMEOUT if is_machine else BOOT_TIMEOUT
    while True:
        if is_machine:
            machines.check(lab, node)
        # A virtual machine is entered by ssh.
        can_ask = not is_machine or ssh.answers(lab, node)
        ask = ["systemctl", "is-system-running"]
        state = attempt(*command(lab, node, ask), timeout=120).stdout.strip() if can_ask else ""
        if state == "running" and ssh.answers(lab, node):
            return
        if state == "degraded":
            failed = run(*command(lab, node, ["systemctl", "--failed", "--plain", "--no-legend"])).strip()
            raise LabError(f"{node.name}: units failed at boot: {failed}")
        now = time.monotonic()
        if now - started > timeout:
            raise LabError(f"{node.name}: not up after {timeout:g} s: systemd says {state or 'nothing'}")
        if now - reported > REPORT_INTERVAL:
            reported = now
            print(f"   waiting for {node.name}, {now - started:.0f} s: systemd says {state or 'nothing'}", flush=True)
        time.sleep(1 if is_machine else 0.05)


def _kill_cgroup(lab: Lab) -> None:
    """Kill every process in the lab's control groups: podman may have left some, or may not know of them."""
    for _ in range(50):
        processes = {process for group in cgroups(lab) for process in (group / "cgroup.procs").read_text().split()}
        if not processes:
            return
        attempt("kill", "-KILL", *sorted(processes))
        time.sleep(0.1)


def _remove_runc_state(lab: Lab) -> None:
    """Remove runc's state of the lab's containers, and runc's directory if no other container is in it."""
    for group in cgroups(lab):
        shutil.rmtree(Path(_RUNC_DIR, group.name.removeprefix("libpod-")), ignore_errors=True)
    attempt("rmdir", _RUNC_DIR)


def _remove_cgroup(lab: Lab) -> None:
    for _ in range(20):
        remaining = cgroups(lab)
        for group in remaining:
            # A group stays busy for a moment after its last process has ended, so this is tried again.
            attempt("rmdir", str(group))
        if not remaining:
            return
        time.sleep(0.05)


def _pid_file(lab: Lab, node: Node) -> Path:
    return lab.node(node.name) / "pid"


def _containers_conf(lab: Lab) -> Path:
    return lab.run / "containers.conf"


def _podman(lab: Lab, *arguments: str) -> None:
    """Run podman with the lab's own storage and configuration. Raises LabError with podman's message."""
    done = attempt(
        "env", f"CONTAINERS_CONF={_containers_conf(lab)}", "podman", "--storage-driver=overlay", f"--root={lab.podman}",
        f"--runroot={lab.run / 'containers'}", f"--tmpdir={lab.run / 'libpod'}",
        f"--network-config-dir={lab.run / 'networks'}", *arguments, timeout=60,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError(f"podman {arguments[0]} failed (exit {done.returncode}): {done.stderr.strip()}")


def _on_all(work: Callable[[Node], None], nodes: tuple[Node, ...]) -> None:
    with ThreadPoolExecutor(max_workers=16) as workers:
        list(workers.map(work, nodes))
