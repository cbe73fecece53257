# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The whole cluster in one object: what its nodes tell of themselves and of each other, and what etcd has of claims.

Pure. The action plugin ``status_page`` collects the answers; docs/cluster-status.schema.json describes the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..node.model import IDLE, NONE, RELAYED
from ..node.problems import ERROR, NOTE, WARNING
from ..overlay.state import DIRECT
from .answers import NodeAnswer
from .problems import ClusterProblem, cluster_problems
from .words import count

SCHEMA = 1
"""Version of the result's shape. Keys may be added within a version; none is removed or gets another meaning."""

PUBLIC, NAT, UNKNOWN = "public", "NAT", "unknown"
"""Kinds of sites: all nodes reach its nodes, they are behind a NAT or a firewall, or nothing is known of it."""

SILENT = "silent"
"""State of a node that did not answer; the others are a severity, or ``in order``."""

IN_ORDER = "in order"

_WORST = (NONE, RELAYED, DIRECT, IDLE)
"""Kinds of ways: if the two ends of a pair tell different kinds, the first of these counts."""

_NODE_KEYS = ("schema", "time", "networks", "overlay", "problems")
"""Keys without which an answer is no status of a node."""


@dataclass(frozen=True)
class Site:
    """Nodes that others see behind the same public address."""

    name: str
    address: str
    """The address at which relays see the nodes; empty where no relay sees them."""
    kind: str
    """PUBLIC, NAT or UNKNOWN."""
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Way:
    """The way between two nodes, as both tell it."""

    ends: tuple[str, str]
    kind: str
    """DIRECT, RELAYED, IDLE or NONE (node/model)."""
    relay: str | None
    rtt_ms: float | None
    handshake_age: float | None
    """Seconds."""
    underlay_mtu: int | None
    """Bytes."""
    bytes: int | None
    """Sent by both ends."""
    to_relay: bool = False
    """Whether one end is a relay: that way is always kept."""


