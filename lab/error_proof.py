"""The proof that docs/troubleshooting.md is found by the words on the screen: likely errors are provoked and looked up.

Each fault is made on the nodes of a lab with pods, or by a wrong run of a playbook, as it happens to an operator. What
the screen shows then must have the words that the page's table of errors has, and after them what to do. Then the fault
is mended, where it can be as the page says, and the nodes must have no problem before the next one is made.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import faults
import nodes
import pods
from commands import LabError, attempt, run
from cri import LABEL
from rows import Row, measure
from state import REPOSITORY, Lab

import playbooks

PAGE = REPOSITORY / "docs/troubleshooting.md"
NODES = 3
_PATIENCE = 40.0
"""Seconds after a fault, or after its end, within which a node must tell it. An agent looks at firewalls every ten."""

Act = Callable[[Lab], None]
See = Callable[[Lab], str]


@dataclass(frozen=True)
class Look:
    """A look at a screen: what fills it, the words that must be there, and the words of the remedy after them."""

    see: See
    words: str
    remedy: str
    """Empty if the words are those of another program, or say themselves what to do."""


@dataclass(frozen=True)
class Fault:
    """A fault, what is seen of it, and what mends it."""

    looks: tuple[Look, ...]
    make: tuple[Act, ...] = ()
    mend: tuple[Act, ...] = ()
    is_patient: bool = False
    """Whether the node needs some seconds until it tells the fault."""


def _shell(node: str, script: str) -> Act:
    """Return what runs a shell's script on a node."""

    def act(lab: Lab) -> None:
        run(*nodes.command(lab, lab.topology().node(node), ["sh", "-ec", script]), timeout=90)

    return act


def _evio(node: str, *arguments: str) -> See:
    """Return what runs ``evio`` on a node and returns all that it prints."""

    def see(lab: Lab) -> str:
        done = attempt(*nodes.command(lab, lab.topology().node(node), ["evio", *arguments]), timeout=90)
        return done.stdout + done.stderr

    return see


def _new_pod(node: str) -> See:
    """Return what starts one more pod on a node as kubelet does, and returns the runtime's error."""

    def see(lab: Lab) -> str:
        with pods.runtime(lab, lab.topology().node(node)) as runtime:
            try:
                sandbox = runtime.run_sandbox("unlucky", str(uuid.uuid4()), {LABEL: "pod"})
            except LabError as error:
                return str(error)
            runtime.remove_sandbox(sandbox)
        return "the pod was started"

    return see


def _playbook(name: str, *arguments: str, inventory: str = "", is_alone: bool = False) -> See:
    """Return what runs a playbook that must fail, and returns all that it prints.

    ``inventory`` is that of a further file; ``is_alone`` leaves out that of the lab.
    """

    def see(lab: Lab) -> str:
        more = lab.state / "errors.yml"
        more.write_text(inventory)
        nowhere = replace(lab, state=lab.state / "nowhere")
        try:
            done = playbooks.attempt(
                nowhere if is_alone else lab, name, *(["-i", str(more)] if inventory else []), *arguments
            )
        finally:
            more.unlink()
        if done.returncode == 0:
            raise LabError(f"{name} {' '.join(arguments)} did not fail")
        return done.stdout + done.stderr

    return see


def _restore_claims(lab: Lab) -> None:
    playbooks.run(lab, "bootstrap.yml", "-e", "evio_node_subnet_restore=true")


_NODE, _OTHER, _FIRST = "node3", "node2", "node1"
_POD = "evio-lab/node3-a"
_SWITCH = "openvswitch-switch ovs-vswitchd ovsdb-server"
_STATE = "/var/lib/evio-cni"
_CONFLIST = "/etc/cni/net.d/10-evio.conflist"
_STRANGER = "-o ControlPath=none -o UserKnownHostsFile=/dev/null"
"""Options of ssh with which it knows no host."""
_MISLED = "evio_nodes: {hosts: {node2: {ansible_host: node3}}}\n"
_THIEF = "import socket, time; s = socket.socket(2, 2); s.bind(('', 51820)); time.sleep(3600)"
_FIREWALL = "table inet site { chain forward { type filter hook forward priority 0; policy drop; }; }"
_ETCDCTL = (
    "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/evio-etcd/etcd/ca.crt "
    "--cert=/etc/evio-etcd/apiserver-etcd-client.crt --key=/etc/evio-etcd/apiserver-etcd-client.key"
)
_repair = _shell(_NODE, "evio repair")

