# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes as the API server knows them: whether they are Ready, and at which address. kubectl asks for them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import EvioError

_CALL_SECONDS = 20.0
"""Limit for one call of kubectl."""
_PAUSE = 2.0
"""Seconds between two calls."""


class KubernetesError(EvioError):
    """The API server does not answer, or a node is not as it was expected."""


@dataclass(frozen=True)
class KubernetesNode:
    """One node of the cluster."""

    name: str
    ready: bool
    message: str
    """kubelet's message with the condition Ready."""
    address: str | None
    """The node's first InternalIP."""


@dataclass(frozen=True)
class Kubectl:
    """How kubectl is called on this host."""

    command: tuple[str, ...]
    kubeconfig: str

    def nodes(self) -> dict[str, KubernetesNode]:
        """Return all nodes by name. Raises KubernetesError."""
        return parse_nodes(self._get("nodes"))

    def _get(self, *arguments: str) -> str:
        command = [*self.command, f"--kubeconfig={self.kubeconfig}", "--request-timeout=10s", "get", *arguments]
        try:
            done = subprocess.run(
                [*command, "--output=json"], capture_output=True, text=True, timeout=_CALL_SECONDS, check=False
            )
        except FileNotFoundError as error:
            raise KubernetesError(
                f"{self.command[0]} is not installed on this host; install it, or set evio_kubectl to the command"
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KubernetesError(f"{' '.join(command)}: {error}") from error
        if done.returncode != 0:
            raise KubernetesError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
        return done.stdout


def await_nodes(
    kubectl: Kubectl, addresses: Mapping[str, str], *, timeout: float, check_addresses: bool
) -> tuple[list[KubernetesNode], list[str]]:
    """Wait until these nodes are Ready, and return them with a sentence for each node at another address.

    ``addresses`` has the host overlay address of each node, by name; ``timeout`` is in seconds. Raises KubernetesError
    if a node is not Ready after that time, with a sentence for each such node; with ``check_addresses`` also if a node
    is at another address.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            found = kubectl.nodes()
            unready, elsewhere = unready_nodes(found, addresses), misplaced_nodes(found, addresses)
        except KubernetesError as error:
            found, unready, elsewhere = {}, [str(error)], []
        if not unready and not (check_addresses and elsewhere):
            return [found[name] for name in addresses], elsewhere
        if time.monotonic() >= deadline:
            raise KubernetesError("; ".join([*unready, *(elsewhere if check_addresses else [])]))
        time.sleep(_PAUSE)


def parse_nodes(text: str) -> dict[str, KubernetesNode]:
    """Return the nodes of a NodeList in JSON, by name. Raises KubernetesError."""
    try:
        nodes = [_node(item) for item in json.loads(text)["items"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise KubernetesError(f"kubectl did not print a list of nodes: {text[:200]!r}") from error
    return {node.name: node for node in nodes}


def unready_nodes(found: Mapping[str, KubernetesNode], names: Sequence[str] | Mapping[str, str]) -> list[str]:
    """Return a sentence for each of these nodes that is not in the cluster, or not Ready."""
    sentences = []
    for name in names:
        node = found.get(name)
        if node is None:
            sentences.append(
                f"{name} is not a node of the cluster, which has {', '.join(sorted(found)) or 'no nodes'}; if kubelet "
                "has another name there, set evio_kubernetes_node_name of this host"
            )
        elif not node.ready:
            sentences.append(f"{name} is not Ready: {node.message or 'kubelet has not said why'}")
    return sentences


def misplaced_nodes(found: Mapping[str, KubernetesNode], addresses: Mapping[str, str]) -> list[str]:
    """Return a sentence for each of these nodes whose InternalIP is not its host overlay address."""
    return [
        f"{name} has the InternalIP {found[name].address}, not its host overlay address {address}: give its kubelet "
        f"the option --node-ip={address}"
        for name, address in addresses.items()
        if name in found and found[name].address != address
    ]


def _node(item: dict[str, Any]) -> KubernetesNode:
    status = item.get("status") or {}
    ready: dict[str, Any] = next(
        (entry for entry in status.get("conditions") or () if entry.get("type") == "Ready"), {}
    )
    internal = [entry["address"] for entry in status.get("addresses") or () if entry.get("type") == "InternalIP"]
    return KubernetesNode(
        name=item["metadata"]["name"],
        ready=ready.get("status") == "True",
        message=str(ready.get("message") or ""),
        address=internal[0] if internal else None,
    )
