"""Prove docs/quick-start.md: an ordinary user of this machine runs the page's own commands, against the lab's nodes.

The user has a clone of the last commit, Python, git and make, and no root. Instead of describing hosts of their own,
they get the lab's inventory. In the lab, playbooks run etcd and containerd instead of kubeadm, so the page's call of
kubectl is left out. Root opens doors to the nodes' sshd for the user; on real hosts, the network does.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from commands import LabError, in_netns, run
from state import REPOSITORY, Lab
from topology import Node

_USER = 65534
"""The user and group nobody."""
_PAGE = "docs/quick-start.md"
_NEW_NODE = "truck2"
"""The node that the page adds and takes out again: here the lab's last."""
_TITLES = ("install", "copy the example", "preflight", "bootstrap", "kubectl", "add a node", "take the node out")
"""What the page's commands do, in their order."""
_SSH = """\
Host {names}
    User root
    IdentityFile {home}/key
    IdentitiesOnly yes
    UserKnownHostsFile {home}/known_hosts
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    ProxyCommand nc -N -U {home}/%h
"""


def prove(lab: Lab) -> None:
    """Follow the page in a lab of two or more nodes, with a second bootstrap. Raises LabError."""
    *first, last = lab.topology().nodes
    if not first:
        raise LabError("the proof adds a node to a cluster: it needs a lab of two or more nodes")
    with tempfile.TemporaryDirectory(prefix="evio-operator-") as directory:
        home = Path(directory)
        clone, site = home / "evio.cni", home / "mysite"
        run("git", "clone", "--quiet", str(REPOSITORY), str(clone), timeout=120)
        script = dict(zip(_TITLES, commands((clone / _PAGE).read_text(), last.name), strict=True))
        _give_access(lab, home)
        with _doors(lab, home):
            for title in ("install", "copy the example"):
                _step(home, clone, title, script[title])
            _describe_hosts(lab, site, home, without=last.name)
            for title in ("preflight", "bootstrap"):
                _step(home, site, title, script[title])
            again = script["bootstrap"].splitlines()[-1]
            _check_recap(_step(home, site, "bootstrap again", again), hosts=len(first), is_unchanged=True)
            _describe_hosts(lab, site, home)
            for title in ("add a node", "take the node out"):
                _check_recap(_step(home, site, title, script[title]))
    print(f"an ordinary user followed {_PAGE}: {len(first)} nodes, a node added, and the node taken out again")


def commands(page: str, new_node: str) -> list[str]:
    """Return the page's blocks of commands, for a cluster in which the added node has this name.

    Raises LabError if there are more or fewer than the proof knows.
    """
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", page)
    if len(blocks) != len(_TITLES):
        raise LabError(f"{_PAGE} has {len(blocks)} blocks of commands, and the proof knows {len(_TITLES)}")
    return [block.replace(_NEW_NODE, new_node) for block in blocks]


def _give_access(lab: Lab, home: Path) -> None:
    """Give the user all that is in the directory, the key of the lab's nodes, and an ssh configuration for them."""
    for name in ("key", "known_hosts"):
        shutil.copy(lab.ssh / name, home)
    names = " ".join(node.name for node in lab.topology().nodes)
    (home / "ssh_config").write_text(_SSH.format(names=names, home=home))
    for path in (home, *home.rglob("*")):
        os.chown(path, _USER, _USER, follow_symlinks=False)


def _describe_hosts(lab: Lab, site: Path, home: Path, *, without: str = "") -> None:
    """Write the lab's nodes, but one, and its variables into the user's copy of the example, as an editor would."""
    hosts = yaml.safe_load((lab.inventory / "hosts.yml").read_text())
    hosts["all"]["vars"]["lab_ssh_config"] = str(home / "ssh_config")
    for group in hosts["all"]["children"].values():
        group["hosts"].pop(without, None)
    (site / "hosts.yml").write_text(yaml.safe_dump(hosts))
    shutil.copy(lab.inventory / "group_vars/all.yml", site / "group_vars/all.yml")


def _check_recap(output: str, *, hosts: int = 0, is_unchanged: bool = False) -> None:
    """Raise LabError if the last run failed on a host, had other hosts than so many, or changed what it must not."""
    recap = output.rpartition("PLAY RECAP")[2]
    lines = [line for line in recap.splitlines() if "ok=" in line]
    good = [line for line in lines if "failed=0 " in line and "unreachable=0 " in line]
    unchanged = [line for line in lines if "changed=0 " in line]
    if not lines or good != lines or (is_unchanged and unchanged != lines) or (hosts and len(lines) != hosts):
        raise LabError(f"the run's end is not as expected:\n{recap}")


def _step(home: Path, directory: Path, title: str, script: str) -> str:
    """Run commands as the user in a directory, and return their output. Raises LabError with the end of it."""
    start = time.monotonic()
    as_user = ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--no-new-privs")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"HOME": str(home), "PATH": "/usr/bin:/bin", "ANSIBLE_HOME": str(home / ".ansible")}
    done = subprocess.run(
        [*as_user, "--", "/bin/sh", "-ec", script],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    print(f"== {title}: {time.monotonic() - start:.0f} s", flush=True)
    if done.returncode:
        raise LabError(f"{title}: these commands failed:\n{script}\n{done.stdout[-4000:]}")
    return done.stdout


@contextmanager
def _doors(lab: Lab, home: Path) -> Iterator[None]:
    """Let the user connect to the sshd of each node, by a Unix socket of the node's name."""
    listeners = []
    try:
        for node in lab.topology().nodes:
            listener = socket.socket(socket.AF_UNIX)
            listeners.append(listener)
            listener.bind(str(home / node.name))
            os.chown(home / node.name, _USER, _USER)
            listener.listen()
            threading.Thread(target=_open_door, args=(lab, node, listener), daemon=True).start()
        yield
    finally:
        for listener in listeners:
            listener.close()


def _open_door(lab: Lab, node: Node, listener: socket.socket) -> None:
    command = in_netns(lab.netns(node.name), ["nc", "-N", "127.0.0.1", "22"])
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_carry, args=(command, connection), daemon=True).start()


def _carry(command: list[str], connection: socket.socket) -> None:
    """Run a program on a connection to its end."""
    with connection:
        subprocess.run(command, stdin=connection, stdout=connection, check=False)