@dataclass(frozen=True)
class Cluster:
    """All that is known of the cluster."""

    name: str
    time: float
    """Seconds since 1970."""
    answers: tuple[NodeAnswer, ...]
    sites: tuple[Site, ...]
    ways: tuple[Way, ...]
    problems: tuple[ClusterProblem, ...]
    registry: Mapping[str, Any] | None
    """Result of the module subnet_pool_info; None if etcd was not asked or did not answer."""
    registry_failure: str | None

    @property
    def relays(self) -> set[str]:
        """The names of the nodes that relay."""
        return {answer.name for answer in self.answers if _overlay(answer).get("is_relay")} | {
            answer.name for answer in self.answers if answer.status is None and answer.public_endpoint
        }

    def state_of(self, node: str) -> str:
        """Return the worst severity of the node's problems, SILENT or IN_ORDER."""
        if any(answer.name == node and answer.status is None for answer in self.answers):
            return SILENT
        found = {problem.severity for problem in self.problems if node in problem.nodes}
        return next((severity for severity in (ERROR, WARNING, NOTE) if severity in found), IN_ORDER)

    @property
    def states(self) -> dict[str, str]:
        """The state of each node by its name."""
        worst: dict[str, str] = {}
        for severity in (NOTE, WARNING, ERROR):
            for problem in self.problems:
                if problem.severity == severity:
                    worst.update(dict.fromkeys(problem.nodes, severity))
        silent = {answer.name: SILENT for answer in self.answers if answer.status is None}
        return {answer.name: IN_ORDER for answer in self.answers} | worst | silent

    @property
    def summary(self) -> str:
        """One sentence about the cluster."""
        answered = sum(answer.status is not None for answer in self.answers)
        severities = Counter(problem.severity for problem in self.problems)
        found = [count(severities[severity], severity) for severity in (ERROR, WARNING, NOTE) if severities[severity]]
        kinds = Counter(way.kind for way in self.ways)
        ways = [f"{kinds[kind]} {word}" for kind, word in _WAY_WORDS.items() if kinds[kind]]
        nodes = count(answered, "node") if answered == len(self.answers) else f"{answered} of {len(self.answers)} nodes"
        pods = sum(len(network["pods"]) for answer in self.answers for network in _networks(answer))
        return (
            f"{nodes} answered, {count(pods, 'pod')}; {', '.join(found) if found else 'nothing is wrong'}"
            f"{'; ways: ' + ', '.join(ways) if ways else ''}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return what docs/cluster-status.schema.json describes. Ways that are idle are counted, not listed."""
        states, relays = self.states, self.relays
        site_of = {node: site.name for site in self.sites for node in site.nodes}
        kinds = Counter(way.kind for way in self.ways)
        return {
            "schema": SCHEMA,
            "time": self.time,
            "cluster": self.name,
            "summary": self.summary,
            "problems": [problem.to_json() for problem in self.problems],
            "sites": [
                {"name": site.name, "address": site.address, "kind": site.kind, "nodes": list(site.nodes)}
                for site in self.sites
            ],
            "ways": {
                "counts": {kind: kinds[kind] for kind in _WORST},
                "listed": [
                    {
                        "ends": list(way.ends),
                        "kind": way.kind,
                        "relay": way.relay,
                        "rtt_ms": way.rtt_ms,
                        "handshake_age": way.handshake_age,
                        "underlay_mtu": way.underlay_mtu,
                        "bytes": way.bytes,
                    }
                    for way in self.ways
                    if way.kind != IDLE
                ],
            },
            "nodes": [
                {
                    "name": answer.name,
                    "state": states[answer.name],
                    "site": site_of.get(answer.name, ""),
                    "is_relay": answer.name in relays,
                    "failure": answer.failure,
                    "status": answer.status,
                }
                for answer in self.answers
            ],
            "registry": self.registry,
            "registry_failure": self.registry_failure,
        }


_WAY_WORDS = {DIRECT: "direct", RELAYED: "by a relay", IDLE: "idle", NONE: "missing"}


def cluster_of(
    name: str,
    answers: Sequence[NodeAnswer],
    registry: Mapping[str, Any] | None,
    registry_failure: str | None,
    now: float,
) -> Cluster:
    """Return the cluster; ``now`` is in seconds since 1970."""
    answers = tuple(_checked(answer) for answer in answers)
    return Cluster(
        name,
        now,
        answers,
        tuple(_sites(answers)),
        tuple(_ways(answers)),
        tuple(cluster_problems({answer.name: answer for answer in answers}, registry, registry_failure)),
        registry,
        registry_failure,
    )


def _checked(answer: NodeAnswer) -> NodeAnswer:
    """Return the answer, without a status that has another shape: an older or newer module's."""
    status = answer.status
    if status is None or (all(key in status for key in _NODE_KEYS) and status["schema"] == 1):
        return answer
    return NodeAnswer(
        answer.name,
        None,
        f"its status has the schema {status.get('schema')!r}, which this version does not know",
        answer.site,
        answer.public_endpoint,
    )


def _overlay(answer: NodeAnswer) -> Mapping[str, Any]:
    return (answer.status or {}).get("overlay") or {}


def _networks(answer: NodeAnswer) -> Sequence[Mapping[str, Any]]:
    return (answer.status or {}).get("networks") or ()


def _sites(answers: Sequence[NodeAnswer]) -> list[Site]:
    """Return the sites, public ones first, then by size and name."""
    seen = _seen_addresses(answers)
    groups: dict[tuple[str, str], list[NodeAnswer]] = {}
    for answer in answers:
        groups.setdefault((answer.site, "" if answer.site else seen.get(answer.name, "")), []).append(answer)
    sites = []
    for (name, address), members in groups.items():
        address = address or next((seen[member.name] for member in members if member.name in seen), "")
        is_public = any(member.public_endpoint for member in members)
        kind = PUBLIC if is_public else NAT if address else UNKNOWN
        sites.append(Site(name or address or "not known", address, kind, tuple(member.name for member in members)))
    return sorted(sites, key=lambda site: ((PUBLIC, NAT, UNKNOWN).index(site.kind), -len(site.nodes), site.name))


def _seen_addresses(answers: Sequence[NodeAnswer]) -> dict[str, str]:
    """Return the address at which most relays see each node; a relay's own is the host of its public endpoint."""
    votes: dict[str, Counter[str]] = {}
    for answer in answers:
        overlay = _overlay(answer)
        if not overlay.get("is_relay"):
            continue
        for peer in overlay.get("peers", ()):
            if peer["kind"] == DIRECT and peer["endpoint"]:
                votes.setdefault(peer["name"], Counter())[_host(peer["endpoint"])] += 1
    seen = {node: max(sorted(counts), key=counts.__getitem__) for node, counts in votes.items()}
    own = {answer.name: _host(answer.public_endpoint) for answer in answers if answer.public_endpoint}
    return seen | own


def _host(endpoint: str) -> str:
    """Return the address or name of ``host:port``, ``[host]:port`` or ``host``."""
    if endpoint.startswith("["):
        return endpoint[1:].partition("]")[0]
    return endpoint.partition(":")[0] if endpoint.count(":") == 1 else endpoint


def _ways(answers: Sequence[NodeAnswer]) -> list[Way]:
    """Return the way of each pair of nodes of which at least one end tells it."""
    told: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    places = {answer.name: place for place, answer in enumerate(answers)}
    relays = {answer.name for answer in answers if _overlay(answer).get("is_relay") or answer.public_endpoint}
    for answer in answers:
        for peer in _overlay(answer).get("peers", ()):
            if peer["name"] in places:
                first, second = sorted((answer.name, peer["name"]), key=places.__getitem__)
                told.setdefault((first, second), []).append(peer)
    in_order = sorted(told, key=lambda ends: [places[end] for end in ends])
    return [_way(ends, told[ends], bool(relays.intersection(ends))) for ends in in_order]


def _way(ends: tuple[str, str], peers: Sequence[Mapping[str, Any]], to_relay: bool) -> Way:
    worst = min(peers, key=lambda peer: _WORST.index(peer["kind"]))
    sent = [peer["sent_bytes"] for peer in peers if peer["sent_bytes"] is not None]
    return Way(
        ends,
        worst["kind"],
        worst["path"] if worst["kind"] in (RELAYED, IDLE) else None,
        _least(peers, "rtt_ms"),
        _least(peers, "handshake_age"),
        _least(peers, "underlay_mtu"),
        sum(sent) if sent else None,
        to_relay,
    )


def _least(peers: Sequence[Mapping[str, Any]], key: str) -> Any:
    return min((peer[key] for peer in peers if peer[key] is not None), default=None)
