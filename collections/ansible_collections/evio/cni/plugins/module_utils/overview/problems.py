# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a cluster: its nodes' problems, each told once, and those that only the whole shows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..node.problems import ERROR, NOTE, ON_CONTROL, ON_NODE, WARNING
from .answers import NodeAnswer
from .words import count, some

_FEW = 0.05
"""The part of a pool's subnets below which the free ones are named."""

_CLOCK_SECONDS = 60.0
"""Difference between two nodes' clocks that is named. Nodes are asked one after the other."""


@dataclass(frozen=True)
class ClusterProblem:
    """Something that is wrong, with all the nodes that have it."""

    severity: str
    """ERROR, WARNING or NOTE."""
    what: str
    """One sentence."""
    remedy: str
    """The command that mends it, or that shows why."""
    run_on: str
    """ON_NODE or ON_CONTROL."""
    nodes: tuple[str, ...] = ()
    """The nodes that it concerns; empty if it concerns the cluster."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary."""
        return {**asdict(self), "nodes": list(self.nodes)}


def cluster_problems(
    answers: Mapping[str, NodeAnswer], registry: Mapping[str, Any] | None, registry_failure: str | None
) -> list[ClusterProblem]:
    """Return what is wrong, the worst first; problems that many nodes have in the same words are one problem."""
    found = [
        *_silent(answers),
        *_of_nodes(answers),
        *_registry_problems(answers, registry, registry_failure),
        *_differences(answers),
    ]
    order = [ERROR, WARNING, NOTE]
    return sorted(found, key=lambda problem: (order.index(problem.severity), not problem.nodes, -len(problem.nodes)))


def _silent(answers: Mapping[str, NodeAnswer]) -> Iterator[ClusterProblem]:
    by_reason: dict[str, list[str]] = {}
    for name, answer in answers.items():
        if answer.status is None:
            by_reason.setdefault(answer.failure or "nothing is known of it", []).append(name)
    for reason, names in by_reason.items():
        yield ClusterProblem(
            ERROR,
            f"{count(len(names), 'node')} did not answer: {reason}",
            f"ansible -i INVENTORY -m ansible.builtin.ping {','.join(names[:5])}",
            ON_CONTROL,
            tuple(names),
        )


def _of_nodes(answers: Mapping[str, NodeAnswer]) -> Iterator[ClusterProblem]:
    nodes: dict[tuple[str, str, str, str], list[str]] = {}
    for name, answer in answers.items():
        for problem in answer.status["problems"] if answer.status is not None else ():
            key = (problem["severity"], problem["what"], problem["remedy"], problem["run_on"])
            nodes.setdefault(key, []).append(name)
    for (severity, what, remedy, run_on), names in nodes.items():
        yield ClusterProblem(severity, what, remedy, run_on, tuple(names))


def _registry_problems(
    answers: Mapping[str, NodeAnswer], registry: Mapping[str, Any] | None, failure: str | None
) -> Iterator[ClusterProblem]:
    if failure is not None:
        yield ClusterProblem(
            ERROR,
            f"etcd did not tell the claims: {failure}",
            "systemctl status etcd kubelet; crictl ps -a --name etcd",
            ON_NODE,
        )
    if registry is None:
        return
    yield from _pool_problems(registry)
    claims = {claim["node"]: claim for claim in registry["claims"]}
    strangers = sorted(set(claims) - set(answers))
    if strangers:
        yield ClusterProblem(
            NOTE,
            f"{count(len(strangers), 'claim')} in etcd of nodes that the inventory does not have: {some(strangers)}",
            f"ansible-playbook -i INVENTORY evio.cni.remove_node -e evio_leaving_nodes={','.join(strangers)}",
            ON_CONTROL,
        )
    for name, answer in answers.items():
        local = (answer.status or {}).get("claim")
        if local is None or not local["epoch"]:
            continue
        claim = claims.get(name)
        remedy = f"ansible-playbook -i INVENTORY evio.cni.bootstrap --limit {name}"
        if claim is None:
            what = f"etcd has no claim of the node, whose pods have addresses of {', '.join(local['subnets'])}"
            yield ClusterProblem(ERROR, what, f"{remedy} -e evio_node_subnet_restore=true", ON_CONTROL, (name,))
        elif sorted(claim["cidrs"]) != sorted(local["subnets"]):
            what = (
                f"the node is configured with {', '.join(local['subnets'])}, but etcd has "
                f"{', '.join(claim['cidrs'])} for it"
            )
            yield ClusterProblem(ERROR, what, remedy, ON_CONTROL, (name,))
        elif claim["epoch"] != local["epoch"]:
            what = f"the node is configured with epoch {local['epoch']} of its claim, but etcd has {claim['epoch']}"
            yield ClusterProblem(WARNING, what, remedy, ON_CONTROL, (name,))


def _pool_problems(registry: Mapping[str, Any]) -> Iterator[ClusterProblem]:
    for pool in registry["pools"]:
        if pool["free"] <= _FEW * pool["size"]:
            rest = f"{pool['free']} of {pool['size']} node subnets" if pool["free"] else "no node subnet"
            resting = f"; {pool['quarantined']} are in quarantine" if pool["quarantined"] else ""
            yield ClusterProblem(
                WARNING if pool["free"] else ERROR,
                f"{rest} of {pool['pod_cidr']} left for new nodes{resting}",
                "ansible-doc evio.cni.subnet_pool",
                ON_CONTROL,
            )


def _differences(answers: Mapping[str, NodeAnswer]) -> Iterator[ClusterProblem]:
    """Yield what must be equal on all nodes and is not."""
    for what, values in (
        ("version of the programs", {name: _version(answer) for name, answer in answers.items()}),
        ("MTU of the overlay", {name: _overlay_mtu(answer) for name, answer in answers.items()}),
        ("MTU of new pods", {name: _pod_mtu(answer) for name, answer in answers.items()}),
    ):
        counts = Counter(value for value in values.values() if value is not None)
        if len(counts) > 1:
            usual = max(sorted(counts, key=str), key=counts.__getitem__)
            others = tuple(name for name, value in values.items() if value not in (None, usual))
            yield ClusterProblem(
                WARNING,
                f"the {what} is not the same on all nodes: {usual} on most, "
                f"{', '.join(str(value) for value in sorted(counts, key=str) if value != usual)} on others",
                "ansible-playbook -i INVENTORY evio.cni.bootstrap",
                ON_CONTROL,
                others,
            )
    times = {name: answer.status["time"] for name, answer in answers.items() if answer.status is not None}
    if times:
        middle = sorted(times.values())[len(times) // 2]
        wrong = tuple(name for name, value in times.items() if abs(value - middle) > _CLOCK_SECONDS + len(times))
        if wrong:
            yield ClusterProblem(
                WARNING,
                "the clock differs from the other nodes' by more than a minute",
                "timedatectl; systemctl restart systemd-timesyncd chrony",
                ON_NODE,
                wrong,
            )


def _version(answer: NodeAnswer) -> Any:
    return ((answer.status or {}).get("versions") or {}).get("evio")


def _overlay_mtu(answer: NodeAnswer) -> Any:
    return ((answer.status or {}).get("overlay") or {}).get("mtu")


def _pod_mtu(answer: NodeAnswer) -> Any:
    return next((network["mtu"] for network in (answer.status or {}).get("networks") or ()), None)
