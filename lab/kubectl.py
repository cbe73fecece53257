"""kubectl on the lab's control-plane node, the first node of the lab."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import nodes
from commands import LabError, run
from state import Lab

KUBECONFIG = "/etc/kubernetes/admin.conf"


class Kubectl:
    """Runs kubectl in one namespace of the cluster. Every method raises LabError with kubectl's own message."""

    def __init__(self, lab: Lab, namespace: str) -> None:
        self._lab = lab
        self._node = lab.topology().nodes[0]
        self._namespace = namespace

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs kubectl with these arguments."""
        kubectl = ["kubectl", f"--kubeconfig={KUBECONFIG}", f"--namespace={self._namespace}", *arguments]
        return nodes.command(self._lab, self._node, kubectl)

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl, and return what it prints; ``timeout`` is in seconds."""
        return run(*self.command(*arguments), stdin=stdin, timeout=timeout)

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the items of a list, as the API has them."""
        items: list[dict[str, Any]] = json.loads(self("get", *arguments, "--output=json"))["items"]
        return items

    def apply(self, manifests: dict[str, Any]) -> None:
        """Create or change these objects."""
        self("apply", "--filename=-", stdin=json.dumps(manifests))

    def await_rollout(self, *deployments: str, timeout: float) -> None:
        """Wait until all pods of these Deployments are Ready."""
        for name in deployments:
            self("rollout", "status", f"deployment/{name}", f"--timeout={timeout:.0f}s", timeout=timeout + 10)

    def await_no_pod(self, selector: str, *, timeout: float) -> None:
        """Wait until no pod with these labels is there."""
        try:
            self(
                "wait",
                "--for=delete",
                "pod",
                f"--selector={selector}",
                f"--timeout={timeout:.0f}s",
                timeout=timeout + 10,
            )
        except LabError as error:
            if "no matching resources found" not in str(error):
                raise

    def nodes_ready(self) -> dict[str, bool]:
        """Return, by its name, whether each node of the cluster is Ready."""
        return {
            node["metadata"]["name"]: any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in node["status"]["conditions"]
            )
            for node in self.get("nodes")
        }


def await_that(is_so: Callable[[], bool], what: str, *, timeout: float, interval: float = 0.5) -> float:
    """Wait until something is so, and return the seconds it took. Raises LabError after ``timeout`` seconds.

    A LabError of ``is_so`` counts as not so: the API server may be starting.
    """
    started = time.monotonic()
    reason = ""
    while True:
        try:
            if is_so():
                return time.monotonic() - started
            reason = ""
        except LabError as error:
            reason = f" ({error})"
        if time.monotonic() - started > timeout:
            raise LabError(f"not within {timeout:g} s: {what}{reason}")
        time.sleep(interval)
