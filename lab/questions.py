"""What the pods are asked, from inside: whom they reach, whole bodies and not only pings, and how long a packet may be.

What the answers should be is proof.py's to know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import internet
import nodes
import pods
from commands import LabError, attempt
from cri import ExecResult
from places import Lab
from pods import Pod
from topology import INTERNET_ADDRESS

_BODY_TIMEOUT = 20
"""Seconds that one body of 1 MiB may take while all the others are under way."""
_IP_AND_ICMP_HEADERS = 28

_INTERNET_BODY_SHA256 = hashlib.sha256(internet.body(internet.MARKER)).hexdigest()

# Each prints a line a target: its name, and the mean round trip in ms, or the SHA-256 of the body it serves; - where
# nothing came. Bodies are fetched when all pings are done: a round trip beside them would tell of queues.
_PING_SCRIPT = """\
ask() {{
    rtt=$(ping -c 3 -i 0.2 -W 2 -q "$2" | sed -n 's,^round-trip.*= [0-9.]*/\\([0-9.]*\\)/.*,\\1,p')
    echo "$1 ${{rtt:--}}"
}}
{questions}
ask gateway "$(ip route | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p')" &
wait
echo "mtu $(cat /sys/class/net/eth0/mtu)"
"""
_BODY_SCRIPT = """\
ask() {{
    body=$(timeout {timeout} wget -q -O - "$2" | sha256sum | cut -c 1-64)
    echo "$1 ${{body:--}}"
}}
{questions}
wait
"""


@dataclass(frozen=True)
class Answer:
    """What a pod got of one target: the round trip in ms (None: no answer), and whether its 1 MiB came unharmed.

    A gateway serves no body.
    """

    target: str
    rtt_ms: float | None
    is_body_right: bool


@dataclass(frozen=True)
class View:
    """The network as one pod sees it; `mtu` in bytes is what its eth0 has."""

    pod: Pod
    peers: tuple[Answer, ...]
    gateway: Answer
    internet: Answer
    mtu: int


@dataclass(frozen=True)
class MtuCheck:
    """Whether packets that nobody may fragment pass between two pods: of `mtu` bytes, and of one byte more."""

    source: str
    target: str
    mtu: int
    passes: bool
    one_more_passes: bool


def ask_all(lab: Lab, running: Sequence[Pod]) -> tuple[View, ...]:
    """Ask every pod about every other, its gateway and the internet, all at the same time."""
    with ThreadPoolExecutor(max_workers=32) as workers:
        pinged = list(workers.map(lambda pod: _ping(lab, pod, running), running))
        fetched = list(workers.map(lambda pod: _fetch(lab, pod, running), running))
    return tuple(_view(*seen, running) for seen in zip(running, pinged, fetched, strict=True))


def check_mtu(lab: Lab, source: Pod, target: Pod, mtu: int) -> MtuCheck:
    """Ping from one pod to another with the don't-fragment bit (RFC 791); the pod's own busybox cannot set it."""
    node = lab.topology().node(source.node)

    def passes(size: int) -> bool:
        ping = ["ping", "-M", "do", "-c", "2", "-i", "0.2", "-W", "2", "-s", str(size - _IP_AND_ICMP_HEADERS)]
        in_pod = ["nsenter", f"--net=/proc/{source.pid}/ns/net", *ping, target.address]
        return attempt(*nodes.command(lab, node, in_pod)).returncode == 0

    return MtuCheck(source.name, target.name, mtu, passes(mtu), passes(mtu + 1))


def path_for(pod: Pod) -> str:
    """What a pod asks the internet for: the internet's log then tells whose request it was."""
    return f"/body?{pod.name}"


def _ping(lab: Lab, pod: Pod, running: Sequence[Pod]) -> dict[str, str]:
    targets = {**{peer.name: peer.address for peer in running if peer != pod}, "internet": INTERNET_ADDRESS}
    heard = _ask(lab, pod, _PING_SCRIPT.format(questions=_questions(targets)))
    return _complete(pod, heard, {*targets, "gateway", "mtu"})


def _fetch(lab: Lab, pod: Pod, running: Sequence[Pod]) -> dict[str, str]:
    targets = {peer.name: f"http://{peer.address}:{pods.PORT}/body" for peer in running if peer != pod}
    targets["internet"] = f"http://{INTERNET_ADDRESS}{path_for(pod)}"
    heard = _ask(lab, pod, _BODY_SCRIPT.format(questions=_questions(targets), timeout=_BODY_TIMEOUT))
    return _complete(pod, heard, {*targets})


def _questions(targets: dict[str, str]) -> str:
    return "\n".join(f"ask {name} '{target}' &" for name, target in targets.items())


def _ask(lab: Lab, pod: Pod, script: str) -> ExecResult:
    with pods.runtime(lab, lab.topology().node(pod.node)) as runtime:
        return runtime.execute(pod.container_id, ["/bin/sh", "-c", script], timeout=2 * _BODY_TIMEOUT)


def _complete(pod: Pod, said: ExecResult, wanted: set[str]) -> dict[str, str]:
    """What a pod said of each target. Raises LabError if it left one out."""
    heard = dict(line.split(maxsplit=1) for line in said.stdout.splitlines())
    if heard.keys() != wanted:
        raise LabError(f"{pod.name} did not answer (exit {said.exit_code}): {said.stderr.strip()}")
    return heard


def _view(pod: Pod, pinged: dict[str, str], fetched: dict[str, str], running: Sequence[Pod]) -> View:
    def answer(target: str, sha256: str) -> Answer:
        rtt = pinged[target]
        return Answer(target, None if rtt == "-" else float(rtt), fetched.get(target) == sha256)

    return View(
        pod=pod,
        peers=tuple(answer(peer.name, peer.body_sha256) for peer in running if peer != pod),
        gateway=answer("gateway", ""),
        internet=answer("internet", _INTERNET_BODY_SHA256),
        mtu=int(pinged["mtu"]),
    )
