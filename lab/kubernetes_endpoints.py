"""Where nodes lead connections to Services, and when to nowhere.

kube-proxy refuses connections to a Service of which Kubernetes has withdrawn all backends, whatever the network does: a
kubelet that was restarted says that its pods are not ready until it has probed them itself.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import kubernetes_workload as workload
import nodes
from commands import LabError, attempt, run
from http_requests import Streams
from kubernetes_cluster import Cluster
from state import Lab
from topology import Node

_WATCH = ["get", "endpoints", "--watch", "--output=jsonpath={.metadata.name} {.subsets[*].addresses[*].ip}{'\\n'}"]
_LONGEST = "5m"
"""The time after which kubectl ends by itself."""
_LAG = 2.0
"""Seconds after which every kube-proxy has heard that a Service has backends again."""
_REFUSED = "ConnectionRefusedError"
_BACKEND = re.compile(
    rf'--comment "{workload.NAMESPACE}/.* -m tcp -j DNAT --to-destination ([0-9.]+):{workload.PORT}$', re.MULTILINE
)


@dataclass
class Withdrawals:
    """The times at which Services had no backend: by the Service's name, pairs of a start and an end (time.time)."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _open: dict[str, float] = field(default_factory=dict)

    def note(self, at: float, name: str, has_backends: bool) -> None:
        """Note what the API said at a time."""
        if has_backends and name in self._open:
            self.spans.setdefault(name, []).append((self._open.pop(name), at))
        elif not has_backends:
            self._open.setdefault(name, at)

    def end(self, at: float) -> None:
        """End the watch: a Service without a backend has none until now."""
        for name in tuple(self._open):
            self.note(at, name, True)

    def refused(self, measured: Streams, services: dict[str, str]) -> int:
        """Return how many lost requests were refused while their Service had no backend, or just afterwards.

        ``services`` has the Services' addresses by their names.
        """
        names = {address: name for name, address in services.items()}
        return sum(
            _REFUSED in loss.reason and any(start <= loss.at <= end + _LAG for start, end in self.spans.get(name, []))
            for stream in measured
            for name in [names.get(stream.host, "")]
            for loss in stream.losses
        )


def backends(lab: Lab, node: Node) -> set[str]:
    """Return the addresses to which a node's kube-proxy leads TCP connections to the proof's Services."""
    return backends_in(run(*nodes.command(lab, node, ["iptables-save", "--table=nat"]), timeout=60))


def backends_in(rules: str) -> set[str]:
    """Return these addresses from the rules of the table nat, as iptables-save(8) prints them."""
    return set(_BACKEND.findall(rules))


@contextmanager
def watched(cluster: Cluster) -> Iterator[Withdrawals]:
    """Watch the backends of the proof's Services as long as the context lasts. Raises LabError."""
    withdrawals = Withdrawals()
    command = cluster.kubectl.command(*_WATCH, f"--request-timeout={_LONGEST}")
    heard = threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        output = process.stdout
        assert output is not None

        def read() -> None:
            for line in output:
                name, *backends = line.split()
                withdrawals.note(time.time(), name, bool(backends))
                heard.set()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            if not heard.wait(30.0):
                raise LabError("kubectl does not list the endpoints of Services within 30 s")
            yield withdrawals
        finally:
            # nsenter, which waits for kubectl in the node, does not pass signals on.
            attempt(
                *nodes.command(cluster.lab, cluster.nodes[0], ["pkill", "--full", "kubectl .*get endpoints --watch"])
            )
            reader.join()
            withdrawals.end(time.time())