FAULTS = (
    # A pod does not start, or is cut off.
    Fault(
        (
            Look(_new_pod(_NODE), "is ovs-vswitchd running?", "systemctl restart ovs-vswitchd"),
            Look(_evio(_NODE, "status"), "because Open vSwitch does not run", "systemctl restart openvswitch-"),
        ),
        # vswitchd takes ovsdb-server with it when systemd stops it.
        (_shell(_NODE, f"systemctl stop {_SWITCH} && systemctl start ovsdb-server"),),
        (_shell(_NODE, "systemctl restart openvswitch-switch"),),
    ),
    Fault(
        (Look(_new_pod(_NODE), "is ovsdb-server running?", "start openvswitch-switch"),),
        (_shell(_NODE, f"systemctl stop {_SWITCH}"),),
        (_shell(_NODE, "systemctl start openvswitch-switch"),),
    ),
    Fault(
        (
            Look(_new_pod(_NODE), "cni plugin not initialized", ""),
            Look(_evio(_NODE, "status"), "new pods get no network", "evio.cni.bootstrap"),
            Look(_evio(_NODE, "repair"), "this node is not set up for pods yet", "evio.cni.bootstrap"),
        ),
        (_shell(_NODE, f"mv {_CONFLIST} /etc/cni/away && systemctl restart containerd"),),
        (_shell(_NODE, f"mv /etc/cni/away {_CONFLIST} && systemctl restart containerd"),),
        is_patient=True,
    ),
    Fault(
        (Look(_new_pod(_NODE), "is not in CNI_PATH", "containernetworking-plugins"),),
        (_shell(_NODE, "mv /opt/cni/bin/host-local /opt/cni/away"),),
        (_shell(_NODE, "mv /opt/cni/away /opt/cni/bin/host-local"),),
    ),
    Fault(
        (
            Look(_evio(_NODE, "status"), "is not ready for pods", "mount it read-write"),
            Look(_evio(_NODE, "status"), "nothing can be written in", "mount it read-write"),
        ),
        (_shell(_NODE, f"mount --bind {_STATE} {_STATE} && mount -o remount,bind,ro {_STATE}"),),
        (_shell(_NODE, f"umount {_STATE}"),),
    ),
    Fault(
        (
            Look(_evio(_NODE, "status"), "not plugged into the bridge", "evio repair"),
            Look(_evio(_NODE, "explain", _POD), "is not a port of the bridge", "evio repair"),
        ),
        (_shell(_NODE, "for port in $(ovs-vsctl list-ports br-evio | grep evpod); do ovs-vsctl del-port $port; done"),),
        (_repair,),
    ),
    Fault(
        (Look(_evio(_NODE, "explain", _POD), "has lost its NORMAL flow and forwards nothing", "evio repair"),),
        (_shell(_NODE, "ovs-ofctl del-flows br-evio"),),
        (_repair,),
    ),
    Fault(
        (Look(_evio(_NODE, "status"), "IPAM may give their addresses to other pods", "evio repair"),),
        (_shell(_NODE, "rm -r /var/lib/cni"),),
        (_repair,),
    ),
    Fault(
        (Look(_evio(_NODE, "status"), "a firewall of the node cuts pods off", "nft insert rule"),),
        (_shell(_NODE, f"nft '{_FIREWALL}'"),),
        (_shell(_NODE, "nft delete table inet site"),),
        is_patient=True,
    ),
    # What an operator asks a node.
    Fault((Look(_evio(_NODE, "explain", "10.9.9.9"), "no pod of this node has the address", "evio status"),)),
    Fault(
        (Look(_evio(_NODE, "explain", _POD), "the container runtime at", "systemctl status containerd"),),
        (_shell(_NODE, "systemctl stop containerd"),),
        (_shell(_NODE, "systemctl start containerd"),),
    ),
    Fault(
        (
            Look(_evio(_NODE, "status"), "evio-overlay.service does not run", "systemctl restart evio-overlay"),
            Look(_evio(_NODE, "status"), "the overlay's agent has said nothing for", "systemctl restart evio-overlay"),
            Look(_evio(_NODE, "overlay", "status"), "the overlay's agent has not written", "systemctl status"),
        ),
        (_shell(_NODE, "systemctl stop evio-overlay"),),
        (_shell(_NODE, "systemctl start evio-overlay"),),
        is_patient=True,
    ),
    Fault(
        (
            Look(
                _evio(_NODE, "status"),
                "the overlay is down",
                "evio overlay status",
            ),
            Look(_evio(_NODE, "overlay", "status"), "UDP port 51820 is used by another program", ""),
        ),
        (
            _shell(_NODE, "systemctl stop evio-overlay && ip link delete evio0 && sleep 1"),
            _shell(_NODE, f'systemd-run --quiet --unit=thief python3 -c "{_THIEF}" && sleep 1'),
            _shell(_NODE, "systemctl start evio-overlay"),
        ),
        (_shell(_NODE, "systemctl stop thief"),),
        is_patient=True,
    ),
    Fault(
        (
            Look(_evio(_FIRST, "status"), "there is no way to", "evio overlay status"),
            Look(_evio(_NODE, "status"), "the node reaches no other node through the overlay", "evio overlay status"),
        ),
        (lambda lab: faults.cut(lab, lab.topology().node(_NODE)),),
        (lambda lab: faults.heal(lab, lab.topology().node(_NODE)),),
        is_patient=True,
    ),
    Fault(
        (Look(_evio(_FIRST, "status"), "expires in", "evio.cni.rotate"),),
        (
            _shell(
                _FIRST,
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=old -days 10 "
                "-extensions usr_cert -keyout /dev/null -out /etc/evio-etcd/old.crt",
            ),
        ),
        (_shell(_FIRST, "rm /etc/evio-etcd/old.crt"),),
    ),
    # A playbook stops.
    Fault(
        (
            Look(
                _playbook("bootstrap.yml", "-e", "evio_pod_cdir=10.244.0.0/16"),
                "nothing reads this variable",
                "Rename a misspelt variable",
            ),
        )
    ),
    Fault(
        (
            Look(
                _playbook("bootstrap.yml", inventory="evio_nodse: {hosts: {node3: }}\n"),
                "nothing reads it; is it evio_nodes?",
                "Rename it",
            ),
        )
    ),
    Fault(
        (
            Look(
                _playbook("bootstrap.yml", inventory="evio_control_plane: {hosts: {node2: }}\n"),
                "but evio_etcd_managed runs an etcd of one member",
                "Leave only the host",
            ),
        )
    ),
    Fault((Look(_playbook("bootstrap.yml", is_alone=True), "the inventory has no host in it", "path after -i"),)),
    Fault((Look(_playbook("backup.yml", "--limit", _NODE), "no host of this run is in the group", ""),)),
    Fault(
        (
            Look(
                _playbook(
                    "bootstrap.yml",
                    "-e",
                    f"ansible_ssh_extra_args='{_STRANGER}'",
                ),
                "Host key verification failed",
                "",
            ),
        )
    ),
    Fault(
        (
            Look(
                _playbook(
                    "bootstrap.yml",
                    "--limit",
                    "node2",
                    inventory=_MISLED,
                ),
                "was set up as node",
                "check ansible_host",
            ),
        )
    ),
    Fault(
        (Look(_playbook("bootstrap.yml", "--limit", _OTHER), "inside the host overlay", "networks that no host uses"),),
        (_shell(_OTHER, "ip link add lan type bridge && ip address add 10.10.7.1/24 dev lan"),),
        (_shell(_OTHER, "ip link delete lan"),),
    ),
    Fault(
        (Look(_playbook("bootstrap.yml", "--limit", _OTHER), "sorts before 10-evio.conflist", "remove it or"),),
        (_shell(_OTHER, 'echo \'{"name": "cilium", "plugins": []}\' >/etc/cni/net.d/05-cilium.conflist'),),
        (_shell(_OTHER, "rm /etc/cni/net.d/05-cilium.conflist"),),
    ),
    Fault(
        (Look(_playbook("backup.yml"), "is etcd running there?", "systemctl status etcd"),),
        (_shell(_FIRST, "systemctl stop etcd"),),
        (_shell(_FIRST, "systemctl start etcd"),),
    ),
    Fault((Look(_playbook("restore.yml", "-e", "evio_backup_file=/nowhere.json"), "there is no backup", ""),)),
    Fault((Look(_playbook("change_mtu.yml", "-e", "evio_mtu=1280"), "would keep a larger MTU than", "Stop them"),)),
    Fault((Look(_playbook("change_mtu.yml", "-e", "evio_mtu=1490"), "is more than fits in one piece", ""),)),
    Fault(
        (
            Look(
                _playbook("change_pool.yml", "-e", "evio_pod_cidr=10.144.0.0/16"),
                "these pods would lose their network",
                "Stop them",
            ),
        )
    ),
    Fault((Look(_playbook("rename_node.yml"), "evio_rename: not given", "evio_rename=node3=shop3"),)),
    Fault(
        (
            Look(
                _playbook("upgrade.yml", "-e", "evio_programs_release=previous"),
                "there is no version in",
                "evio_programs_archive",
            ),
        )
    ),
    Fault(
        (
            Look(
                _playbook("teardown.yml", "--limit", _NODE),
                "is still a node of the cluster, and this run leaves out",
                "remove_node.yml",
            ),
        )
    ),
    Fault((Look(_playbook("teardown.yml"), "containers run there", "evio_teardown_keep=containerd"),)),
    Fault(
        (
            Look(
                _playbook("bootstrap.yml", "--limit", _NODE),
                "Pods keep their addresses. To claim the same subnets again",
                "evio_node_subnet_restore=true",
            ),
            Look(_new_pod(_NODE), "this node's claim on its pod subnet is lost", "evio_node_subnet_restore"),
            Look(_evio(_NODE, "status"), "the node is fenced, new pods are refused", "evio.cni.bootstrap"),
        ),
        (_shell(_FIRST, f"{_ETCDCTL} del --prefix /evio/kubernetes/"),),
        (_restore_claims,),
    ),
)
"""Every fault, with what is seen of it."""


