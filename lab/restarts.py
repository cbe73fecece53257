"""Restart a node's vswitchd, and measure how long its pods stand still and whether forged ARP passes meanwhile.

A new vswitchd knows no flows. Beside the pods, two namespaces on a plain bridge of the same vswitchd show how long
vswitchd itself needs, and that forged frames are seen where nothing keeps them.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nodes
import pods
from commands import LabError, attempt, run
from state import Lab
from topology import Node

GOAL_SECONDS = 1.0
"""Seconds that pods may stand still beyond what vswitchd itself needs."""

_INTERVAL = 0.02
"""Seconds between two pings."""
_PATIENCE = 30.0
"""Seconds after a restart within which pods must answer again."""
_STEADY = 2.0
"""Seconds of replies after which a restart counts as overcome. evio-repair.service has run by then."""
REPLY = re.compile(r"^\[([0-9.]+)\] .* icmp_seq=", re.MULTILINE)
"""A reply in the output of `ping -D`, and its time in seconds."""

_PLAIN = """\
set -e
ovs-vsctl add-br br-plain -- set bridge br-plain datapath_type="$(ovs-vsctl get bridge br-evio datapath_type)"
for i in 1 2; do
    ip netns add plain$i
    ip link add plain$i type veth peer name eth0 netns plain$i
    ip link set plain$i up
    ip -n plain$i link set eth0 up
    ip -n plain$i address add 192.0.2.$i/24 dev eth0
    ovs-vsctl add-port br-plain plain$i
done
"""
_NO_PLAIN = "ovs-vsctl --if-exists del-br br-plain; ip netns del plain1; ip netns del plain2"

_ARP = """\
import socket, sys, time
arp = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
arp.bind(("eth0", 0x0806))
address = socket.inet_aton(sys.argv[2])
mac = b"\\2forge"
reply = b"\\xff" * 6 + mac + bytes.fromhex("0806 0001 0800 0604 0002") + mac + address + b"\\xff" * 6 + address
while sys.argv[1] == "send":
    arp.send(reply)
    time.sleep(0.005)
while True:
    frame = arp.recv(200)
    if frame[6:12] == mac:
        print("forged", flush=True)
"""
"""Sends gratuitous ARP replies from a MAC that is nobody's, or prints a line for each one that arrives."""


@dataclass(frozen=True)
class Restart:
    """What one restart did: the longest time without a reply, in seconds, on the plain bridge and between pods.

    ``forged`` counts the forged frames that another pod of the node has got; ``forged_on_plain`` those on the plain
    bridge.
    """

    kind: str
    plain: float
    same_node: float
    other_node: float
    forged: int
    forged_on_plain: int

    @property
    def beyond(self) -> float:
        """Seconds that the pods stood still beyond what vswitchd itself needed."""
        return max(self.same_node, self.other_node) - self.plain

    @property
    def is_good(self) -> bool:
        """Whether no forged frame has passed, the search for them works, and the pods did not stand still too long."""
        return self.forged == 0 and self.forged_on_plain > 0 and self.beyond < GOAL_SECONDS


def measure(lab: Lab, node: Node, times: int) -> Iterator[Restart]:
    """Restart the node's vswitchd so many times by systemd, and so many by SIGKILL. Its pods must be up."""
    running = pods.running(lab)
    own = [pod for pod in running if pod.node == node.name]
    other = next((pod for pod in running if pod.node != node.name), None)
    if len(own) < 2 or other is None:
        raise LabError(f"{node.name} and another node must have pods: run lab/lab pods up")
    proc = Path(f"/proc/{nodes.pid(lab, node)}/root")
    first, second = (proc / f"proc/{pod.pid}/ns/net" for pod in own[:2])
    plain, plain_second = (proc / f"run/netns/plain{number}" for number in (1, 2))
    gateway = own[0].address.rpartition(".")[0] + ".1"
    with ExitStack() as stack:
        stack.callback(attempt, *nodes.command(lab, node, ["sh", "-c", _NO_PLAIN]))
        run(*nodes.command(lab, node, ["sh", "-c", _PLAIN]))
        logs = [
            stack.enter_context(_logged(lab, netns, ["ping", "-n", "-D", f"-i{_INTERVAL}", target]))
            for netns, target in ((plain, "192.0.2.2"), (first, own[1].address), (first, other.address))
        ]
        heard = [
            stack.enter_context(_logged(lab, netns, [sys.executable, "-c", _ARP, "listen", gateway]))
            for netns in (second, plain_second)
        ]
        for netns in (first, plain):
            stack.enter_context(_logged(lab, netns, [sys.executable, "-c", _ARP, "send", gateway]))
        _await_steady(logs, time.time())
        for kind in ("restarted by systemd", "killed by SIGKILL"):
            for _ in range(times):
                yield _restart(lab, node, kind, logs, heard)


