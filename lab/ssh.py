"""ssh into the lab's nodes as into real hosts, with one key and checked host keys, for people and for Ansible.

Nodes have no management network: a proxy command enters the node's network namespace and connects to its loopback. A
virtual machine is reached by its address from the namespace of its router, or from the lab's internet.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from commands import attempt, in_netns, run
from network import INTERNET
from state import Lab, write_file
from topology import Node

_CONFIGURATION = """\
# Written by lab/lab up: `ssh -F {path} node1`.
Host {names}
    User root
    IdentityFile "{key}"
    IdentitiesOnly yes
    UserKnownHostsFile "{known_hosts}"
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
"""
_DOOR = """\
Host {name}
    ProxyCommand {command}
"""
_SHARED_CONNECTION = """\
    ControlMaster auto
    ControlPath {path}/%h.ssh
    ControlPersist 30m
"""
"""A virtual machine takes a second to make a connection, so the lab's own commands share one."""


def make_key(lab: Lab) -> None:
    """Generate the key that may log into every node."""
    lab.ssh.mkdir(parents=True, exist_ok=True)
    _generate(_key(lab), "lab")


def install(lab: Lab, node: Node, root: Path) -> None:
    """Generate a node's host key, and let the lab's key log in; `root` is the node's root directory."""
    _generate(root / "etc/ssh/ssh_host_ed25519_key", node.name)
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    write_file(root / "root/.ssh/authorized_keys", _key(lab).with_suffix(".pub").read_text(), mode=0o600)


def write_configuration(lab: Lab, nodes: Iterable[Node]) -> None:
    """Write known_hosts and the ssh configuration with these nodes."""
    nodes = tuple(nodes)
    doors = [_DOOR.format(name=node.name, command=shlex.join(_door(lab, node))) for node in nodes]
    has_machines = any(lab.is_machine(node.name) for node in nodes)
    shared_connection = _SHARED_CONNECTION.format(path=lab.run) if has_machines else ""
    known = [f"{node.name} {_public_host_key(lab, node)}\n" for node in nodes]
    write_file(lab.ssh / "known_hosts", "".join(known))
    write_file(
        configuration(lab),
        _CONFIGURATION.format(
            path=configuration(lab),
            names=" ".join(node.name for node in nodes),
            key=_key(lab),
            known_hosts=lab.ssh / "known_hosts",
        )
        + shared_connection
        + "".join(doors),
    )


def configuration(lab: Lab) -> Path:
    """Return the path of the configuration for `ssh -F`."""
    return lab.ssh / "config"


def answers(lab: Lab, node: Node) -> bool:
    """Whether the node's sshd sends its greeting, within 2 s; that of a virtual machine has 25 s."""
    greeting = attempt(*_door(lab, node, "-w", "25" if lab.is_machine(node.name) else "2"), stdin="")
    return greeting.stdout.startswith("SSH-2.0")


def _door(lab: Lab, node: Node, *options: str) -> list[str]:
    """Return the command that connects its standard input and output with the node's sshd; options are those of nc."""
    place, address = (node.router or INTERNET, node.host) if lab.is_machine(node.name) else (node.name, "127.0.0.1")
    return in_netns(lab.netns(place), ["nc", "-N", *options, address, "22"])


def _key(lab: Lab) -> Path:
    return lab.ssh / "key"


def _generate(path: Path, comment: str) -> None:
    path.unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


def _public_host_key(lab: Lab, node: Node) -> str:
    key_type, key, *_ = (lab.node(node.name) / "root/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
    return f"{key_type} {key}"