def prove(lab: Lab) -> None:
    """Provoke each fault, and print a row for each look. Raises LabError if a row fails, or for another lab."""
    names = [node.name for node in lab.topology().nodes]
    if names != [_FIRST, _OTHER, _NODE] or len(pods.running(lab)) != NODES * len(pods.PER_NODE):
        raise LabError(
            f"this needs a lab of {NODES} nodes with pods: lab/lab up {NODES}, bootstrap.yml, lab/lab pods up"
        )
    page = PAGE.read_text()
    rows = [row for fault in FAULTS for row in _prove(lab, fault, page)]
    failed = [row.subject for row in rows if not row.holds]
    looks = sum(len(fault.looks) for fault in FAULTS)
    print(f"{len(rows) - len(failed)} of {len(rows)} rows hold: {len(FAULTS)} faults, {looks} looks at a screen")
    if failed:
        raise LabError(f"{len(failed)} rows failed: {'; '.join(failed)}")


def _prove(lab: Lab, fault: Fault, page: str) -> Iterator[Row]:
    with _made(lab, fault):
        for look in fault.looks:
            yield measure(look.words, partial(_check, lab, fault, look, page))
    if fault.mend:
        yield measure("   mended: no node tells a problem", partial(_await_well, lab))


@contextmanager
def _made(lab: Lab, fault: Fault) -> Iterator[None]:
    try:
        for act in fault.make:
            act(lab)
        yield
    finally:
        for act in fault.mend:
            act(lab)


def _check(lab: Lab, fault: Fault, look: Look, page: str) -> tuple[str, bool]:
    deadline = time.monotonic() + (_PATIENCE if fault.is_patient else 0)
    while True:
        screen = " ".join(look.see(lab).split())
        _before, found, after = screen.partition(look.words)
        if found or time.monotonic() > deadline:
            break
        time.sleep(1)
    if not found:
        return f"the screen shows: {screen[-600:]}", False
    if look.remedy not in after:
        return f"no {look.remedy!r} after it: {after[:600]}", False
    if look.words not in page:
        return f"docs/{PAGE.name} does not have the words", False
    return (look.remedy and f"then: {look.remedy}"), True


def _await_well(lab: Lab) -> tuple[str, bool]:
    """Wait until no node tells a problem."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        told = {node.name: _problems(lab, node.name) for node in lab.topology().nodes}
        left = {name: problems for name, problems in told.items() if problems}
        if not left or time.monotonic() > deadline:
            return str(left or ""), not left
        time.sleep(1)


def _problems(lab: Lab, node: str) -> list[str]:
    try:
        return [problem["what"] for problem in json.loads(_evio(node, "status", "--json")(lab))["problems"]]
    except ValueError as error:
        return [f"evio status --json: {error}"]
