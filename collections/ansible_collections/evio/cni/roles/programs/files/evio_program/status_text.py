# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""``evio status`` as people read it: what is wrong first, then pods, overlay, firewall, claim, versions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator

from evio_cni.node.model import IDLE, NONE, RELAYED, NodeStatus, Overlay
from evio_cni.node.problems import ERROR, NOTE, ON_CONTROL, WARNING, Problem, problems_of
from evio_cni.node.report import NOT_RESERVED, RULES, NetworkStatus, PodStatus
from evio_cni.overlay.state import DIRECT
from evio_program.terminal import BOLD, GREEN, RED, YELLOW, colour, table, wrapped

_COLOURS = {ERROR: RED, WARNING: YELLOW, NOTE: BOLD}
_DAY = 86400.0
_MOST_ERRORS = 5
_LONGEST_ERROR = 200
"""Messages of the journal, and characters of one."""
_LABEL = 11
"""Width of the labels."""
_STATE_COLOURS = {"plugged in": GREEN, "gone": YELLOW, NOT_RESERVED: YELLOW}


def status_lines(status: NodeStatus) -> Iterator[str]:
    """Return the lines."""
    for problem in problems_of(status):
        yield from _problem(problem)
    for network in status.networks:
        yield from _network(network)
    if status.overlay is not None:
        yield from _overlay(status.overlay)
    yield from _firewall(status)
    if status.claim is not None:
        fence = ", fenced" if status.claim.fence else ""
        yield _field("claim", f"{', '.join(status.claim.subnets)}, epoch {status.claim.epoch}{fence}", indent="")
    dated = [certificate for certificate in status.certificates if certificate.expires is not None]
    if dated:
        first = min(dated, key=lambda certificate: certificate.expires or 0.0)
        days = ((first.expires or 0.0) - status.time) / _DAY
        yield _field("certificates", f"{len(dated)}, the next to expire in {days:.0f} days: {first.path}", indent="")
    yield from _errors(status)
    versions = status.versions
    collection = f"evio.cni {versions.collection}, " if versions.collection else ""
    known = [
        f"{collection}programs {versions.evio or 'not installed'}",
        f"Open vSwitch {versions.openvswitch or 'not known'}",
        f"Python {versions.python}",
        f"Linux {versions.kernel}",
    ]
    yield _field("versions", ", ".join(known), indent="")


def _problem(problem: Problem) -> Iterator[str]:
    word = problem.severity.upper()
    first, _newline, rest = wrapped(problem.what, first=f"{word:<8}").partition("\n")
    yield colour(word, _COLOURS[problem.severity]) + first[len(word) :]
    if rest:
        yield rest
    where = "on the control machine: " if problem.run_on == ON_CONTROL else ""
    yield wrapped(f"{where}{problem.remedy}", first="     ->  ")


def _network(network: NetworkStatus) -> Iterator[str]:
    verdict = network.verdict or "ready for pods"
    line, _newline, rest = wrapped(f"network {network.network}: {verdict}", rest="  ").partition("\n")
    yield colour(line, RED if network.verdict else GREEN)
    if rest:
        yield rest
    yield _field("bridge", f"{network.bridge}, gateway {', '.join(network.gateways) or 'none'}, epoch {network.epoch}")
    lost = sum(pod.state == NOT_RESERVED for pod in network.pods)
    remedy = f"; those of {lost} running pods are not, evio repair reserves them again" if lost else ""
    yield _field("addresses", f"{network.reserved} reserved{remedy}")
    for room in network.room:
        # An IPv6 range is never full.
        if room.size < 1 << 32:
            yield _field("room", f"{room.size - room.reserved} of {room.size} addresses free in {room.subnet}")
    if network.overlay:
        yield _field("overlay", network.overlay)
    yield from _pods(network.pods)
    if network.mtu_warning is not None:
        yield _field("MTU", network.mtu_warning)


def _pods(pods: Iterable[PodStatus]) -> Iterator[str]:
    rows = [("pod", pod.label, pod.ifname, ", ".join(pod.addresses), pod.state) for pod in pods]
    for row, line in zip(rows, table(rows, indent="  ", flexible=(1, 3)) if rows else (), strict=True):
        state = row[-1]
        yield line.removesuffix(state) + colour(state, _STATE_COLOURS.get(state, RED))


def _overlay(overlay: Overlay) -> Iterator[str]:
    kinds = Counter(peer.kind for peer in overlay.peers)
    words = {DIRECT: "direct", RELAYED: "by a relay", IDLE: "idle", NONE: "without a way"}
    ways = ", ".join(f"{kinds[kind]} {word}" for kind, word in words.items() if kinds[kind])
    mtu = f", MTU {overlay.mtu}" if overlay.mtu is not None else ""
    age = overlay.key_age_seconds
    key = f", key {age / _DAY:.0f} days old" if age is not None else ""
    text = f"{overlay.interface} {overlay.address} ({overlay.device}{mtu}{key}): {len(overlay.peers)} nodes"
    yield _field("overlay", f"{text}: {ways}" if ways else text, indent="")


def _firewall(status: NodeStatus) -> Iterator[str]:
    found = [f"{RULES[network.rules]} ({network.network})" for network in status.networks]
    if status.overlay is not None:
        found.append(f"{len(status.overlay.blocked) or 'no'} chains of other programs cut pods off")
    if found:
        yield _field("firewall", "; ".join(found), indent="")


def _errors(status: NodeStatus) -> Iterator[str]:
    """Return what the journal has, errors first. The page has more of them, and whole ones."""
    for error in status.errors[:_MOST_ERRORS]:
        moment = time.strftime("%H:%M:%S", time.localtime(error.time))
        often = f"{error.count} times, last " if error.count > 1 else ""
        unit = error.unit.removesuffix(".service")
        message = error.message if len(error.message) <= _LONGEST_ERROR else error.message[: _LONGEST_ERROR - 1] + "…"
        yield _field(f"{error.severity} of", f"{often}{moment}, {unit}: {message}", indent="")
    rest = len(status.errors) - _MOST_ERRORS
    if rest > 0:
        yield _field("", f"and {rest} more: evio status --json", indent="")


def _field(label: str, text: str, indent: str = "  ") -> str:
    return wrapped(text, first=f"{indent}{label:<{_LABEL if indent else _LABEL + 2}}", rest=" " * (_LABEL + 2))
