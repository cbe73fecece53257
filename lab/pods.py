"""The lab's pods: two on each node, started through CRI as kubelet starts pods. proof.py asks them.

Each serves 1 MiB of its own marker on port 8080, so that its traffic could be recognised on the wire.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import images
import internet
import machines
import nodes
import rootfs
from commands import LabError
from cri import LABEL, Runtime, Sandbox
from state import Lab
from topology import Node

PORT = 8080
PER_NODE = ("a", "b")

_SOCKET = "/run/containerd/containerd.sock"
_MARKER_LABEL = f"{LABEL}/marker"
_UID_LABEL = f"{LABEL}/uid"
_SERVE = """\
awk -v marker="$0" 'BEGIN {{ for (i = 0; i < {lines}; i++) printf "%s %012d\\n", marker, i }}' |
    head -c {size} >/srv/.body && mv /srv/.body /srv/body && exec httpd -f -p {port} -h /srv
"""
# Not wget's own -T: Debian 12's busybox crashes on it.
_ANSWERS = f"timeout 2 wget -q -O /dev/null http://127.0.0.1:{PORT}/body"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Pod:
    """A running pod: name, node, address, container, a process id in its node's numbering, and marker."""

    name: str
    node: str
    address: str
    container_id: str
    pid: int
    marker: str

    @property
    def body_sha256(self) -> str:
        """The SHA-256 of what the pod must serve, calculated from its marker."""
        return hashlib.sha256(internet.body(self.marker.encode())).hexdigest()


def up(lab: Lab) -> None:
    """Start the pods that do not run yet, and print each with its address and the time that its sandbox took.

    Raises LabError if a node's runtime does not run or refuses; the message has the CNI plugin's error.
    """
    print(f"== pods: starting {len(PER_NODE)} on each node through its container runtime", flush=True)
    # The images' busybox is static: that of any release runs on all nodes.
    archives = images.prepare(lab, rootfs.prepare(lab, lab.topology().releases[0]))
    started = _on_every_node(lab, lambda node: _start_missing(lab, node, archives))
    for lines in started:
        print("".join(lines), end="", flush=True)


def down(lab: Lab, names: Sequence[str] = ()) -> None:
    """Stop and remove the pods of these nodes, or of all, as kubelet does, which calls the CNI plugin for each.

    Raises LabError if there is no node of such a name.
    """
    chosen = [lab.topology().node(name) for name in names]
    removed = _on_every_node(lab, lambda node: _remove(lab, node) if not chosen or node in chosen else 0)
    print(f"== {sum(removed)} pods removed")


def running(lab: Lab) -> list[Pod]:
    """Return the running pods, ordered by node and name. Raises LabError if a node's runtime does not answer."""
    return [pod for pods in _on_every_node(lab, lambda node: _running(lab, node)) for pod in pods]


def as_json(pods: list[Pod]) -> dict[str, object]:
    """Return the pods as JSON shows them."""
    return {"pods": [asdict(pod) for pod in pods]}


def as_text(pods: list[Pod]) -> str:
    """Return a table with a line for each pod."""
    lines = [f"{pod.name:12} {pod.address:15} {pod.container_id[:13]}\n" for pod in pods]
    return "".join([f"{'POD':12} {'ADDRESS':15} CONTAINER\n", *lines])


@contextmanager
def runtime(lab: Lab, node: Node) -> Iterator[Runtime]:
    """Connect to a node's container runtime. Raises LabError."""
    with _runtime_socket(lab, node) as socket, Runtime(socket) as connected:
        try:
            yield connected
        except LabError as error:
            raise LabError(f"{node.name}: {error}") from error


