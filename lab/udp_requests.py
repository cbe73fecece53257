"""UDP requests from inside nodes and pods, and the servers that answer them in pods' network namespaces.

Debian's busybox has no UDP server for the pods' own containers. The node's Python answers in the namespace of a pod, at
the pod's address: for Services it is the pod. The programs run in nodes.
"""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import http_requests
from commands import LabError, run
from http_requests import Source
from state import Lab

_ANSWER = """\
import select, socket, sys
name, node, port = sys.argv[1:]
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", int(port)))
print("ready", flush=True)
while sys.stdin not in (ready := select.select([sys.stdin, server], [], [])[0]):
    _request, client = server.recvfrom(64)
    server.sendto(f"{name} {node} {client[0]}".encode(), client)
"""
_ASK = """\
import json, socket, sys
timeout, targets = json.load(sys.stdin)

def fetch(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect((address, port))
        try:
            client.send(b"who?")
            return client.recv(256).decode()
        except OSError:
            return None

print(json.dumps([fetch(*target) for target in targets]))
"""
_START_SECONDS = 30.0
_TIMEOUT = 3.0
"""Seconds for one request, which is sent once."""


@contextmanager
def servers(lab: Lab, pods: Sequence[Source], port: int) -> Iterator[None]:
    """Answer at a port of each of these pods, as long as the context lasts, as their web servers do.

    The answer has the names of the pod and its node, and the client's address. Raises LabError.
    """
    running: list[subprocess.Popen[str]] = []
    try:
        for pod in pods:
            command = http_requests.command(lab, pod, _ANSWER, pod.name, pod.node, str(port))
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            running.append(subprocess.Popen(command, text=True, **pipes))
        for pod, process in zip(pods, running, strict=True):
            assert process.stdout is not None
            if not select.select([process.stdout], [], [], _START_SECONDS)[0]:
                raise LabError(f"the UDP server in {pod.name} does not start within {_START_SECONDS:g} s")
            said = process.stdout.readline()
            if said != "ready\n":
                raise LabError(f"the UDP server in {pod.name} does not start: {said}{process.stdout.read()}")
        yield
    finally:
        for process in running:
            # The server ends when its input does.
            assert process.stdin is not None
            process.stdin.close()
        for process in running:
            process.wait(timeout=_START_SECONDS)
            assert process.stdout is not None
            process.stdout.close()


def ask(lab: Lab, source: Source, targets: Sequence[tuple[str, int]]) -> list[str | None]:
    """Ask these addresses and ports one after the other, and return the answers in their order; None: no answer."""
    command = http_requests.command(lab, source, _ASK)
    answers: list[str | None] = json.loads(
        run(*command, stdin=json.dumps([_TIMEOUT, targets]), timeout=30 + _TIMEOUT * len(targets))
    )
    return answers
