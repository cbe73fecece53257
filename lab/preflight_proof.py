"""The proof that preflight.yml tells what will go wrong: bare hosts of the lab get faults, and its table is read.

Each fault is made on a host as it happens there. Three stand for what a container cannot have: a Python that is older
than Debian's, a clock of the host's own, and a running dhcpcd. What concerns the whole machine is left alone: its
inotify instances and its kernel's features.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import faults
import nodes
from commands import LabError, run
from state import Lab
from topology import Topology

import playbooks

NODES, PUBLIC = 6, 2
"""It takes two relays to tell how a NAT translates, and two NATs that translate badly to have no way between them."""


@dataclass(frozen=True)
class Fault:
    """A fault on one node: how it is made and undone there, and the line of the table that must tell it."""

    node: str
    check: str
    state: str
    """ERROR or WARNING."""
    words: str
    make: str = ""
    undo: str = ""
    """Commands of the node's shell."""

    def is_told(self, lines: Sequence[str]) -> bool:
        """Whether the table has a line about it."""
        head = f"{self.state:<8} {self.check:<11} "
        return any(
            line.startswith(head) and self.node in line.partition(": ")[0] and self.words in line for line in lines
        )

    def __str__(self) -> str:
        return f"{self.state:<8} {self.check:<11} {self.node}: {self.words}"


_CLOCK = r"""
file=$(echo /etc/python3.*/sitecustomize.py) && cp $file /root/clock
printf 'import time\n_time = time.time\ntime.time = lambda: _time() + 400\n' >>$file
"""
_OLD_PYTHON = r"""
real=$(readlink -f /usr/bin/python3) && cp -P /usr/bin/python3 /root/python3 && rm /usr/bin/python3
printf '#!/bin/sh\n[ "$1" = -ISE ] && { echo 3 9; exit; }\nexec %s "$@"\n' $real >/usr/bin/python3
chmod 755 /usr/bin/python3
"""
_THIEF = "import socket, time; s = socket.socket(2, 2); s.bind(('', 51820)); time.sleep(3600)"

FAULTS = (
    Fault(
        "node1",
        "clock",
        "ERROR",
        "differs from the control machine's by",
        _CLOCK,
        "mv /root/clock /etc/python3.*/sitecustomize.py",
    ),
    Fault(
        "node1",
        "link-local",
        "WARNING",
        "the host itself has 169.254.20.10",
        "ip link add dns type bridge && ip address add 169.254.20.10/32 dev dns",
        "ip link delete dns",
    ),
    Fault(
        "node3",
        "ports",
        "ERROR",
        "UDP port 51820 is used by",
        f'systemd-run --quiet --unit=thief python3 -c "{_THIEF}"; sleep 1',
        "systemctl stop thief",
    ),
    Fault(
        "node3",
        "rp_filter",
        "WARNING",
        "net.ipv4.conf.all.rp_filter is 1",
        "cat /proc/sys/net/ipv4/conf/all/rp_filter >/root/rp_filter && sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "sysctl -qw net.ipv4.conf.all.rp_filter=$(cat /root/rp_filter) && rm /root/rp_filter",
    ),
    Fault(
        "node4",
        "networks",
        "ERROR",
        "the interface lan has the address 10.244.7.1/24, inside the pod overlay",
        "ip link add lan type bridge && ip address add 10.244.7.1/24 dev lan",
        "ip link delete lan",
    ),
    Fault(
        "node4",
        "firewalls",
        "ERROR",
        "inet site forward drops forwarded packets",
        "nft 'table inet site { chain forward { type filter hook forward priority 0; policy drop; }; }'",
        "nft delete table inet site",
    ),
    Fault(
        "node4",
        "other CNI",
        "ERROR",
        "05-cilium.conflist sorts before",
        'mkdir -p /etc/cni/net.d && echo \'{"name": "cilium", "plugins": []}\' >/etc/cni/net.d/05-cilium.conflist',
        "rm /etc/cni/net.d/05-cilium.conflist",
    ),
    Fault(
        "node4",
        "other CNI",
        "WARNING",
        "another pod network has left flannel.1",
        "ip link add flannel.1 type bridge",
        "ip link delete flannel.1",
    ),
    Fault(
        "node5",
        "MTU",
        "ERROR",
        "carries packets of 1300 bytes",
        "ip link set eth0 mtu 1300",
        "ip link set eth0 mtu 1500",
    ),
    Fault(
        "node5",
        "tun",
        "ERROR",
        "there is no /dev/net/tun",
        "mv /dev/net/tun /dev/net/away",
        "mv /dev/net/away /dev/net/tun",
    ),
    Fault(
        "node5",
        "Python",
        "ERROR",
        "/usr/bin/python3 is 3.9",
        _OLD_PYTHON,
        "mv /root/python3 /usr/bin/python3",
    ),
    Fault("node5", "managers", "WARNING", "dhcpcd runs", "mkdir /run/dhcpcd", "rmdir /run/dhcpcd"),
    Fault("node6", "host", "ERROR", "it did not answer", "systemctl stop ssh", "systemctl start ssh"),
)
"""Faults of hosts."""

