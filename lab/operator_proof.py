"""Prove that an operator needs no root and no clone: an ordinary user of this machine sets up the lab's nodes.

The user has a virtual environment with the pinned packages of setup/control_machine.txt, the collection's archive, the
ansible.cfg of its README, and the lab's inventory. Root opens doors to the nodes' sshd for the user; on real hosts, the
network does.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
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
    """Install ansible-core and the collection as an ordinary user, and run the bootstrap twice. Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="evio-operator-") as directory:
        home = Path(directory)
        _write_site(lab, home)
        archive = run(str(REPOSITORY / "setup/collection_archive.py"), directory, timeout=300).strip()
        for path in (home, *home.rglob("*")):
            os.chown(path, _USER, _USER)
        with _doors(lab, home):
            _step(home, "make a virtual environment", "/usr/bin/python3", "-m", "venv", "venv")
            pip = ("venv/bin/pip", "install", "--quiet", "--require-hashes", "-r", "control_machine.txt")
            _step(home, "install ansible-core", *pip)
            _step(home, "install the collection", "venv/bin/ansible-galaxy", "collection", "install", archive)
            bootstrap = ("venv/bin/ansible-playbook", "evio.cni.bootstrap")
            _step(home, "see what the bootstrap would do", *bootstrap, "--check")
            _step(home, "bootstrap", *bootstrap)
            recap = _step(home, "bootstrap again", *bootstrap).partition("PLAY RECAP")[2]
        lines = [line for line in recap.splitlines() if "ok=" in line]
        unchanged = [line for line in lines if "changed=0 " in line and "failed=0 " in line]
        if len(unchanged) != len(lab.topology().nodes) or unchanged != lines:
            raise LabError(f"the second bootstrap changed or missed a node:\n{recap}")
    print(f"an ordinary user set up {len(lines)} nodes; a second run changed nothing")


def _write_site(lab: Lab, home: Path) -> None:
    """Write what the user has, but the collection: the pins, configuration and inventory, the lab's key."""
    sys.path.insert(0, str(REPOSITORY / "setup"))
    from readme_examples import write_site

    write_site(home)
    shutil.copy(REPOSITORY / "setup/control_machine.txt", home)
    nodes = lab.topology().nodes
    for name in ("key", "known_hosts"):
        shutil.copy(lab.ssh / name, home)
    (home / "ssh_config").write_text(_SSH.format(names=" ".join(node.name for node in nodes), home=home))
    hosts = yaml.safe_load((lab.inventory / "hosts.yml").read_text())
    hosts["all"]["vars"]["lab_ssh_config"] = str(home / "ssh_config")
    hosts["all"]["vars"]["ansible_python_interpreter"] = "/usr/bin/python3"
    (home / "hosts.yml").write_text(yaml.safe_dump(hosts))
    shutil.copytree(lab.inventory / "group_vars", home / "group_vars")


def _step(home: Path, title: str, *command: str) -> str:
    """Run a command as the user, and return its output. Raises LabError with the end of it."""
    start = time.monotonic()
    as_user = ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--no-new-privs")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"HOME": str(home), "PATH": "/usr/bin:/bin", "ANSIBLE_HOME": str(home / ".ansible")}
    done = subprocess.run(
        [*as_user, "--", *command],
        cwd=home,
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
        raise LabError(f"{title}: {' '.join(command)} failed:\n{done.stdout[-4000:]}")
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
