"""Inject faults into whole labs, and measure how long two pods are cut off and by which path they talk afterwards.

Each group of scenarios has a lab of its own, set up by the playbook that users run, and no fault is repaired by hand.
The time is measured from the fault to the first of steady ping replies, and to the path that the pods must have in the
end. By that path the longest packet of the overlay must pass, and no longer packet.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import faults
import life_cycle
import nodes
import pods
import probes
import proof
import tunnels
from commands import LabError, run
from probes import MtuCheck
from state import Lab
from topology import Topology, plan

import playbooks

_INTERVAL = 0.1
"""Seconds between two pings."""
_GAP = 0.35
"""Seconds between two replies; if more pass, the pods were cut off meanwhile."""
_STEADY = 3.0
"""Seconds of replies without a gap, after which a fault counts as overcome."""
_PATIENCE = 90.0
"""Seconds after a fault within which the pods must talk again by the path they must have."""
_DIRECT = "direct"
_SETTLE = 12.0
"""Seconds before the first fault, in which the nodes reach their relays."""
_WAKING = 4.0
"""Seconds of pings before each fault, in which the path becomes direct where it can."""
_REPLY = re.compile(r"^\[([0-9.]+)\] .* icmp_seq=")


@dataclass(frozen=True)
class Outcome:
    """One scenario: the paths before and after the fault, and the seconds until the pods talked again; None: never.

    `since` is the time, in seconds after the fault, at which the path became the final one; `is_expected` says whether
    that is the path that the pods must have; `mtu` says which packets pass by it.
    """

    lab: str
    scenario: str
    pair: str
    before: str
    seconds: float | None
    after: str
    since: float
    is_expected: bool
    mtu: MtuCheck

    @property
    def is_good(self) -> bool:
        """Whether the pods talk by the path they must have, and the right packets pass."""
        carries = self.mtu.passes and not self.mtu.one_more_passes
        return self.seconds is not None and self.is_expected and carries


@dataclass(frozen=True)
class Fault:
    """A scenario: the nodes whose pods are watched, the fault, and whether the path must be direct in the end."""

    name: str
    source: str
    target: str
    ends_direct: bool
    inject: Callable[[Lab, str | None], float]
    """Injects the fault and returns the time to measure from; its second argument is the relay, None if direct."""
    idle: float = 0.0
    """Seconds before the fault in which the pods send nothing; 0: they ping each other all the time."""


@dataclass(frozen=True)
class Group:
    """A lab and the faults injected into it in turn; `is_proven`: the proof of `lab/lab prove` is made before them."""

    name: str
    topology: Topology
    faults: Sequence[Fault]
    is_proven: bool = False


def run_all(lab: Lab, chosen: Sequence[str]) -> list[Outcome]:
    """Run the groups of these names, or all. Raises LabError if a lab is up, or a group does not exist."""
    known = {group.name: group for group in _groups()}
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise LabError(f"there is no group of scenarios {unknown[0]!r}: the groups are {', '.join(known)}")
    if lab.read() is not None:
        raise LabError("a lab is up: remove it with lab/lab down first")
    return [outcome for name in chosen or known for outcome in _run_group(lab, known[name])]


def as_text(outcomes: Sequence[Outcome]) -> str:
    """Return a table with a line for each outcome."""
    head = f"{'LAB':8} {'FAULT':40} {'PODS OF':12} {'PATH BEFORE':11} {'SECONDS':>7}  {'PATH AFTER':11} "
    return f"{head}{'SINCE':>5}  LONGEST PACKET\n" + "".join(_as_line(outcome) for outcome in outcomes)


def settled(paths: Sequence[tuple[float, str]], before: str, fault: float) -> tuple[str, float]:
    """Return the last path seen, and the seconds from the fault until it was the path: 0 if there was no other.

    `paths` has times and paths in order; `before` is the path before the fault, `fault` the fault's time.
    """
    since, after = paths[-1]
    for at, path in reversed([(fault, before), *paths]):
        if path != after:
            break
        since = at
    return after, since - fault


def seconds_until_steady(replies: Sequence[float], fault: float, now: float) -> float | None:
    """Return the seconds from the fault to the first reply after the last gap: 0 if there was no gap.

    None: the replies are not steady yet. All arguments are times in seconds.
    """
    times = [fault, *(reply for reply in replies if reply > fault)]
    resumed = max((later for earlier, later in pairwise(times) if later - earlier > _GAP), default=fault)
    return resumed - fault if now - resumed > _STEADY and now - times[-1] < _GAP else None


def _as_line(outcome: Outcome) -> str:
    seconds = "never" if outcome.seconds is None else f"{outcome.seconds:.1f}"
    mtu = outcome.mtu
    wrong = [
        *(["NOT THE PATH IT MUST BE"] if not outcome.is_expected else []),
        *([f"{mtu.mtu} BYTES DO NOT PASS"] if not mtu.passes else []),
        *([f"{mtu.mtu + 1} BYTES PASS"] if mtu.one_more_passes else []),
    ]
    paths = f"{outcome.before:11} {seconds:>7}  {outcome.after:11} {outcome.since:>5.1f}"
    return f"{outcome.lab:8} {outcome.scenario:40} {outcome.pair:12} {paths}  {'; '.join(wrong) or mtu.mtu}\n"


def _groups() -> Iterator[Group]:
    yield Group("two", plan(2), [_fault("the NAT forgets", "node1", "node2", _forget("node2"))])
    both = ("node2", "node3")
    yield Group(
        "three",
        plan(3),
        [
            _fault("both NATs forget", *both, _forget(*both)),
            _fault("wireguard-go is killed", *both, _kill("node2")),
            _fault("a site's link is cut for 10 s", *both, _cut_for(10.0, "node3")),
            _fault("a site gets another public address", *both, _readdress("node3")),
            _fault("one NAT becomes symmetric", *both, _nat("symmetric", "node3"), ends_direct=False),
            _fault("the other NAT becomes symmetric too", *both, _nat("symmetric", "node2"), ends_direct=False),
            _fault("both preserve ports again", *both, _nat("preserving", *both)),
        ],
    )
    both = ("node3", "node4")
    relay_dies = Fault("the relay is cut off, another takes over", *both, ends_direct=False, inject=_cut_relay)
    both_symmetric = _nat("symmetric", *both)
    yield Group(
        "relays",
        plan(4, public=2),
        [
            _fault("both NATs become symmetric", *both, both_symmetric, ends_direct=False),
            Fault("the relay's agent and WireGuard restart", *both, ends_direct=False, inject=_restart_relay),
            relay_dies,
        ],
    )
    yield Group(
        "eight",
        plan(8, per_router=2),
        [
            _fault("two nodes behind one NAT, which forgets", "node2", "node3", _forget("node2")),
            _fault("two nodes whose NATs both forget", "node5", "node8", _forget("node5", "node8")),
        ],
    )
    yield Group(
        "idle",
        plan(4, public=2),
        [Fault("ten minutes without a packet, then a request", *both, ends_direct=True, inject=_nothing, idle=600.0)],
    )
    yield Group(
        "mtu1280",
        plan(4, public=2, mtu=1280),
        [
            _fault("both NATs forget", *both, _forget(*both)),
            _fault("wireguard-go is killed", *both, _kill("node3")),
            _fault("a site gets another public address", *both, _readdress("node4")),
            _fault("both NATs become symmetric", *both, both_symmetric, ends_direct=False),
            relay_dies,
        ],
        is_proven=True,
    )
    yield Group(
        "ipv6",
        plan(4, public=2, version=6),
        [
            _fault("both firewalls forget", *both, _forget(*both)),
            _fault("wireguard-go is killed", *both, _kill("node3")),
            _fault("a site's link is cut for 10 s", *both, _cut_for(10.0, "node4")),
            _fault("a site gets another prefix", *both, _readdress("node4")),
            _fault("one firewall becomes a symmetric NAT", *both, _nat("symmetric", "node4"), ends_direct=False),
            _fault("it only filters again", *both, _nat("none", "node4")),
            _fault("both firewalls become symmetric NATs", *both, both_symmetric, ends_direct=False),
            relay_dies,
        ],
        is_proven=True,
    )


def _run_group(lab: Lab, group: Group) -> Iterator[Outcome]:
    print(f"== scenarios {group.name}: a lab of {len(group.topology.nodes)} nodes", flush=True)
    with lab.lock():
        life_cycle.up(lab, group.topology)
    try:
        playbooks.run(lab, "bootstrap.yml")
        pods.up(lab)
        time.sleep(_SETTLE)
        if group.is_proven:
            _prove(lab)
        for fault in group.faults:
            outcome = _measure(lab, group.name, fault)
            print(_as_line(outcome), end="", flush=True)
            yield outcome
    finally:
        with lab.lock():
            life_cycle.down(lab)


def _prove(lab: Lab) -> None:
    proved = proof.prove(lab)
    if proved.failures:
        raise LabError(f"checks failed before any fault: {'; '.join(check.claim for check in proved.failures)}")
    print(f"   all {len(proved.checks)} checks of the proof hold before any fault", flush=True)


def _measure(lab: Lab, group: str, fault: Fault) -> Outcome:
    first = {pod.node: pod for pod in reversed(pods.running(lab))}
    source, target = first[fault.source], first[fault.target]
    if fault.idle:
        time.sleep(fault.idle)
        before = _path(lab, source, target)
        injected = fault.inject(lab, None)
    with _pinging(lab, source, target) as replies:
        if not fault.idle:
            _await(lambda: bool(replies()), "a ping between the pods before the fault")
            # The path of a pair in use: it takes up to two seconds to become direct.
            time.sleep(_WAKING)
            before = _path(lab, source, target)
            injected = fault.inject(lab, before.removeprefix("by ") if before != _DIRECT else None)
        seconds, paths = _watch(lab, source, target, replies, injected, ends_direct=fault.ends_direct)
    after, since = settled(paths, before, injected)
    mtu = probes.check_mtu(lab, source, target, tunnels.mtu(lab, lab.topology().node(source.node)))
    return Outcome(
        lab=group,
        scenario=fault.name,
        pair=f"{fault.source} {fault.target}",
        before=before,
        seconds=seconds,
        after=after,
        since=since,
        is_expected=(after == _DIRECT) == fault.ends_direct,
        mtu=mtu,
    )


def _path(lab: Lab, source: pods.Pod, target: pods.Pod) -> str:
    """Return "direct" or "by RELAY"; and both directions while they differ, which they may for a moment."""
    topology = lab.topology()

    def one_direction(origin: pods.Pod, destination: pods.Pod) -> str:
        ends = topology.node(origin.node), topology.node(destination.node)
        try:
            path = tunnels.path(lab, topology, *ends, destination.address)
        except LabError:
            return "nowhere"
        return _DIRECT if path.relay is None else f"by {path.relay}"

    there, back = one_direction(source, target), one_direction(target, source)
    return there if there == back else f"{there}, back {back}"


def _watch(
    lab: Lab,
    source: pods.Pod,
    target: pods.Pod,
    replies: Callable[[], list[float]],
    injected: float,
    *,
    ends_direct: bool,
) -> tuple[float | None, list[tuple[float, str]]]:
    """Watch until the pods talk steadily by the path they must have; return the seconds without, and the paths seen."""
    deadline = time.time() + _PATIENCE
    paths = []
    while True:
        time.sleep(0.5)
        paths.append((time.time(), _path(lab, source, target)))
        seconds = seconds_until_steady(replies(), injected, time.time())
        is_settled = paths[-1][1] == _DIRECT if ends_direct else paths[-1][1].startswith("by ")
        if (seconds is not None and is_settled) or time.time() > deadline:
            return seconds, paths


@contextmanager
def _pinging(lab: Lab, source: pods.Pod, target: pods.Pod) -> Iterator[Callable[[], list[float]]]:
    """Let one pod ping the other; gives a function that returns the times of the replies so far."""
    # The node's PID namespace is not entered: nsenter would fork for it, and not pass the signal on to ping.
    enter = ["nsenter", f"--target={nodes.pid(lab, lab.topology().node(source.node))}", "--mount", "--"]
    ping = ["ping", "-n", "-D", f"-i{_INTERVAL}", "-W1", target.address]
    command = [*enter, "nsenter", f"--net=/proc/{source.pid}/ns/net", *ping]
    log = lab.state / "scenario.ping"
    with log.open("wb") as output:
        pinging = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield lambda: [float(found[1]) for line in log.read_text().splitlines() if (found := _REPLY.match(line))]
    finally:
        pinging.send_signal(signal.SIGINT)
        pinging.wait(timeout=10)
        log.unlink()


def _await(is_so: Callable[[], bool], what: str) -> None:
    """Raise LabError if it is not so within _PATIENCE."""
    deadline = time.time() + _PATIENCE
    while not is_so():
        if time.time() > deadline:
            raise LabError(f"not seen within {_PATIENCE:g} s: {what}")
        time.sleep(0.1)


def _fault(name: str, source: str, target: str, inject: Callable[[Lab], float], *, ends_direct: bool = True) -> Fault:
    return Fault(name, source, target, ends_direct, lambda lab, _relay: inject(lab))


def _nothing(_lab: Lab, _relay: str | None) -> float:
    return time.time()


def _forget(*names: str) -> Callable[[Lab], float]:
    def inject(lab: Lab) -> float:
        topology, began = lab.topology(), time.time()
        for name in names:
            faults.forget(lab, topology, topology.node(name))
        return began

    return inject


def _nat(kind: str, *names: str) -> Callable[[Lab], float]:
    def inject(lab: Lab) -> float:
        began = time.time()
        for name in names:
            topology = lab.topology()
            faults.switch_nat(lab, topology, topology.node(name), kind)
        return began

    return inject


def _readdress(name: str) -> Callable[[Lab], float]:
    def inject(lab: Lab) -> float:
        topology, began = lab.topology(), time.time()
        faults.readdress(lab, topology, topology.node(name))
        return began

    return inject


def _cut_for(seconds: float, name: str) -> Callable[[Lab], float]:
    def inject(lab: Lab) -> float:
        node = lab.topology().node(name)
        faults.cut(lab, node)
        time.sleep(seconds)
        faults.heal(lab, node)
        return time.time()

    return inject


def _kill(name: str) -> Callable[[Lab], float]:
    def inject(lab: Lab) -> float:
        began = time.time()
        run(*nodes.command(lab, lab.topology().node(name), ["pkill", "-KILL", "wireguard-go"]))
        return began

    return inject


def _cut_relay(lab: Lab, relay: str | None) -> float:
    began = time.time()
    faults.cut(lab, lab.topology().node(_needed(relay)))
    return began


def _restart_relay(lab: Lab, relay: str | None) -> float:
    began = time.time()
    restart = "pkill -KILL wireguard-go; systemctl restart evio-overlay.service"
    run(*nodes.command(lab, lab.topology().node(_needed(relay)), ["sh", "-c", restart]))
    return began


def _needed(relay: str | None) -> str:
    if relay is None:
        raise LabError("no node relays between these pods, so there is no relay to take away")
    return relay
