# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Direct paths that lose, delay and reorder packets: kept while they carry, left when they are dead, by both ends.

docs/overlay-paths.md says how often a lossy path is called dead by mistake. The integration tests' test_overlay_loss.py
shows the same with real agents and netem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain, cycle, repeat

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import probe_address
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.messages import DOWN, INIT, UP, Probe
from hypothesis import given, settings
from hypothesis import strategies as st

from .overlay_network import Network

FIRST, SECOND = "10.10.0.3", "10.10.0.4"
"""The two nodes behind NATs, n3 and n4; n1 and n2 are relays."""

DIRECT = ("n4", "n3")
"""The next hops of both when their path is direct."""


def direct_pair(delay: float = 0.01, jitter: float = 0.0, seed: int = 0) -> Network:
    """Return a network in which the two nodes talk on the direct path, without losses yet."""
    network = Network(public=2, nated=2, delay=delay, jitter=jitter, seed=seed)
    network.run(20)
    network.talk(2, 3)
    network.run(40)
    assert hops(network) == DIRECT
    return network


def hops(network: Network) -> tuple[str | None, str | None]:
    return network.hop(2, 3), network.hop(3, 2)


def revisions(network: Network) -> list[int]:
    """Return numbers that stay equal while no node changes a path."""
    return [node.revision for node in network.nodes.values()]


def leave(network: Network) -> tuple[float, float]:
    """Return the seconds until both ends have left the direct path, and those in which their paths differed."""
    start, apart = network.now, 0.0
    while DIRECT[0] in hops(network) or DIRECT[1] in hops(network):
        network.run(0.01)
        now = hops(network)
        apart += 0.01 * ((now[0] == DIRECT[0]) != (now[1] == DIRECT[1]))
        assert network.now - start < 30
    return network.now - start, apart


@given(
    delay=st.floats(0.0, 0.15),
    jitter=st.floats(0.0, 0.1),
    loss=st.floats(0.0, 0.2),
    seed=st.integers(0, 2**32),
    cut=st.sampled_from([{(FIRST, SECOND)}, {(SECOND, FIRST)}, {(FIRST, SECOND), (SECOND, FIRST)}]),
)
# Paths die by bad luck too, if very seldom: the same examples each time.
@settings(max_examples=25, deadline=None, derandomize=True)
def test_lossy_path_is_kept_for_ten_minutes_and_a_dead_path_is_left_by_both_ends_together(
    delay: float, jitter: float, loss: float, seed: int, cut: set[tuple[str, str]]
) -> None:
    network = direct_pair(delay, jitter, seed)
    network.loss = loss
    before = revisions(network)
    network.run(600 + network.random.random())
    assert revisions(network) == before
    network.cut |= cut
    seconds, apart = leave(network)
    assert seconds <= 5
    assert apart <= 2 * (delay + jitter) + 0.5


def of_four_one_passes() -> st.SearchStrategy[Iterator[bool]]:
    """Return patterns of losses, for ever: never more than three packets in a row are lost."""
    bursts = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=30)
    return bursts.map(
        lambda pairs: cycle(
            [*chain.from_iterable([*repeat(True, lost), *repeat(False, carried)] for lost, carried in pairs)]
        )
    )


@given(delay=st.floats(0.0, 0.15), out=of_four_one_passes(), back=of_four_one_passes())
@settings(max_examples=50, deadline=None)
def test_path_on_which_one_of_four_packets_passes_is_kept_however_the_losses_fall(
    delay: float, out: Iterator[bool], back: Iterator[bool]
) -> None:
    network = direct_pair(delay)
    patterns = {(FIRST, SECOND): out, (SECOND, FIRST): back}
    network.loses = lambda *way: next(patterns[way]) if way in patterns else False
    before = revisions(network)
    network.run(300)
    assert revisions(network) == before


def test_bursts_of_four_packets_in_the_mean_end_paths_a_few_times_an_hour_at_most() -> None:
    network = direct_pair()
    lost: Counter[str] = Counter()
    bursting: set[str] = set()

    def loses(source: str, _target: str) -> bool:
        # netem's gemodel 5% 25%: all packets of a burst are lost, a sixth of all.
        flips = network.random.random() < (0.25 if source in bursting else 0.05)
        if flips:
            bursting.symmetric_difference_update({source})
        lost[source] += source in bursting
        return source in bursting

    network.loses = loses
    before = network.messages[FIRST]
    changes = sum(revisions(network))
    network.run(3600)
    # Each end changes its path when it leaves it and when it is back; relays' paths count too. There were 29 an hour
    # when a missing probe was asked for only once a second.
    assert sum(revisions(network)) - changes <= 4 * 4
    assert lost[FIRST] / (network.messages[FIRST] - before) == pytest.approx(1 / 6, abs=0.08)


@pytest.mark.parametrize("delay", [0.01, 0.15])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_end_that_has_heard_more_leaves_the_path_with_the_other_end(delay: float, loss: float) -> None:
    network = direct_pair(delay, seed=7)
    network.loss = loss
    network.run(60)
    # The first end still hears the second when the second has heard nothing for two seconds.
    network.cut.add((FIRST, SECOND))
    network.run(2.0)
    network.cut.add((SECOND, FIRST))
    seconds, apart = leave(network)
    assert seconds <= 3
    assert apart <= 2 * delay + 0.5


def test_end_that_sends_nothing_tells_the_other_that_it_has_left_the_path() -> None:
    network = direct_pair()
    network.talking.discard((SECOND, FIRST))
    network.run(70)
    network.cut.add((FIRST, SECOND))
    network.run(2.0)
    network.cut.add((SECOND, FIRST))
    assert leave(network)[1] <= 0.5


def test_probe_that_was_overtaken_ends_nothing_but_a_peer_that_begins_anew_does() -> None:
    network = direct_pair()
    node = network.nodes[FIRST]
    before = node.revision
    newest = round(network.now * 1000)
    for state, sent in ((UP, newest), (DOWN, newest - 100), (INIT, newest - 4000)):
        node.receive(probe_address(SECOND), Probe(state, sent, newest - 20, is_wanted=True), network.now)
        assert (hops(network), node.revision) == (DIRECT, before)
    node.receive(probe_address(SECOND), Probe(DOWN, 700, None, is_wanted=True), network.now)
    assert hops(network)[0] != DIRECT[0]


def test_call_that_was_sent_before_the_path_came_up_does_not_end_it() -> None:
    network = direct_pair()
    relays = {"10.10.0.1", "10.10.0.2"}
    network.cut_pair(2, 3)
    leave(network)
    network.cut.clear()
    # The relays are slow from now on: the calls come when the path is direct again.
    send = network._send

    def late(*message: object) -> None:
        network._at(network.now + 3.0, lambda: send(*message))  # type: ignore[arg-type]

    network._send = lambda source, target, message, size: (  # type: ignore[method-assign]
        late if source in relays and target in (FIRST, SECOND) else send
    )(source, target, message, size)
    while hops(network) != DIRECT:
        network.run(0.05)
    before = revisions(network)
    network.run(4)
    assert hops(network) == DIRECT
    assert revisions(network) == before
