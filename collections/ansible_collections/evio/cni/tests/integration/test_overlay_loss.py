# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pairs of nodes behind NATs whose uplinks lose, delay and reorder packets, with real agents and devices.

The scenarios run at the same time for ten minutes, with one ping a second in each, and no path may change. Then the
direct paths are cut, in both directions and in one. `vm/test_kernel --loss` runs them on a kernel with netem, in a time
that is free of the host's load. Where there is no netem, the routers' nftables lose packets, and nothing delays them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from .overlay_lab import DEVICE_KIND, USERSPACE, Node, OverlayLab, Router, wait_until

HAS_NETEM = (
    subprocess.run(
        ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", "1%"],
        capture_output=True,
        check=False,
    ).returncode
    == 0
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.skipif(
        DEVICE_KIND == USERSPACE and shutil.which("wireguard-go") is None,
        reason="wireguard-go is not installed: setup/machine",
    ),
]

SECONDS = float(os.environ.get("EVIO_TEST_LOSS_SECONDS", "600"))
"""Seconds for which all paths must stay as they are."""

NETEM = {
    "loss 5 %": "loss 5%",
    "loss 20 %": "loss 20%",
    "loss 35 %": "loss 35%",
    "RTT 300 ms": "delay 150ms",
    "RTT 300 ms, loss 20 %": "delay 150ms loss 20%",
    "RTT 300 ms, jitter, reordering": "delay 150ms 50ms reorder 25%",
    "bursts of 4 packets, 17 %": "loss gemodel 5% 25%",
}
"""What both uplinks do to each IP packet that leaves the site, as tc-netem(8) has it."""

IP_APART = (
    "qdisc add dev wan root handle 1: prio bands 2 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
    "filter add dev wan parent 1: protocol ip matchall classid 1:2",
)
"""Leaves ARP alone. Where an uplink loses packets, the router still knows the next hop. A router that loses a few of
ARP's answers in a row sends nothing for seconds, which is no loss by chance."""

LOSS = re.compile(r"loss (\d+)%")

SHARE = tuple(int(part) for part in os.environ.get("EVIO_TEST_LOSS_SHARE", "1/1").split("/"))
"""Which share of the scenarios runs, at the same time, and of how many: all of them by default."""

SCENARIOS = [name for name, netem in NETEM.items() if HAS_NETEM or LOSS.fullmatch(netem)][SHARE[0] - 1 :: SHARE[1]]

ROUND_TRIP = {name: 0.4 if "jitter" in name else 0.3 if "RTT" in name else 0.0 for name in NETEM}
"""Seconds of round trip at most, without the time of the machine."""

CUTS = ("both directions", "one direction", "both directions", "one direction")

DEAD, APART, MACHINE = 5.0, 0.5, 0.1
"""Seconds at most until a dead path is left by both ends; for which their paths differ, beside the round trip; and the
error of these measurements."""

PAUSE = 0.5
"""Seconds for which the machine may run a process that waits for 20 ms later than it asked."""

PATH_LINE = re.compile(r"([^ :]+|nodes without a path of their own): (direct|through relay|not reachable)")


@dataclass
class Outcome:
    """What happened to one pair."""

    changes: list[str] = field(default_factory=list)
    """The changes of paths while the pair had the losses of the scenario, as the agents logged them."""
    pauses: list[str] = field(default_factory=list)
    """When this process was not run for longer than PAUSE meanwhile, as it happens to agents too."""
    pings: str = ""
    deaths: list[tuple[str, float, float]] = field(default_factory=list)
    """What was cut, the seconds until both ends had left the path, and those between the first and the second."""


@dataclass
class Pair:
    name: str
    routers: tuple[Router, Router]
    nodes: tuple[Node, Node]
    outcome: Outcome = field(default_factory=Outcome)

    def impair(self) -> None:
        """Let both sites lose and delay what they send."""
        for router in self.routers:
            if HAS_NETEM:
                for command in (*IP_APART, f"qdisc add dev wan parent 1:2 netem {NETEM[self.name]}"):
                    router.namespace.run("tc", *command.split())
            self._lose(router)

    def _lose(self, router: Router) -> None:
        loss = LOSS.fullmatch(NETEM[self.name])
        if not HAS_NETEM and loss:
            rule = f'insert rule ip filter pass oifname "wan" numgen random mod 100 < {loss[1]} drop'
            router.namespace.run("nft", "-f", "-", text=rule)

    def heal(self) -> None:
        """Let the packets pass that were cut; losses and delays stay."""
        self.routers[0].set_rules()
        self._lose(self.routers[0])

    def cut(self, what: str) -> None:
        """Drop the pair's packets to the second site, or in both directions, from one moment on."""
        rules = [f"insert rule ip filter pass ip daddr {self.routers[1].wan} drop"]
        if what == "both directions":
            rules.append(f"insert rule ip filter pass ip saddr {self.routers[1].wan} drop")
        self.routers[0].namespace.run("nft", "-f", "-", text="\n".join(rules))


