# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a node works as well as before a change: before the next node is changed, and to stop if it does not.

Looks at three things: whether the installed programs answer, what ``problems`` finds wrong, and which pods answer a
ping. What was wrong before the change is no reason to stop.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import EvioError
from ..overlay.reachability import ReachabilityError, ping_all
from ..paths import DEFAULT_CNI_PATH
from .model import NodeStatus
from .networks import runtime_configurations
from .problems import NOTE, problems_of

_PROGRAM = "evio"
"""The program that the container runtime asks for STATUS."""

_CALL_SECONDS = 30.0
_PING_BYTES = 84
"""The packets that ping(8) sends by default."""
_PING_SECONDS = 3.0
_ERROR_CHARACTERS = 400
"""Of a program's message that are told."""


@dataclass(frozen=True)
class Health:
    """How a node was at one time."""

    version: str | None
    """The installed version of the programs; None without programs."""
    problems: frozenset[str]
    """Errors and warnings of ``problems``, numbers replaced by ``#``: a number may grow without anything new wrong."""
    lost_peers: frozenset[str]
    """Nodes to which there was no way."""
    silent_pods: frozenset[str]
    pods: frozenset[str]
    """Addresses of attached pods that did not answer a ping, and of those that did."""

    def to_json(self) -> dict[str, Any]:
        """Return it as a module returns it."""
        names = ("problems", "lost_peers", "silent_pods", "pods")
        return {"version": self.version, **{name: sorted(getattr(self, name)) for name in names}}


GOOD = Health(None, frozenset(), frozenset(), frozenset(), frozenset())
"""Of a node of which nothing is known: then everything that is wrong counts."""


def health_from_json(value: Mapping[str, Any]) -> Health:
    """Return what ``Health.to_json`` has made. Raises EvioError if it is something else."""
    try:
        names = ("problems", "lost_peers", "silent_pods", "pods")
        return Health(value["version"], *(frozenset(map(str, value[name])) for name in names))
    except (KeyError, TypeError) as error:
        raise EvioError(f"this is no earlier state of the node: {error!r}") from error


def health_of(status: NodeStatus) -> Health:
    """Return how the node is, from what it tells of itself. Pings its pods."""
    peers = status.overlay.peers if status.overlay is not None else ()
    lost = frozenset(peer.name for peer in peers if peer.path is None)
    addresses = _pods_of(status)
    answered = frozenset(_answering(addresses))
    return Health(
        status.versions.evio, _problems(_without_peers(status, lost)), lost, frozenset(addresses) - answered, answered
    )


def new_faults(before: Health, status: NodeStatus, *, since: float | None) -> list[str]:
    """Return what is worse than before, one sentence each; nothing if the node is as well as before. Pings pods.

    ``since`` is a time in seconds since 1970 after which the overlay's agent must have written its state; None where
    there is no agent.
    """
    peers = status.overlay.peers if status.overlay is not None else ()
    lost = frozenset(peer.name for peer in peers if peer.path is None)
    excused = _without_peers(status, lost & before.lost_peers)
    faults = [problem.what for problem in problems_of(excused) if _is_new(problem.what, problem.severity, before)]
    if since is not None and (status.overlay is None or status.time - status.overlay.age_seconds < since):
        faults.append("the overlay's agent has not written its state since the change")
    # Pods that have ended meanwhile are not attached any more.
    required = sorted(before.pods & set(_pods_of(status)))
    silent = sorted(set(required) - set(_answering(required)))
    if silent:
        faults.append(f"pods do not answer that did before: {', '.join(silent)}")
    return faults


def program_faults(bin_dir: str, conf_dir: str) -> list[str]:
    """Run the installed programs, also as the container runtime asks for STATUS; return what is wrong with them."""
    program = os.path.join(bin_dir, _PROGRAM)
    faults = _run([program, "version"], "", {})
    if faults:
        return faults
    for configuration in runtime_configurations(conf_dir):
        environment = {"CNI_COMMAND": "STATUS", "CNI_PATH": DEFAULT_CNI_PATH}
        faults += _run([program], configuration, environment)
    return faults


def _run(command: list[str], text: str, environment: Mapping[str, str]) -> list[str]:
    what = f"{command[0]} {environment.get('CNI_COMMAND') or command[-1]}"
    try:
        done = subprocess.run(
            command,
            input=text,
            env={"PATH": os.defpath, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CALL_SECONDS,
            check=False,
        )
    except OSError as error:
        return [f"{what} cannot be run: {error.strerror}"]
    except subprocess.TimeoutExpired:
        return [f"{what} did not end within {_CALL_SECONDS:.0f} s"]
    if done.returncode == 0:
        return []
    return [f"{what} failed: {_reason(done) or f'exit status {done.returncode}'}"]


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the message of a CNI error with the last line of its details, or the last line that was printed."""
    try:
        error = json.loads(done.stdout)
        told = f"{error['msg']}: {_last_line(str(error.get('details', '')))}".rstrip(": ")
    except (ValueError, KeyError, TypeError):
        told = _last_line(done.stderr or done.stdout)
    return told[:_ERROR_CHARACTERS]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()


def _problems(status: NodeStatus) -> frozenset[str]:
    return frozenset(_general(problem.what) for problem in problems_of(status) if problem.severity != NOTE)


def _is_new(what: str, severity: str, before: Health) -> bool:
    return severity != NOTE and _general(what) not in before.problems


def _general(what: str) -> str:
    return re.sub(r"\d+", "#", what)


def _without_peers(status: NodeStatus, names: Iterable[str]) -> NodeStatus:
    """Return the status as if these nodes were no peers."""
    if status.overlay is None:
        return status
    left = frozenset(names)
    peers = tuple(peer for peer in status.overlay.peers if peer.name not in left)
    return replace(status, overlay=replace(status.overlay, peers=peers))


def _pods_of(status: NodeStatus) -> list[str]:
    """Return the addresses of the pods that are attached, without the length of the prefix."""
    pods = [pod for network in status.networks for pod in network.pods if pod.state != "gone"]
    return [address.partition("/")[0] for pod in pods for address in pod.addresses]


def _answering(addresses: list[str]) -> list[str]:
    if not addresses:
        return []
    try:
        answers = ping_all(addresses, _PING_BYTES, _PING_SECONDS)
    except ReachabilityError:
        return []
    return [address for address, answer in answers.items() if answer is not None]