def longest_gap(replies: Sequence[float], since: float) -> float:
    """Return the longest time between two replies, of which the later one came after ``since``; all in seconds."""
    return max((later - earlier for earlier, later in pairwise(replies) if later > since), default=float("inf"))


def as_line(restart: Restart) -> str:
    """Return a line of the table; its head is ``HEAD``."""
    seconds = "".join(f"{value:10.2f}" for value in (restart.plain, restart.same_node, restart.other_node))
    wrong = "" if restart.is_good else "  NOT AS IT MUST BE"
    return f"{restart.kind:22}{seconds}{restart.beyond:10.2f}{restart.forged:8}{restart.forged_on_plain:10}{wrong}"


HEAD = (
    f"{'VSWITCHD IS':22}{'PLAIN':>10}{'SAME NODE':>10}{'OTHER':>10}{'BEYOND':>10}{'FORGED':>8}{'ON PLAIN':>10}"
    "  (seconds without a reply; forged frames that arrived)"
)


def _restart(lab: Lab, node: Node, kind: str, logs: Sequence[Path], heard: Sequence[Path]) -> Restart:
    before = [path.stat().st_size for path in heard]
    began = time.time()
    if kind.startswith("killed"):
        script = 'kill -KILL "$(cat /run/openvswitch/ovs-vswitchd.pid)"; systemctl reset-failed ovs-vswitchd.service'
    else:
        script = "systemctl reset-failed ovs-vswitchd.service; systemctl restart ovs-vswitchd.service"
    run(*nodes.command(lab, node, ["sh", "-c", script]), timeout=90)
    _await_steady(logs, began)
    plain, same_node, other_node = (longest_gap(_replies(path), began) for path in logs)
    forged, on_plain = (
        (path.stat().st_size - size) // len("forged\n") for path, size in zip(heard, before, strict=True)
    )
    return Restart(kind, plain, same_node, other_node, forged, on_plain)


def _await_steady(logs: Sequence[Path], began: float) -> None:
    """Wait until each ping gets replies again, for as long as _STEADY. Raises LabError after _PATIENCE."""
    # A restart takes up to a second to be felt, and a kill is felt at once.
    time.sleep(1)
    deadline = time.time() + _PATIENCE
    while True:
        newest = [max(_replies(path), default=0.0) for path in logs]
        calm = [_replies_since(path, time.time() - _STEADY) for path in logs]
        if min(newest) > began and all(count > 0.7 * _STEADY / _INTERVAL for count in calm):
            return
        if time.time() > deadline:
            raise LabError(f"pods do not answer steadily within {_PATIENCE:g} s after a restart of vswitchd")
        time.sleep(0.2)


def _replies(path: Path) -> list[float]:
    return [float(at) for at in REPLY.findall(path.read_text())]


def _replies_since(path: Path, since: float) -> int:
    return sum(at > since for at in _replies(path))


@contextmanager
def _logged(lab: Lab, netns: Path, argv: Sequence[str]) -> Iterator[Path]:
    """Run a program of this machine in a network namespace while the block runs; gives the file with its output."""
    path = lab.state / f"restarts.{time.monotonic_ns()}.log"
    with path.open("wb") as output:
        process = subprocess.Popen(["nsenter", f"--net={netns}", *argv], stdout=output, stderr=output)
    try:
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
        path.unlink()
