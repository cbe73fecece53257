"""What life does to nodes behind NATs, done to whole labs with pods: how long until they talk again, and which way.

Each group of scenarios has a lab of its own, set up by the very playbook that users run. Nothing is done by hand after
a fault: what is measured is the time from it to the first of steady answers between two pods, and to the way that they
shall have in the end; by that way the longest packet of the overlay has to pass, and no longer one.
"""

from __future__ import annotations

import os
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
from state import REPOSITORY, Lab
from topology import Topology, plan

_INTERVAL = 0.1
"""Seconds between two pings."""
_GAP = 0.35
"""Between two answers: longer, and pods did not talk meanwhile."""
_STEADY = 3.0
"""Of answers without a gap, until a fault counts as over."""
_PATIENCE = 90.0
_DIRECT = "direct"
_SETTLE = 12.0
"""For ways to become direct, where they can, before the first fault."""
_ANSWER = re.compile(r"^\[([0-9.]+)\] .* icmp_seq=")


@dataclass(frozen=True)
class Outcome:
    """One scenario: the ways before and after it, and seconds until pods talked again; None if they did not.

    `since` is when, in seconds after the fault, the way became what it is after it, `is_expected` whether it has to be
    that one; `mtu` says what passes by it.
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
        """Whether all is as it has to be."""
        carries = self.mtu.passes and not self.mtu.one_more_passes
        return self.seconds is not None and self.is_expected and carries


@dataclass(frozen=True)
class Fault:
    """A scenario: whose pods are watched, what is done, and whether their way is direct in the end, or by a relay."""

    name: str
    source: str
    target: str
    ends_direct: bool
    inject: Callable[[Lab, str | None], float]
    """Does it, told who relays if anybody does, and returns when it was over: what is measured begins there."""


@dataclass(frozen=True)
class Group:
    """A lab and what is done to it, one after the other; `is_proven`: after all that `lab/lab prove` proves."""

    name: str
    topology: Topology
    faults: Sequence[Fault]
    is_proven: bool = False


def run_all(lab: Lab, chosen: Sequence[str]) -> list[Outcome]:
    """Run the groups of these names, or all of them. Raises LabError if a lab is up, or there is no such group."""
    known = {group.name: group for group in _groups()}
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise LabError(f"there are no scenarios {unknown[0]!r}: there are {', '.join(known)}")
    if lab.read() is not None:
        raise LabError("a lab is up: take it away with lab/lab down first")
    return [outcome for name in chosen or known for outcome in _run_group(lab, known[name])]


def as_text(outcomes: Sequence[Outcome]) -> str:
    """For people: a line each."""
    head = f"{'LAB':8} {'WHAT HAPPENS':40} {'PODS OF':12} {'WAY BEFORE':11} {'SECONDS':>7}  {'WAY AFTER':11} "
    return f"{head}{'SINCE':>5}  LONGEST PACKET\n" + "".join(_as_line(one) for one in outcomes)


def settled(ways: Sequence[tuple[float, str]], before: str, over: float) -> tuple[str, float]:
    """The last of the ways seen, and the seconds from the fault until it was so: 0 if it was no other meanwhile."""
    after = ways[-1][1]
    since = ways[-1][0]
    for at, way in reversed([(over, before), *ways]):
        if way != after:
            break
        since = at
    return after, since - over


def seconds_until_steady(answers: Sequence[float], over: float, now: float) -> float | None:
    """From the fault to the first answer after the last gap, 0 if there was none; None if they are not steady yet."""
    times = [over, *(one for one in answers if one > over)]
    resumed = max((later for one, later in pairwise(times) if later - one > _GAP), default=over)
    return resumed - over if now - resumed > _STEADY and now - times[-1] < _GAP else None


def _as_line(one: Outcome) -> str:
    seconds = "never" if one.seconds is None else f"{one.seconds:.1f}"
    wrong = [
        *(["NOT THE WAY IT SHALL BE"] if not one.is_expected else []),
        *([f"{one.mtu.mtu} BYTES DO NOT PASS"] if not one.mtu.passes else []),
        *([f"{one.mtu.mtu + 1} BYTES PASS"] if one.mtu.one_more_passes else []),
    ]
    ways = f"{one.before:11} {seconds:>7}  {one.after:11} {one.since:>5.1f}"
    return f"{one.lab:8} {one.scenario:40} {one.pair:12} {ways}  {'; '.join(wrong) or one.mtu.mtu}\n"


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
            _fault("the other one too", *both, _nat("symmetric", "node2"), ends_direct=False),
            _fault("both preserve ports again", *both, _nat("preserving", *both)),
        ],
    )
    both = ("node3", "node4")
    relay_dies = Fault("the relay dies, there is another", *both, ends_direct=False, inject=_kill_relay)
    both_symmetric = _nat("symmetric", *both)
    yield Group(
        "relays",
        plan(4, public=2),
        [_fault("both NATs become symmetric", *both, both_symmetric, ends_direct=False), relay_dies],
    )
    yield Group(
        "eight",
        plan(8, per_router=2),
        [
            _fault("two behind one NAT, which forgets", "node2", "node3", _forget("node2")),
            _fault("two of other sites, whose NATs forget", "node5", "node8", _forget("node5", "node8")),
        ],
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
            _fault("one site translates, symmetrically", *both, _nat("symmetric", "node4"), ends_direct=False),
            _fault("it does not any more", *both, _nat("none", "node4")),
            _fault("both sites translate so", *both, both_symmetric, ends_direct=False),
            relay_dies,
        ],
        is_proven=True,
    )


def _run_group(lab: Lab, group: Group) -> Iterator[Outcome]:
    print(f"== {group.name}: {len(group.topology.nodes)} nodes", flush=True)
    with lab.changed_by_one():
        life_cycle.up(lab, group.topology)
    try:
        _bootstrap(lab)
        pods.up(lab)
        time.sleep(_SETTLE)
        if group.is_proven:
            _prove(lab)
        for fault in group.faults:
            outcome = _measure(lab, group.name, fault)
            print(_as_line(outcome), end="", flush=True)
            yield outcome
    finally:
        with lab.changed_by_one():
            life_cycle.down(lab)


def _prove(lab: Lab) -> None:
    proved = proof.prove(lab)
    if proved.failures:
        raise LabError(f"before any fault: {'; '.join(check.claim for check in proved.failures)}")
    print(f"   {len(proved.checks)} checks of the network as it is hold", flush=True)


def _bootstrap(lab: Lab) -> None:
    """The playbook, with the inventory that the lab wrote of itself."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(REPOSITORY / "collections")
    playbook = [str(REPOSITORY / ".venv/bin/ansible-playbook"), "-i", str(lab.inventory), "playbooks/bootstrap.yml"]
    done = subprocess.run(
        playbook, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        raise LabError(f"bootstrap.yml failed: {done.stdout[-2000:]}")


def _measure(lab: Lab, group: str, fault: Fault) -> Outcome:
    first = {pod.node: pod for pod in reversed(pods.running(lab))}
    source, target = first[fault.source], first[fault.target]
    before = _way(lab, source, target)
    with _pinging(lab, source, target) as answers:
        _await(lambda: bool(answers()), "the pods talk before the fault")
        over = fault.inject(lab, before.removeprefix("by ") if before != _DIRECT else None)
        seconds, ways = _watch(lab, source, target, answers, over, ends_direct=fault.ends_direct)
    after, since = settled(ways, before, over)
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


def _way(lab: Lab, source: pods.Pod, target: pods.Pod) -> str:
    """Direct, or by which relay; one end may have it otherwise for a moment."""
    topology = lab.topology()

    def one_way(one: pods.Pod, other: pods.Pod) -> str:
        nodes_of = topology.node(one.node), topology.node(other.node)
        try:
            path = tunnels.path(lab, topology, *nodes_of, other.address)
        except LabError:
            return "nowhere"
        return _DIRECT if path.relay is None else f"by {path.relay}"

    there, back = one_way(source, target), one_way(target, source)
    return there if there == back else f"{there}, back {back}"


def _watch(
    lab: Lab,
    source: pods.Pod,
    target: pods.Pod,
    answers: Callable[[], list[float]],
    over: float,
    *,
    ends_direct: bool,
) -> tuple[float | None, list[tuple[float, str]]]:
    """Seconds until the pods talk again, and the ways until then and until they have the one they shall have."""
    deadline = time.time() + _PATIENCE
    ways = []
    while True:
        time.sleep(0.5)
        ways.append((time.time(), _way(lab, source, target)))
        seconds = seconds_until_steady(answers(), over, time.time())
        is_settled = ways[-1][1] == _DIRECT if ends_direct else ways[-1][1].startswith("by ")
        if (seconds is not None and is_settled) or time.time() > deadline:
            return seconds, ways


@contextmanager
def _pinging(lab: Lab, source: pods.Pod, target: pods.Pod) -> Iterator[Callable[[], list[float]]]:
    """Times of the answers so far, while one pod pings the other."""
    # Without the node's own numbering of processes, which would take a process in between that passes on no signal.
    enter = ["nsenter", f"--target={nodes.pid(lab, lab.topology().node(source.node))}", "--mount", "--"]
    ping = ["ping", "-n", "-D", f"-i{_INTERVAL}", "-W1", target.address]
    command = [*enter, "nsenter", f"--net=/proc/{source.pid}/ns/net", *ping]
    log = lab.state / "scenario.ping"
    with log.open("wb") as output:
        pinging = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield lambda: [float(found[1]) for line in log.read_text().splitlines() if (found := _ANSWER.match(line))]
    finally:
        pinging.send_signal(signal.SIGINT)
        pinging.wait(timeout=10)
        log.unlink()


def _await(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.time() + _PATIENCE
    while not is_so():
        if time.time() > deadline:
            raise LabError(f"not so within {_PATIENCE:g} s: {what}")
        time.sleep(0.1)


def _fault(name: str, source: str, target: str, inject: Callable[[Lab], float], *, ends_direct: bool = True) -> Fault:
    return Fault(name, source, target, ends_direct, lambda lab, _relay: inject(lab))


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


def _kill_relay(lab: Lab, relay: str | None) -> float:
    if relay is None:
        raise LabError("nobody relays between these pods")
    began = time.time()
    faults.cut(lab, lab.topology().node(relay))
    return began