@contextmanager
def _runtime_socket(lab: Lab, node: Node) -> Iterator[Path]:
    """Give the path of the runtime's socket: that in the node's file system, or one that leads to it."""
    if lab.is_machine(node.name):
        with machines.forwarded_socket(lab, node, _SOCKET) as socket:
            yield socket
        return
    socket = Path(f"/proc/{nodes.pid(lab, node)}/root{_SOCKET}")
    if not socket.exists():
        raise LabError(f"{node.name}: containerd does not run: run playbooks/bootstrap.yml")
    yield socket


def _start_missing(lab: Lab, node: Node, archives: dict[str, Path]) -> list[str]:
    with runtime(lab, node) as connected:
        for name, archive in archives.items():
            if not connected.has_image(name):
                _import(lab, node, archive)
        running_names = {sandbox.name for sandbox in connected.sandboxes() if _is_running(connected, sandbox)}
        names = [f"{node.name}-{letter}" for letter in PER_NODE]
        return [_start(connected, name) for name in names if name not in running_names]


def _import(lab: Lab, node: Node, archive: Path) -> None:
    """Import an image into a node's runtime, through a pipe because the node cannot see the lab's files."""
    importing = nodes.command(lab, node, ["ctr", "--namespace=k8s.io", "images", "import", "-"])
    with archive.open("rb") as content:
        done = subprocess.run(importing, stdin=content, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise LabError(f"{node.name}: importing {archive.name} failed: {done.stderr.strip()}")


def _is_running(connected: Runtime, sandbox: Sandbox) -> bool:
    """Whether a sandbox is a running pod; if not, for example after a reboot of the node, remove it."""
    if sandbox.is_ready and connected.running_container(sandbox.sandbox_id):
        return True
    connected.remove_sandbox(sandbox.sandbox_id)
    return False


def _start(connected: Runtime, name: str) -> str:
    uid = str(uuid.uuid4())
    labels = {_MARKER_LABEL: f"evio-lab-{name}-{uid[:8]}", _UID_LABEL: uid}
    began = time.monotonic()
    sandbox = Sandbox(connected.run_sandbox(name, uid, labels), name, labels, is_ready=True)
    took = (time.monotonic() - began) * 1000
    marker = labels[_MARKER_LABEL]
    lines = internet.BODY_BYTES // len(marker) + 1
    script = _SERVE.format(lines=lines, size=internet.BODY_BYTES, port=PORT)
    container = connected.start_container(sandbox, uid, images.BUSYBOX, ["/bin/sh", "-c", script, marker])
    _await_answer(connected, container, name)
    address = connected.sandbox_status(sandbox.sandbox_id).address
    return f"   {name:12} {address:15}  sandbox in {took:.0f} ms\n"


def _await_answer(connected: Runtime, container: str, name: str) -> None:
    deadline = time.monotonic() + 20
    while connected.execute(container, ["/bin/sh", "-c", _ANSWERS]).exit_code != 0:
        if time.monotonic() > deadline:
            raise LabError(f"{name}: the pod's HTTP server does not answer on 127.0.0.1:{PORT} within 20 s")
        time.sleep(0.05)


def _remove(lab: Lab, node: Node) -> int:
    with runtime(lab, node) as connected:
        sandboxes = connected.sandboxes()
        for sandbox in sandboxes:
            connected.remove_sandbox(sandbox.sandbox_id)
        return len(sandboxes)


def _running(lab: Lab, node: Node) -> list[Pod]:
    pods = []
    with runtime(lab, node) as connected:
        for sandbox in sorted(connected.sandboxes(), key=lambda sandbox: sandbox.name):
            container = connected.running_container(sandbox.sandbox_id)
            if sandbox.is_ready and container:
                status = connected.sandbox_status(sandbox.sandbox_id)
                marker = sandbox.labels[_MARKER_LABEL]
                pods.append(Pod(sandbox.name, node.name, status.address, container, status.pid, marker))
    return pods


def _on_every_node(lab: Lab, work: Callable[[Node], Result]) -> list[Result]:
    with ThreadPoolExecutor(max_workers=16) as workers:
        return list(workers.map(work, lab.topology().nodes))
