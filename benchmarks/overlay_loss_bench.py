#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show how often the overlay leaves a direct path that loses packets, and how its two ends leave a path that is dead.

The agents' path selection and messages run as they are; WireGuard, NATs, losses and time are simulated. A relay and two
nodes behind NATs that talk; every packet of every node is lost with the same chance. What is counted: direct paths that
were left although they carried packets, for each hour; how often one end heard nothing of the other for so long, which
shows how seldom a path is left; and, over many cuts in both directions or in one, the seconds until both ends had left
the path and those for which their paths differed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))

from ansible_collections.evio.cni.tests.unit.overlay_network import Network

STEP, COARSE_STEP = 0.02, 0.1
"""Simulated seconds between two looks at the paths, while they are left, and while they are to stay."""

SILENCES = (1.5, 1.75, 2.0, 2.5)
"""Seconds of silence that are counted: an end asks after 1.4 s, and leaves the path after 3.5 s and a round trip."""

DIRECT = ("n3", "n2")
"""The next hops of the nodes n2 and n3 while their path is direct."""


@dataclass(frozen=True)
class Underlay:
    """What happens to every packet: delay and jitter in seconds of one direction, and the chance of loss.

    With ``burst``, losses come in bursts: the chances that a node's next packet begins a burst, and that it ends one.
    """

    name: str
    delay: float = 0.01
    jitter: float = 0.0
    loss: float = 0.0
    burst: tuple[float, float] = (0.0, 1.0)


UNDERLAYS = (
    Underlay("RTT 20 ms, no loss"),
    Underlay("RTT 20 ms, 5 %", loss=0.05),
    Underlay("RTT 20 ms, 20 %", loss=0.2),
    Underlay("RTT 20 ms, 35 %", loss=0.35),
    Underlay("RTT 300 to 500 ms, 20 %", delay=0.15, jitter=0.1, loss=0.2),
    Underlay("RTT 300 to 500 ms, 35 %", delay=0.15, jitter=0.1, loss=0.35),
    Underlay("bursts of 4 packets, 17 %", burst=(0.05, 0.25)),
    Underlay("bursts of 10 packets, 9 %", burst=(0.01, 0.1)),
)


def lossy_pair(underlay: Underlay, seed: int) -> Network:
    """Return a network whose nodes n2 and n3 talk directly, and lose packets from now on."""
    network = Network(public=1, nated=2, delay=underlay.delay, jitter=underlay.jitter, seed=seed)
    network.run(20)
    network.talk(1, 2)
    network.run(20)
    bursting: set[str] = set()

    def loses(source: str, _target: str) -> bool:
        begins, ends = underlay.burst
        if network.random.random() < (ends if source in bursting else begins):
            bursting.symmetric_difference_update({source})
        return source in bursting or network.random.random() < underlay.loss

    network.loses = loses
    return network


def hops(network: Network) -> tuple[str | None, str | None]:
    return network.hop(1, 2), network.hop(2, 1)


def mistakes(underlay: Underlay, hours: float) -> tuple[float, list[float]]:
    """Return how often in an hour the direct path is left although it carries packets.

    And how often an end hears nothing of the other for each of SILENCES, or for longer.
    """
    network = lossy_pair(underlay, seed=1)
    heard: dict[tuple[str, str], float] = {}
    silences: list[float] = []

    def arrives(*way: str) -> None:
        silences.append(network.now - heard.get(way, network.now))
        heard[way] = network.now

    network.arrives = lambda *way: arrives(*way) if "10.10.0.1" not in way else None
    count, was_direct, seen = 0, True, None
    for _step in range(round(hours * 3600 / COARSE_STEP)):
        network.run(COARSE_STEP)
        revisions = [node.revision for node in network.nodes.values()]
        if revisions != seen:
            seen, is_direct = revisions, hops(network) == DIRECT
            count += was_direct and not is_direct
            was_direct = is_direct
    return count / hours, [sum(silence >= least for silence in silences) / hours for least in SILENCES]


def leave(underlay: Underlay, seed: int, cut: set[tuple[str, str]]) -> tuple[float, float] | None:
    """Cut the path; return the seconds until both ends have left it, and those for which their paths differed.

    None if it was not direct when it was to be cut.
    """
    network = lossy_pair(underlay, seed)
    network.run(40 + network.random.random())
    if hops(network) != DIRECT:
        return None
    network.cut |= cut
    start, apart = network.now, 0.0
    while any(hop == direct for hop, direct in zip(hops(network), DIRECT, strict=True)):
        network.run(STEP)
        first, second = (hop == direct for hop, direct in zip(hops(network), DIRECT, strict=True))
        apart += STEP * (first != second)
    return network.now - start, apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=4.0, help="simulated hours of losses (default: %(default)s)")
    parser.add_argument("--cuts", type=int, default=50, help="cuts of each kind (default: %(default)s)")
    arguments = parser.parse_args()
    there, back = ("10.10.0.2", "10.10.0.3"), ("10.10.0.3", "10.10.0.2")
    heading = ", ".join(f"{seconds:g}" for seconds in SILENCES)
    print(
        f"{'':28} left by mistake   silent for {heading} s   cut: left after, longest   ends apart, 95 of 100, longest"
    )
    for underlay in UNDERLAYS:
        rate, silences = mistakes(underlay, arguments.hours)
        results = [leave(underlay, seed, cut) for cut in ({there, back}, {there}) for seed in range(arguments.cuts)]
        found = [result for result in results if result is not None]
        seconds, apart = (sorted(values) for values in zip(*found, strict=True))
        print(
            f"{underlay.name:28} {rate:7.2f} in 1 h   {', '.join(f'{often:.1f}' for often in silences):26}"
            f" {statistics.median(seconds):.1f} s, {seconds[-1]:.1f} s"
            f"{'':6} {apart[round(0.95 * len(apart)) - 1]:6.2f} s, {apart[-1]:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
