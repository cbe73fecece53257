"""The proof that bootstrap.yml and all that it sets up work on the kernel's Open vSwitch and WireGuard: a table.

The nodes are virtual machines with Debian's kernel. A public node and one behind a NAT are bootstrapped twice, their
pods ask each other, and then the second node loses what the kernel had of it: its overlay interface, its switch, the
switch's database, and at last all of it, by a reboot. No loss is repaired by hand.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import faults
import nodes
import pods
import proof
from commands import LabError, run
from restarts import REPLY, longest_gap
from rows import Row, measure
from state import Lab
from topology import Node

import playbooks

_SECONDS = 40
"""Seconds of pings around each loss."""
_STEADY = 3.0
"""Seconds before the end of the pings within which a reply must have come."""
_LOSSES = {
    "evio0 is deleted": "ip link delete evio0",
    "vswitchd is restarted": "systemctl restart ovs-vswitchd.service",
    "vswitchd is killed": 'kill -KILL "$(cat /run/openvswitch/ovs-vswitchd.pid)"',
    "Open vSwitch begins with an empty database": (
        "systemctl stop openvswitch-switch.service ovs-vswitchd.service ovsdb-server.service; "
        "rm -f /etc/openvswitch/conf.db /var/lib/openvswitch/conf.db; systemctl start openvswitch-switch.service"
    ),
}
"""What a node loses, and the command that takes it."""
_PLAYBOOK_TIMEOUT = 3600.0
"""Seconds for a run of the playbook. On two quiet processors it needs minutes, on busy ones half an hour."""


def prove(lab: Lab) -> None:
    """Print the rows. Raises LabError if a row fails, or if the lab's nodes are no virtual machines."""
    topology = lab.topology()
    if not topology.has_machines or len(topology.nodes) < 2:
        raise LabError("the lab has no two virtual machines as nodes: build it with lab/lab up 2 --machines")
    lost = topology.nodes[1]
    checks: list[tuple[str, Callable[[], tuple[str, bool]]]] = [
        ("bootstrap.yml", lambda: _bootstrap(lab, is_first=True)),
        ("the kernel's Open vSwitch and WireGuard are in use", lambda: _kernels_own(lab)),
        ("bootstrap.yml again changes nothing", lambda: _bootstrap(lab, is_first=False)),
        ("two pods on each node", lambda: _start_pods(lab)),
        ("pods reach all that they must", lambda: _prove_pods(lab)),
        *(
            (f"{what}: pods talk again", lambda script=script: _lose(lab, lost, script))
            for what, script in _LOSSES.items()
        ),
        (f"{lost.name} is rebooted, and has new pods", lambda: _reboot(lab, lost)),
        ("pods reach all that they must", lambda: _prove_pods(lab)),
        ("all nodes say that they are ready", lambda: _status(lab)),
    ]
    rows: list[Row] = []
    for subject, check in checks:
        rows.append(measure(subject, check))
        if not rows[-1].holds and len(rows) <= 4:
            # Nothing that follows could hold.
            break
    failed = [row.subject for row in rows if not row.holds]
    if failed:
        raise LabError(f"{len(failed)} of {len(checks)} rows failed: {'; '.join(failed)}")


def _bootstrap(lab: Lab, *, is_first: bool) -> tuple[str, bool]:
    printed = playbooks.run(lab, "bootstrap.yml", timeout=_PLAYBOOK_TIMEOUT)
    changed = [int(count) for count in re.findall(r"changed=(\d+)", printed)]
    return f"changes: {', '.join(map(str, changed))}", len(changed) >= 2 and (is_first or not any(changed))


def _kernels_own(lab: Lab) -> tuple[str, bool]:
    look = (
        "ovs-appctl dpif/show | head -n 1; ip -json -details link show evio0; "
        "pgrep --count --exact wireguard-go; uname -r"
    )
    seen = []
    holds = True
    for node in lab.topology().nodes:
        datapath, link, daemons, release = _output(lab, node, look).splitlines()
        kind = json.loads(link)[0]["linkinfo"]["info_kind"]
        holds = holds and (datapath.split(":")[0], kind, daemons) == ("system@ovs-system", "wireguard", "0")
        seen.append(f"{node.name}: {datapath.split(':')[0]}, {kind}, {daemons} wireguard-go, kernel {release}")
    return "; ".join(seen), holds


def _start_pods(lab: Lab) -> tuple[str, bool]:
    pods.up(lab)
    running = pods.running(lab)
    return ", ".join(f"{pod.name} {pod.address}" for pod in running), len(running) == len(pods.PER_NODE) * 2


def _prove_pods(lab: Lab) -> tuple[str, bool]:
    proved = proof.prove(lab)
    failures = [check.claim for check in proved.failures]
    paths = sorted({f"{path.source} to {path.target} {path.relay or 'direct'}" for path in proved.paths})
    measured = f"{len(proved.checks) - len(failures)} of {len(proved.checks)} checks hold; {', '.join(paths)}"
    return "; ".join([measured, *failures[:3]]), not failures


def _lose(lab: Lab, node: Node, script: str) -> tuple[str, bool]:
    """Take something from a node while its pod pings a pod of another node; return how long no reply came."""
    running = pods.running(lab)
    own = next(pod for pod in running if pod.node == node.name)
    other = next(pod for pod in running if pod.node != node.name)
    # With a deadline of its own, ping ends at the first packet that the node refuses.
    ping = f"timeout {_SECONDS} nsenter --net=/proc/{own.pid}/ns/net ping -n -D -i 0.1 {other.address}"
    printed = _output(lab, node, f"{ping} & sleep 3; {script}; wait", timeout=_SECONDS + 60)
    replies = [float(at) for at in REPLY.findall(printed)]
    if not replies:
        return "no pod has ever replied", False
    gap = longest_gap(replies, 0)
    is_steady = replies[-1] - replies[0] > _SECONDS - _STEADY
    return f"no reply for {gap:.1f} s" + ("" if is_steady else ", and none in the end"), is_steady


def _reboot(lab: Lab, node: Node) -> tuple[str, bool]:
    boot_id = "cat /proc/sys/kernel/random/boot_id"
    before = _output(lab, node, boot_id)
    began = time.monotonic()
    faults.reboot(lab, lab.topology(), node)
    seconds = time.monotonic() - began
    pods.up(lab)
    return f"booted after {seconds:.0f} s", _output(lab, node, boot_id) != before


def _status(lab: Lab) -> tuple[str, bool]:
    problems = {
        node.name: json.loads(_output(lab, node, "/opt/cni/bin/evio status --json"))["problems"]
        for node in lab.topology().nodes
    }
    return "; ".join(f"{name}: {found or 'no problem'}" for name, found in problems.items()), not any(problems.values())


def _output(lab: Lab, node: Node, script: str, timeout: float = 60.0) -> str:
    """Return what a shell's script prints on a node, whatever its last command's exit code. Raises LabError."""
    return run(*nodes.command(lab, node, ["sh", "-c", f"{script}\nexit 0"]), timeout=timeout)