class LogReader(threading.Thread):
    """Reads the agents' logs as they are written: which path changed, and when."""

    def __init__(self, nodes: list[Node]) -> None:
        super().__init__(daemon=True)
        self._logs = {node.name: node.log.open() for node in nodes}
        self._is_done = threading.Event()
        self.lines: list[tuple[float, str, str, str]] = []
        """The monotonic time, the node, the peer, and what kind of path leads to it now."""
        self.pauses: list[tuple[float, float]] = []
        """The monotonic time of the end, and the length, of times in which this process was not run."""

    def run(self) -> None:
        before = time.monotonic()
        while not self._is_done.wait(0.02):
            now = time.monotonic()
            if now - before > PAUSE:
                self.pauses.append((now, now - before))
            before = now
            for name, log in self._logs.items():
                for line in log:
                    if match := PATH_LINE.match(line):
                        self.lines.append((time.monotonic(), name, match[1], match[2]))

    def since(self, start: float, node: Node) -> list[tuple[float, str, str]]:
        return [(at, peer, path) for at, name, peer, path in self.lines if at >= start and name == node.name]

    def left_at(self, start: float, node: Node, peer: Node) -> float | None:
        """Return when the node first left its direct path to the peer."""
        return next((at for at, name, path in self.since(start, node) if name == peer.name and path != "direct"), None)

    def close(self) -> None:
        self._is_done.set()
        self.join()
        for log in self._logs.values():
            log.close()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    lab = OverlayLab(tmp_path_factory.mktemp("loss"))
    reader = None
    try:
        lab.public_node("relay")
        pairs = []
        for number, name in enumerate(SCENARIOS):
            routers = (lab.router(), lab.router())
            nodes = (lab.node(f"a{number}", routers[0]), lab.node(f"b{number}", routers[1]))
            pairs.append(Pair(name, routers, nodes))
        lab.start()
        for pair in pairs:
            wait_until(lambda: pair.nodes[0].log.exists() and pair.nodes[1].log.exists(), 10, "logs", lab)  # noqa: B023
        reader = LogReader([node for pair in pairs for node in pair.nodes])
        reader.start()
        with_traffic(lab, pairs, reader)
        yield {pair.name: pair.outcome for pair in pairs}
    finally:
        if reader is not None:
            reader.close()
        lab.close()


def with_traffic(lab: OverlayLab, pairs: list[Pair], reader: LogReader) -> None:
    keep_talking = [
        pair.nodes[0].namespace.command("ping", "-n", "-q", "-i", "1", pair.nodes[1].pod_gateway) for pair in pairs
    ]
    talking = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in keep_talking]
    try:
        wait_all_direct(lab, pairs)
        for pair in pairs:
            pair.impair()
        time.sleep(5)
        wait_all_direct(lab, pairs)
        watch(pairs, reader)
        for what in CUTS:
            cut_all(lab, pairs, reader, what)
    finally:
        for ping in talking:
            ping.kill()
            ping.wait()


def watch(pairs: list[Pair], reader: LogReader) -> None:
    """Ping through all pairs for SECONDS, and note what changes."""
    start = time.monotonic()
    pings = [
        subprocess.Popen(
            pair.nodes[1].namespace.command(
                "ping", "-n", "-q", "-i", "1", "-c", f"{SECONDS:.0f}", pair.nodes[0].pod_gateway
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        for pair in pairs
    ]
    for pair, ping in zip(pairs, pings, strict=True):
        output = ping.communicate()[0]
        pair.outcome.pings = ", ".join(line for line in output.splitlines() if "packet loss" in line or "rtt" in line)
        for node in pair.nodes:
            for at, peer, path in reader.since(start, node):
                pair.outcome.changes.append(f"{at - start:.1f} s: {node.name} to {peer}: {path}")
        pair.outcome.pauses = [f"{at - start:.1f} s: {length:.1f} s" for at, length in reader.pauses if at >= start]


def cut_all(lab: OverlayLab, pairs: list[Pair], reader: LogReader, what: str) -> None:
    """Cut the direct path of each pair, note when its ends leave it, and let it come up again."""
    starts = {}
    for pair in pairs:
        starts[pair.name] = time.monotonic()
        pair.cut(what)
    for pair in pairs:
        start, (first, second) = starts[pair.name], pair.nodes

        def left() -> list[float]:
            times = [reader.left_at(start, first, second), reader.left_at(start, second, first)]  # noqa: B023
            return [at for at in times if at is not None]

        wait_until(lambda: len(left()) == 2, 10, f"{pair.name}: both ends leave the path", lab)
        pair.outcome.deaths.append((what, max(left()) - start, max(left()) - min(left())))
    for pair in pairs:
        pair.heal()
    wait_all_direct(lab, pairs)
    # A path that fails soon after it came up is held; and the agents log six lines a minute about one path.
    time.sleep(35)
    wait_all_direct(lab, pairs)


def wait_all_direct(lab: OverlayLab, pairs: list[Pair]) -> None:
    for pair in pairs:
        for node, other in (pair.nodes, pair.nodes[::-1]):
            wait_until(lambda: node.paths().get(other.name) == "direct", 60, f"{pair.name}: direct", lab)  # noqa: B023


@pytest.mark.parametrize("name", SCENARIOS)
def test_path_that_loses_packets_is_kept(
    outcomes: dict[str, Outcome], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\n{name}, {SECONDS:.0f} s: {outcomes[name].pings}; changes: {outcomes[name].changes}", end="")
        print(f"; the machine stood still: {outcomes[name].pauses}")
    assert outcomes[name].changes == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_dead_path_is_left_by_both_ends_together(
    outcomes: dict[str, Outcome], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deaths = outcomes[name].deaths
    with capsys.disabled():
        for what, seconds, apart in deaths:
            print(f"\n{name}, cut in {what}: left after {seconds:.2f} s, ends apart for {apart:.2f} s", end="")
    assert len(deaths) == len(CUTS)
    assert max(seconds for _what, seconds, _apart in deaths) <= DEAD + MACHINE
    assert max(apart for _what, _seconds, apart in deaths) <= ROUND_TRIP[name] + APART + MACHINE
