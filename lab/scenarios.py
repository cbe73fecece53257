"""What life does to nodes behind NATs, done to whole labs with pods: how long until they talk again, and which way.

Each group of scenarios has a lab of its own, set up by the very playbook that users run. Nothing is done by hand after
a fault: what is measured is the time from it to the first of steady answers between two pods.
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
import tunnels
from commands import LabError, run
from places import REPOSITORY, Lab
from topology import Topology, plan

_INTERVAL = 0.1
"""Seconds between two pings."""
_GAP = 0.35
"""Between two answers: longer, and pods did not talk meanwhile."""
_STEADY = 3.0
"""Of answers without a gap, until a fault counts as over."""
_PATIENCE = 90.0
_SETTLE = 12.0
"""For ways to become direct, where they can, before the first fault."""
_ANSWER = re.compile(r"^\[([0-9.]+)\] .* icmp_seq=")


@dataclass(frozen=True)
class Outcome:
    """One scenario: the ways before and after it, and seconds until pods talked again; None if they did not."""

    lab: str
    scenario: str
    pair: str
    before: str
    seconds: float | None
    after: str


@dataclass(frozen=True)
class Fault:
    """A scenario: whose pods are watched, and what is done; a relay's name is put in for the node that relays."""

    name: str
    source: str
    target: str
    inject: Callable[[Lab, str | None], float]
    """Does it, and returns when it was over: what is measured begins there."""


@dataclass(frozen=True)
class Group:
    """A lab and what is done to it, one after the other."""

    name: str
    topology: Topology
    faults: Sequence[Fault]


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
    head = f"{'LAB':10} {'WHAT HAPPENS':44} {'PODS OF':12} {'WAY BEFORE':12} {'SECONDS':>8}  WAY AFTER\n"
    return head + "".join(
        f"{one.lab:10} {one.scenario:44} {one.pair:12} {one.before:12} "
        f"{'never' if one.seconds is None else format(one.seconds, '.1f'):>8}  {one.after}\n"
        for one in outcomes
    )


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
            _fault("one NAT becomes symmetric", *both, _nat("symmetric", "node3")),
            _fault("the other one too", *both, _nat("symmetric", "node2")),
            _fault("both preserve ports again", *both, _nat("preserving", *both)),
        ],
    )
    yield Group(
        "relays",
        plan(4, public=2),
        [
            _fault("both NATs become symmetric", "node3", "node4", _nat("symmetric", "node3", "node4")),
            Fault("the relay dies, there is another", "node3", "node4", _kill_relay),
        ],
    )
    yield Group(
        "eight",
        plan(8, per_router=2),
        [
            _fault("two behind one NAT, which forgets", "node2", "node3", _forget("node2")),
            _fault("two of other sites, whose NATs forget", "node5", "node8", _forget("node5", "node8")),
        ],
    )


def _run_group(lab: Lab, group: Group) -> Iterator[Outcome]:
    print(f"== {group.name}: {len(group.topology.nodes)} nodes", flush=True)
    with lab.changed_by_one():
        life_cycle.up(lab, group.topology)
    try:
        _bootstrap(lab)
        pods.up(lab)
        time.sleep(_SETTLE)
        for fault in group.faults:
            outcome = _measure(lab, group.name, fault)
            print(as_text([outcome]).splitlines()[1], flush=True)
            yield outcome
    finally:
        with lab.changed_by_one():
            life_cycle.down(lab)


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

    def way() -> str:
        topology = lab.topology()
        path = tunnels.path(lab, topology, topology.node(source.node), topology.node(target.node), target.address)
        return f"by {path.relay}" if path.relay not in (None, target.node) else "direct"

    before = way()
    with _pinging(lab, source, target) as answers:
        _await(lambda: bool(answers()), "the pods talk before the fault")
        over = fault.inject(lab, before.removeprefix("by ") if before != "direct" else None)
        seconds = _seconds_until_steady(answers, over)
    try:
        after = way()
    except LabError as error:
        after = str(error)
    return Outcome(group, fault.name, f"{fault.source} {fault.target}", before, seconds, after)


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


def _seconds_until_steady(answers: Callable[[], list[float]], over: float) -> float | None:
    """From the fault to the first answer after the last gap, 0 if there was none; None if it takes _PATIENCE."""
    deadline = time.time() + _PATIENCE
    while time.time() < deadline:
        time.sleep(0.5)
        times = [over, *(one for one in answers() if one > over)]
        resumed = max((later for one, later in pairwise(times) if later - one > _GAP), default=over)
        if time.time() - resumed > _STEADY and time.time() - times[-1] < _GAP:
            return resumed - over
    return None


def _await(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.time() + _PATIENCE
    while not is_so():
        if time.time() > deadline:
            raise LabError(f"not so within {_PATIENCE:g} s: {what}")
        time.sleep(0.1)


def _fault(name: str, source: str, target: str, inject: Callable[[Lab], float]) -> Fault:
    return Fault(name, source, target, lambda lab, _relay: inject(lab))


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