_SYMMETRIC = ("node3", "node4")
"""The nodes whose routers take another outside port for each destination."""
_NAMED = "node5"
"""The node whose public endpoint is a name without an address."""

_OTHERS = (
    *(Fault(name, "NAT", "WARNING", "it takes another outside port for each destination") for name in _SYMMETRIC),
    *(Fault(f"node{number}", "DNS", "ERROR", "relay.invalid has no address") for number in (1, 2, 3, 4)),
    Fault("the first control-plane host", "etcd", "ERROR", ""),
)
"""Faults of sites and of the inventory, which the run makes."""
_NO_WAY = f"no direct way between {', '.join(_SYMMETRIC)}: "

_INVENTORY = f"""\
evio_nodes:
  hosts:
    {_NAMED}:
      evio_public_endpoint: relay.invalid
"""

_OF_THE_KERNEL = ("WARNING  WireGuard ", "WARNING  datapath ")
"""What the lab's machine may lack."""


def prove(lab: Lab) -> None:
    """Run preflight.yml on hosts with faults and without, and print what it told. Raises LabError for a wrong table."""
    topology = lab.topology()
    if len(topology.nodes) != NODES or sum(node.router is None for node in topology.nodes) != PUBLIC:
        raise LabError(f"this needs a bare lab of its own: lab/lab up {NODES} --public {PUBLIC}")
    status, lines = _run_with_faults(lab, topology)
    missing = [str(fault) for fault in (*FAULTS, *_OTHERS) if not fault.is_told(lines)]
    missing += [_NO_WAY] if not any(line.startswith(_NO_WAY) for line in lines) else []
    print(f"with {len(FAULTS) + len(_OTHERS)} faults, exit status {status}:\n" + "\n".join(lines))
    status_without, lines_without = _run(lab)
    print(f"without them, exit status {status_without}:\n" + "\n".join(lines_without))
    left = [
        line
        for line in lines_without
        if re.match("ERROR|WARNING|no direct way", line) and not line.startswith(_OF_THE_KERNEL)
    ]
    if missing or left or (status, status_without) != (2, 0):
        raise LabError(f"not told: {missing}; told without a reason: {left}")


def _run_with_faults(lab: Lab, topology: Topology) -> tuple[int, list[str]]:
    """Return what a run tells while all faults are there, as _run does. They are undone."""
    more = lab.state / "preflight.yml"
    more.write_text(_INVENTORY)
    made: list[Fault] = []
    try:
        for fault in FAULTS:
            made.append(fault)
            _on(lab, topology, fault.node, fault.make)
        for name in _SYMMETRIC:
            faults.switch_nat(lab, lab.topology(), topology.node(name), "symmetric")
        return _run(lab, "-i", str(more), "-e", "evio_etcd_managed=false")
    finally:
        more.unlink()
        for name in _SYMMETRIC:
            faults.switch_nat(lab, lab.topology(), topology.node(name), "preserving")
        for fault in reversed(made):
            _on(lab, topology, fault.node, fault.undo)


def _run(lab: Lab, *arguments: str) -> tuple[int, list[str]]:
    """Return the exit status of preflight.yml, and the lines of its table. Raises LabError if it shows none."""
    done = playbooks.attempt(lab, "preflight.yml", *arguments, ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    table = re.search(r'"msg": (\[\n.*?\n    \])', done.stdout, re.DOTALL)
    if table is None:
        raise LabError(f"preflight.yml shows no table: {(done.stdout + done.stderr)[-2000:]}")
    lines: list[str] = json.loads(table[1])
    return done.returncode, lines


def _on(lab: Lab, topology: Topology, name: str, script: str) -> None:
    run(*nodes.command(lab, topology.node(name), ["sh", "-ec", script]))
