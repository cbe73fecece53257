# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Path selection: the state machines of several nodes on a simulated network, with and without traffic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import (
    OverlayConfig,
    OverlayPeer,
    PodRoutes,
    probe_address,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.messages import (
    MOST_TARGETS,
    UP,
    Call,
    FormerProbe,
    FormerTable,
    Message,
    Probe,
    Rekey,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.path_selection import (
    CALLS_AT_ONCE,
    CALLS_PER_SECOND,
    IDLE_TICK,
    MOST_SESSIONS,
    TICK,
    Actions,
    Attempt,
    Outgoing,
    OverlayPaths,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.session import (
    DETECTION,
    LINGER,
    SETTLE,
    SLOW_DETECTION,
    SLOW_INTERVAL,
    USE_SECONDS,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from .overlay_network import Network, key, peer

IDLE = USE_SECONDS + LINGER + 15
"""Seconds after the last packet of a pair until nothing is kept of its direct path."""


def talking(public: int, nated: int, *pairs: tuple[int, int], delay: float = 0.0) -> Network:
    """Return a network in which these pairs have talked for 10 s."""
    network = Network(public, nated, delay=delay)
    network.run(5)
    for pair in pairs:
        network.talk(*pair)
    network.run(10)
    return network


def wanted(network: Network, index: int) -> list[str]:
    """Return the names of the peers with which a node keeps or tries a direct path."""
    node = network.nodes[network.peers[index].address]
    return [state.peer.name for state in node.states(network.now) if state.is_wanted]


# Cost follows traffic


def test_idle_pair_is_relayed_and_costs_nothing() -> None:
    network = Network(public=1, nated=20)
    network.run(30)
    assert network.route(1, 2) == ["n1", "n3"]
    assert wanted(network, 1) == ["n1"]
    before = dict(network.messages)
    network.run(100)
    assert 9 <= network.messages["10.10.0.2"] - before["10.10.0.2"] <= 10
    assert 20 * 9 <= network.messages["10.10.0.1"] - before["10.10.0.1"] <= 20 * 10


def test_idle_node_rests_until_its_next_probe_or_a_message_that_wants_something() -> None:
    network = Network(public=1, nated=2)
    network.run(30)
    relay, node = network.peers[0], network.nodes[network.peers[1].address]
    for second in range(20):
        network.run(1)
        due = node._sessions[relay.address].sent_at + SLOW_INTERVAL
        assert 0 < network._next_tick["10.10.0.2"] - network.now <= min(IDLE_TICK, due - network.now) + 1e-6, second
    node.tick(network.now)
    assert node.is_idle
    node.receive(probe_address(relay.address), Probe(UP, 0, is_wanted=False), network.now)
    assert node.is_idle
    node.receive(probe_address(relay.address), Probe(UP, 0, is_wanted=True), network.now)
    assert not node.is_idle
    assert node.interval <= TICK


def test_first_packet_of_an_idle_pair_takes_the_relay_and_the_pair_is_direct_within_two_seconds() -> None:
    network = Network(public=2, nated=6, delay=0.15)
    network.run(600)
    for first, second in ((2, 3), (4, 5), (6, 7)):
        assert network.route(first, second) == ["n1", f"n{second + 1}"]
        assert network.route(second, first) == ["n1", f"n{first + 1}"]
        network.talk(first, second)
        while network.route(first, second) != [f"n{second + 1}"]:
            # Until the path is direct at both ends, the relay carries the packets, but for one delay of the change.
            network.run(0.05)
        assert network.seconds_until(first, second, [f"n{second + 1}"], 0.4) <= 0.4
    network.run(30)
    assert network.route(2, 3) == ["n4"]


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.15])
def test_idle_pair_becomes_direct_within_two_seconds(delay: float) -> None:
    network = Network(public=2, nated=2, delay=delay)
    network.run(600)
    network.talk(2, 3)
    assert network.seconds_until(2, 3, ["n4"], 2) <= 2


def test_packets_of_one_end_alone_keep_both_ends_direct() -> None:
    network = Network(public=1, nated=2)
    network.run(20)
    network.talking.add(("10.10.0.2", "10.10.0.3"))
    network._use("10.10.0.2", "10.10.0.3")
    for _minute in range(5):
        network.run(60)
        assert network.route(1, 2) == ["n3"]
        assert network.route(2, 1) == ["n2"]


def test_pair_that_falls_idle_goes_back_to_the_relay_at_both_ends_at_once() -> None:
    network = talking(1, 2, (1, 2), delay=0.05)
    network.run(60)
    network.hush()
    apart = 0.0
    for _step in range(int(IDLE / 0.05)):
        network.run(0.05)
        apart += 0.05 * (not network.route(1, 2))
    assert network.route(1, 2) == ["n1", "n3"]
    assert wanted(network, 1) == wanted(network, 2) == ["n1"]
    assert apart <= 0.11
    assert set(network.nodes["10.10.0.2"].allowed_ips()) == {network.peers[0].public_key}
    assert network.nodes["10.10.0.2"]._sessions.keys() == {"10.10.0.1"}


def test_pair_is_woken_again_however_long_it_was_idle() -> None:
    network = talking(1, 2, (1, 2))
    for seconds in (USE_SECONDS + 0.5, USE_SECONDS + LINGER, 600, 3600):
        network.hush()
        network.run(seconds)
        assert network.route(1, 2)
        network.talk(1, 2)
        assert network.seconds_until(1, 2, ["n3"], 2) <= 2
        network.run(30)


def test_fifty_pairs_that_begin_at_once_are_direct_within_two_seconds() -> None:
    network = Network(public=2, nated=51, delay=0.03)
    network.run(60)
    for other in range(3, 53):
        network.talk(2, other)
    network.run(2)
    assert [other for other in range(3, 53) if network.route(2, other) != [f"n{other + 1}"]] == []


def test_member_that_calls_everybody_all_the_time_delays_no_other_pair_and_costs_them_little() -> None:
    nodes, seconds = 200, 30
    network = Network(
        public=1, nated=nodes, delay=0.02, knows=lambda node, other: min(node, other) < 2 or {node, other} == {2, 3}
    )
    network.run(60)
    before = dict(network.messages)
    relay, loud, *others = (peer.address for peer in network.peers)
    for number in range(seconds * 10):
        for first in range(0, len(others), MOST_TARGETS):
            call = Call(loud, tuple(others[first : first + MOST_TARGETS]), (relay,), None, ("192.168.1.66:51820",))
            network._send(loud, relay, call, 0)
        if number == 50:
            network.talk(2, 3)
        network.run(0.1)
        if number == 70:
            assert network.route(2, 3) == ["n4"]
    sent = {address: network.messages[address] - before[address] for address in (relay, *others)}
    # The relay passes on what it admits, and answers; a node that is called answers, and tries the path for 40 s.
    calls = CALLS_AT_ONCE + seconds * CALLS_PER_SECOND
    assert sent[relay] <= 4 * calls
    assert max(sent[address] for address in others[2:]) <= 4 * seconds


def test_node_keeps_a_bounded_number_of_direct_paths_and_reaches_the_others_through_a_relay() -> None:
    network = Network(public=1, nated=MOST_SESSIONS + 20, knows=lambda node, other: node < 2 or other < 2)
    network.run(20)
    for other in range(2, MOST_SESSIONS + 21):
        network.talk(1, other)
    network.run(20)
    assert len(wanted(network, 1)) == MOST_SESSIONS + 1
    assert all(network.route(1, other) for other in range(2, MOST_SESSIONS + 21))


def test_relay_that_carries_packets_is_watched_closely_and_others_are_not() -> None:
    network = Network(public=2, nated=2)
    network.cut_pair(2, 3)
    network.run(30)
    network.talk(2, 3)
    network.run(30)
    before = dict(network.messages)
    network.run(100)
    # A second each with the first relay, 10 s with the second, and calls every 15 s.
    assert 100 <= network.messages["10.10.0.3"] - before["10.10.0.3"] <= 150


# Paths of pairs in use


def test_nated_pairs_go_direct_once_both_hear_each_other() -> None:
    network = talking(1, 2, (1, 2))
    assert network.route(1, 2) == ["n3"]
    assert network.route(2, 1) == ["n2"]


def test_pair_that_cannot_be_punched_stays_on_the_relay() -> None:
    network = Network(public=1, nated=2)
    network.cut_pair(1, 2)
    network.talk(1, 2)
    network.run(120)
    assert network.route(1, 2) == ["n1", "n3"]


def test_dead_direct_path_is_left_within_seconds_and_used_again() -> None:
    network = talking(1, 2, (1, 2))
    network.run(60)
    network.cut_pair(1, 2)
    network.run(DETECTION + 1)
    assert network.route(1, 2) == ["n1", "n3"]
    assert network.route(2, 1) == ["n1", "n2"]
    network.cut.clear()
    network.run(6)
    assert network.route(1, 2) == ["n3"]


def test_path_that_fails_in_one_direction_is_left_by_both_ends() -> None:
    network = talking(1, 2, (1, 2))
    network.run(60)
    network.cut.add(("10.10.0.2", "10.10.0.3"))
    network.run(DETECTION + 1)
    assert network.route(1, 2) == ["n1", "n3"]
    assert network.route(2, 1) == ["n1", "n2"]


def test_path_that_keeps_failing_early_is_held_longer_each_time() -> None:
    network = talking(1, 2, (1, 2))
    waits = []
    for _round in range(3):
        network.cut_pair(1, 2)
        network.run(DETECTION + 1)
        network.cut.clear()
        start = network.now
        while network.hop(1, 2) != "n3":
            network.run(0.5)
        waits.append(network.now - start)
    assert waits[0] < waits[1] < waits[2]


@pytest.mark.parametrize("seed", range(4))
def test_path_with_a_fifth_of_its_packets_lost_does_not_flap_in_ten_minutes_and_is_left_when_it_dies(seed: int) -> None:
    network = Network(public=1, nated=2, delay=0.05, jitter=0.05, loss=0.2, seed=seed)
    network.run(20)
    network.talk(1, 2)
    network.seconds_until(1, 2, ["n3"], 30)
    network.run(60)
    network.seconds_until(1, 2, ["n3"], 30)
    revisions = [node.revision for node in network.nodes.values()]
    network.run(600)
    assert [node.revision for node in network.nodes.values()] == revisions
    network.cut_pair(1, 2)
    assert network.seconds_until(1, 2, ["n1", "n3"], 5) <= 5


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_idle_relay_is_not_lost_by_mistake_on_a_bad_uplink(loss: float) -> None:
    network = Network(public=2, nated=3, delay=0.15, jitter=0.1, loss=loss, seed=1)
    network.run(60)
    revisions = [node.revision for node in network.nodes.values()]
    network.run(1800)
    assert [node.revision for node in network.nodes.values()] == revisions


@pytest.mark.parametrize("seconds", [5, 8, 13, 20, 200])
def test_pair_goes_direct_as_soon_as_the_relay_sees_its_former_endpoints(seconds: float) -> None:
    network = talking(1, 2, (1, 2))
    network.run(60)
    # Symmetric from now on: a relay sees them at other ports, and they reach each other at none.
    network.cut_pair(1, 2)
    for index in (1, 2):
        network.move(index, f"203.0.113.{index + 1}:4000{index}")
    network.run(seconds)
    assert network.route(1, 2) == ["n1", "n3"]
    network.cut.clear()
    for index in (1, 2):
        network.move(index, f"203.0.113.{index + 1}:51820")
    assert network.seconds_until(1, 2, ["n3"], at_most=3) <= 3


def test_both_ends_try_at_once_after_one_of_them_moved() -> None:
    network = talking(1, 2, (1, 2))
    network.cut_pair(1, 2)
    network.run(200)
    network.cut.clear()
    network.move(1, "203.0.113.77:51820")
    assert network.seconds_until(1, 2, ["n3"], at_most=4) <= 4


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("first", [1, 2])
def test_ends_that_move_shortly_after_each_other_find_each_other(first: int, offset: float) -> None:
    network = talking(1, 2, (1, 2))
    network.cut_pair(1, 2)
    network.run(200)
    network.cut.clear()
    # The relay passes the first node's call to the second's former endpoint, if the second has moved by then.
    network.move(first, "203.0.113.77:51820")
    network.run(offset)
    network.move(3 - first, "203.0.113.78:51820")
    assert network.seconds_until(1, 2, ["n3"], at_most=3) <= 3


def test_held_path_is_used_again_soon_after_one_end_moved() -> None:
    network = talking(1, 2, (1, 2))
    for _round in range(6):
        network.cut.clear()
        network.seconds_until(1, 2, ["n3"], at_most=70)
        network.cut_pair(1, 2)
        network.run(DETECTION + 1)
    network.cut.clear()
    network.run(10)
    assert network.route(1, 2) == ["n1", "n3"]
    network.move(1, "203.0.113.77:51820")
    assert network.seconds_until(1, 2, ["n3"], at_most=SETTLE + 4) >= SETTLE


@pytest.mark.parametrize("moves", [False, True])
def test_both_ends_leave_the_relay_together_when_a_hold_ends(moves: bool) -> None:
    network = talking(1, 2, (1, 2))
    for _round in range(2):
        network.cut_pair(1, 2)
        network.run(DETECTION + 1)
        network.cut.clear()
        network.seconds_until(1, 2, ["n3"], at_most=10)
    # One end notices a second earlier than the other, and holds the path so much longer or shorter.
    network.cut.add(("10.10.0.2", "10.10.0.3"))
    network.run(1)
    network.cut_pair(1, 2)
    network.run(DETECTION + 1)
    network.cut.clear()
    if moves:
        network.move(1, "203.0.113.77:51820")
        network.run(1.5)
    while network.route(1, 2) != ["n3"]:
        assert network.route(1, 2) == ["n1", "n3"]
        assert network.route(2, 1) == ["n1", "n2"]
        network.run(0.5)
    assert network.route(2, 1) == ["n2"]


# Relays


def test_both_ends_use_the_second_relay_while_the_first_is_down() -> None:
    network = Network(public=2, nated=2)
    network.cut_pair(2, 3)
    network.talk(2, 3)
    network.run(10)
    assert network.route(2, 3) == ["n1", "n4"]
    for other in (1, 2, 3):
        network.cut_pair(0, other)
    network.run(DETECTION + 1)
    assert network.route(2, 3) == ["n2", "n4"]
    assert network.route(3, 2) == ["n2", "n3"]
    network.cut.clear()
    network.cut_pair(2, 3)
    network.run(20)
    assert network.route(2, 3) == ["n1", "n4"]


def test_idle_pairs_have_left_a_dead_relay_before_they_are_needed() -> None:
    network = Network(public=2, nated=4)
    network.run(30)
    for other in range(1, 6):
        network.cut_pair(0, other)
    network.run(SLOW_DETECTION + 1)
    assert network.route(2, 3) == ["n2", "n4"]
    assert network.route(4, 5) == ["n2", "n6"]


def test_pair_that_begins_while_its_relay_is_dead_and_nobody_knows_heals_in_seconds() -> None:
    network = Network(public=2, nated=2, delay=0.02)
    network.cut_pair(2, 3)
    network.run(32)
    for other in range(1, 4):
        network.cut_pair(0, other)
    network.talk(2, 3)
    assert network.seconds_until(2, 3, ["n2", "n4"], DETECTION + 1) <= DETECTION + 1


def test_nodes_that_reach_different_relays_use_both() -> None:
    network = Network(public=2, nated=2)
    network.cut_pair(2, 3)
    network.cut_pair(0, 3)
    network.cut_pair(1, 2)
    network.run(20)
    network.talk(2, 3)
    network.run(5)
    assert network.route(2, 3) == ["n1", "n2", "n4"]
    assert network.route(3, 2) == ["n2", "n1", "n3"]


def test_ends_that_have_one_relay_in_common_use_it() -> None:
    network = Network(public=3, nated=2)
    network.cut_pair(3, 4)
    network.cut_pair(0, 3)
    network.cut_pair(1, 4)
    network.run(20)
    network.talk(3, 4)
    network.run(3)
    assert network.route(3, 4) == ["n3", "n5"]
    assert network.route(4, 3) == ["n3", "n4"]


def test_relay_that_restarts_finds_two_hundred_nodes_again() -> None:
    network = Network(
        public=2, nated=200, delay=0.02, knows=lambda node, other: node < 2 or other < 2 or {node, other} == {2, 3}
    )
    network.run(30)
    network.talk(2, 3)
    network.run(5)
    before = dict(network.sent)
    network.start(0)
    network.run(1)
    assert network.route(2, 3) == ["n4"]
    assert [other for other in range(2, 202) if network.route(0, other) != [f"n{other + 1}"]] == []
    # Its wireguard-go too: it tries the endpoints that it knows.
    network.restart_device(0)
    network.run(SLOW_DETECTION + 2)
    assert [other for other in range(2, 202) if network.route(0, other) != [f"n{other + 1}"]] == []
    assert network.sent["10.10.0.1"] - before["10.10.0.1"] < 200 * 1500


def test_used_peer_that_no_relay_reaches_has_no_path_until_it_is_back() -> None:
    network = talking(2, 2, (2, 3))
    network.stop(3)
    network.run(60)
    node = network.nodes["10.10.0.3"]
    assert {state.peer.name: state.path for state in node.states(network.now)}["n4"] is None
    network.start(3)
    network.run(20)
    assert network.route(2, 3) == ["n4"]


def test_pod_subnets_follow_their_node() -> None:
    network = talking(1, 3, (1, 2))
    node = network.nodes["10.10.0.2"]
    allowed = node.allowed_ips()
    assert allowed[network.peers[2].public_key] == ("247.10.0.3/32", "10.10.0.3/32", "10.244.2.0/24")
    assert network.nodes["10.10.0.1"].allowed_ips()[network.peers[2].public_key] == allowed[network.peers[2].public_key]
    assert node._owner_of("10.244.2.77") == node._owner_of("10.10.0.3") == "10.10.0.3"
    assert node._owner_of("10.244.1.7") is node._owner_of("192.0.2.1") is node._owner_of("2001:db8::1") is None


def test_no_peer_may_send_from_this_nodes_own_addresses() -> None:
    network = talking(1, 2, (1, 2))
    for prefixes in network.nodes["10.10.0.2"].allowed_ips().values():
        for own in ("10.10.0.2/32", "10.244.1.0/24"):
            assert own not in prefixes
    assert network.hop(1, 1) is None


# Versions


class FormerPaths(OverlayPaths):
    """Stands for an agent of a former version: probes all that it hears each second, knows no polls and no calls.

    It tries the endpoints that it knows, and relays what it cannot reach through the first relay that is up.
    """

    def __init__(self, config: OverlayConfig, routes: PodRoutes, now: float) -> None:
        super().__init__(config, routes, now)
        self.heard: dict[str, tuple[float, str]] = {}
        self.states_of: dict[str, str] = {}
        self.tried: dict[str, float] = {}
        self._sessions = {
            other.address: self._new_session(other, is_lasting=other.is_relay or config.is_relay)
            for other in config.peers
        }
        for session in self._sessions.values():
            session.is_configured = True

    def _state(self, address: str, now: float) -> str:
        at, remote = self.heard.get(address, (-100.0, "down"))
        state = "down" if now - at >= DETECTION else "init" if remote == "down" else "up"
        self.states_of[address] = self._sessions[address].state = state
        return state

    def _say(self, other: OverlayPeer, now: float) -> Outgoing:
        return Outgoing(other, FormerProbe(self._state(other.address, now), int(now * 1000)))

    def tick(self, now: float) -> Actions:
        attempts, outgoing = [], []
        for other in self._config.peers:
            state = self._state(other.address, now)
            session = self._sessions[other.address]
            endpoint = other.endpoint or session.endpoint
            if state == "down" and endpoint and now - self.tried.get(other.address, 0.0) >= 5:
                self.tried[other.address] = now
                attempts.append(Attempt(other, endpoint, other.public_key))
            if state != "down" or (attempts and attempts[-1].peer is other):
                outgoing.append(self._say(other, now))
        self._look_at_relays(now)
        return Actions(tuple(attempts), tuple(outgoing))

    def used(self, destinations: Iterable[str], now: float) -> Actions:
        return Actions()

    def receive(self, source: str, message: Message, now: float) -> Actions:
        if not isinstance(message, FormerProbe):
            # "not a message of the overlay": a line in its log.
            return Actions()
        address = self._by_probe[source]
        before = self._state(address, now)
        self.heard[address] = (now, message.state)
        changed = self._state(address, now) != before
        self._look_at_relays(now)
        return Actions(outgoing=(self._say(self._peers[address], now),) if changed else ())

    @property
    def interval(self) -> float:
        return 1.0


class MixedNetwork(Network):
    """A network in which some nodes run a former version; ``former`` has their numbers."""

    former: frozenset[int] = frozenset()

    def new_paths(self, index: int, config: OverlayConfig) -> OverlayPaths:
        return (FormerPaths if index in self.former else OverlayPaths)(config, self.routes, self.now)


@settings(max_examples=25, deadline=None)
@given(former=st.sets(st.integers(0, 4)), order=st.permutations(range(5)))
def test_all_pairs_reach_each_other_at_each_step_of_an_upgrade(former: set[int], order: list[int]) -> None:
    network = MixedNetwork(2, 3, starts=False)
    network.former = frozenset(former)
    for index in range(5):
        network.start(index)
    network.run(20)
    for first, second in ((2, 3), (3, 4), (0, 4), (2, 1)):
        network.talk(first, second)
    for index in [None, *order]:
        if index is not None:
            network.former -= {index}
            network.start(index)
        network.run(15)
        for first in range(5):
            for second in range(5):
                assert first == second or network.route(first, second), (first, second, network.former)
    network.run(15)
    assert network.route(2, 3) == ["n4"]


def test_table_of_a_former_relay_is_ignored() -> None:
    network = talking(1, 2, (1, 2))
    assert network.nodes["10.10.0.2"].receive(probe_address("10.10.0.1"), FormerTable(), network.now) == Actions()


def test_relay_tells_nodes_of_former_versions_alone_whom_it_reaches() -> None:
    network = MixedNetwork(1, 3, starts=False)
    network.former = frozenset({1})
    for index in range(4):
        network.start(index)
    network.run(10)
    relay = network.nodes["10.10.0.1"]
    relay.receive(probe_address("10.10.0.2"), FormerProbe("up", 1), network.now + 13)
    told = [
        (outgoing.peer.name, address)
        for second in range(30)
        for outgoing in relay.tick(network.now + 13 + second / 10).outgoing
        if isinstance(outgoing.message, FormerTable)
        for address, _endpoint in outgoing.message.reached
    ]
    assert sorted(told) == [("n2", "10.10.0.2"), ("n2", "10.10.0.3"), ("n2", "10.10.0.4")]


def test_peer_that_goes_back_to_a_former_version_is_spoken_to_in_its_messages() -> None:
    network = talking(1, 1)
    node, relay = network.nodes["10.10.0.2"], probe_address("10.10.0.1")
    now = network.now + 20
    node.receive(relay, FormerProbe("init", 1), now)
    answers = [outgoing.message for outgoing in node.tick(now + 1).outgoing]
    assert FormerProbe in [type(message) for message in answers]
    node.receive(relay, Probe(UP, 1, is_wanted=True), now + 2)
    assert [type(outgoing.message) for outgoing in node.tick(now + 4).outgoing] == [Probe]


# Whatever happens


def test_message_of_an_unknown_sender_is_ignored() -> None:
    network = Network(public=1, nated=1)
    assert network.nodes["10.10.0.1"].receive("247.10.9.9", Probe("down", 1), network.now) == Actions()


def test_peers_that_stay_keep_their_sessions_over_a_new_configuration() -> None:
    network = talking(1, 3, (1, 2), (1, 3))
    node = network.nodes["10.10.0.2"]
    remaining = tuple(p for p in node._config.peers if p.name != "n3")
    node.configure(replace(node._config, peers=remaining), PodRoutes(), network.now)
    assert [state.path for state in node.states(network.now)] == ["direct", "direct"]
    assert set(node.allowed_ips()) == {p.public_key for p in remaining}


def test_agent_that_is_started_again_keeps_the_paths_in_use() -> None:
    network = talking(1, 3, (1, 2), delay=0.02)
    network.start(1)
    network.run(1)
    assert network.route(1, 2) == ["n3"]
    assert network.route(2, 1) == ["n2"]


def test_agent_that_is_started_again_asks_more_than_once_before_it_replaces_sessions() -> None:
    network = talking(1, 3, (1, 2), delay=0.02)
    network.cut_pair(0, 1)
    network.cut_pair(1, 2)
    network.start(1)
    network.run(0.7)
    network.cut.clear()
    network.run(0.7)
    assert network.route(1, 2) == ["n3"]
    assert network.nodes["10.10.0.2"]._sessions["10.10.0.3"].up_since is not None


def test_agents_of_a_pair_that_are_started_again_apart_lose_no_packet() -> None:
    network = talking(1, 3, (1, 2), delay=0.02)
    network.stop(1)
    network.stop(2)
    network.run(0.5)
    for index, seconds in ((1, 2.5), (2, 5.0)):
        network.start(index)
        for _look in range(round(seconds / 0.1)):
            network.run(0.1)
            assert network.route(1, 2) == ["n3"]
            assert network.route(2, 1) == ["n2"]


def test_path_that_died_while_the_agent_did_not_run_is_left_in_time() -> None:
    network = talking(1, 3, (1, 2), delay=0.02)
    network.stop(1)
    network.cut_pair(1, 2)
    network.run(2)
    network.start(1)
    assert network.seconds_until(1, 2, ["n1", "n3"], at_most=5) > 0


def test_relay_that_carried_packets_is_asked_first_by_the_next_agent() -> None:
    network = Network(2, 2, delay=0.02)
    network.run(5)
    for dead, way in ((0, ["n2", "n4"]), (1, ["n1", "n4"])):
        network.cut.clear()
        network.run(30)
        network.cut_pair(dead, 2)
        network.cut_pair(dead, 3)
        network.run(30)
        network.start(2)
        for _look in range(20):
            assert network.route(2, 3) == way
            network.run(0.1)


def test_relay_without_an_agent_carries_nothing_after_the_restart_of_a_nodes_agent() -> None:
    network = talking(2, 2, (2, 3), delay=0.02)
    network.cut_pair(2, 3)
    network.stop(0)
    network.run(40)
    assert network.route(2, 3) == ["n2", "n4"]
    network.start(2)
    for _look in range(50):
        assert network.route(2, 3) == ["n2", "n4"]
        network.run(0.1)


@pytest.mark.parametrize("seed", range(4))
def test_agents_that_all_restart_at_once_on_lossy_uplinks_keep_the_sessions_with_their_relays(seed: int) -> None:
    network = Network(2, 12, delay=0.02, loss=0.2, seed=seed)
    network.run(30)
    for index in range(14):
        network.start(index)
    relays = {peer.address for peer in network.peers[:2]}
    up: set[tuple[str, str]] = set()
    for _look in range(300):
        network.run(0.1)
        now_up = {
            (name, address)
            for name, node in network.nodes.items()
            for address, session in node._sessions.items()
            if address in relays and session.is_up()
        }
        assert up - now_up == set()
        up = now_up
    assert len(up) == 12 * 2 + 2


def test_everybody_is_direct_where_the_kernel_does_not_say_what_is_used() -> None:
    network = Network(public=1, nated=3)
    for index in range(1, 4):
        node = network.nodes[network.peers[index].address]
        node.assume_all_used(True, network.now)
    network.run(300)
    assert [network.route(1, 2), network.route(1, 3), network.route(2, 3)] == [["n3"], ["n4"], ["n4"]]


@settings(max_examples=30, deadline=None)
@given(
    public=st.integers(1, 3),
    nated=st.integers(1, 4),
    cuts=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=8),
)
def test_every_pair_with_a_common_relay_communicates_whatever_is_cut(
    public: int, nated: int, cuts: Iterable[tuple[int, int, bool]]
) -> None:
    network = Network(public, nated)
    count = public + nated
    network.run(10)
    for first in range(count):
        for second in range(first):
            network.talk(first, second)
    network.run(20)
    for first, second, both_ways in cuts:
        if first != second and max(first, second) < count:
            a, b = network.peers[first].address, network.peers[second].address
            network.cut |= {(a, b), (b, a)} if both_ways else {(a, b)}
    network.run(60)

    def linked(first: int, second: int) -> bool:
        a, b = network.peers[first].address, network.peers[second].address
        return (a, b) not in network.cut and (b, a) not in network.cut

    for first in range(count):
        for second in range(count):
            others = set(range(public)) - {first, second}
            if first != second and (
                linked(first, second) or any(linked(first, r) and linked(r, second) for r in others)
            ):
                assert network.route(first, second), (first, second, network.cut)


@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["talk", "hush", "cut", "heal", "move", "restart"]), st.integers(0, 5), st.integers(0, 5)
        ),
        max_size=12,
    ),
    seed=st.integers(0, 1000),
)
def test_allowed_ips_are_unambiguous_and_change_with_the_revision_alone(
    steps: list[tuple[str, int, int]], seed: int
) -> None:
    network = Network(2, 4, delay=0.02, loss=0.02, seed=seed)
    known: dict[str, tuple[int, dict[str, tuple[str, ...]]]] = {}
    for what, first, second in steps:
        if what == "talk" and first != second:
            network.talk(first, second)
        elif what == "hush":
            network.hush()
        elif what == "cut":
            network.cut_pair(first, second)
        elif what == "heal":
            network.cut.clear()
        elif what == "move" and first >= 2:
            network.move(first, f"203.0.113.{100 + second}:51820")
        elif what == "restart":
            network.start(first)
        for _step in range(12):
            network.run(0.7)
            for address, node in network.nodes.items():
                allowed = node.allowed_ips()
                prefixes = [prefix for peers in allowed.values() for prefix in peers]
                assert len(prefixes) == len(set(prefixes))
                before = known.get(address)
                if before is not None and before[0] == id(node) + node.revision:
                    assert before[1] == allowed
                known[address] = (id(node) + node.revision, allowed)
    network.cut.clear()
    network.run(75)
    for first in range(6):
        for second in range(6):
            assert first == second or network.route(first, second), (first, second)


# Rotation of keys


def test_no_pair_loses_its_path_while_all_nodes_change_their_keys() -> None:
    network = talking(2, 3, (2, 3), (3, 4), delay=0.02)
    ways = {pair: network.route(*pair) for pair in ((2, 3), (3, 4), (2, 4), (0, 2), (4, 1))}
    network.announce_keys(1)
    network.run(1)
    for index in range(5):
        network.change_key(index)
        network.run(0.06)
        assert {pair: network.route(*pair) for pair in ways} == ways, index
    network.forget_keys()
    assert {pair: network.route(*pair) for pair in ways} == ways
    for node in network.nodes.values():
        assert set(node.allowed_ips()) <= {key(index, 1) for index in range(1, 6)}
    network.run(100)
    assert {pair: network.route(*pair) for pair in ways} == ways


def test_next_key_gets_no_allowed_ips_before_its_node_changes() -> None:
    network = talking(1, 2, (1, 2))
    network.announce_keys(1)
    allowed = network.nodes["10.10.0.2"].allowed_ips()
    assert {allowed[key(1, 1)], allowed[key(3, 1)]} == {()}
    assert allowed[key(1)]
    assert allowed[key(3)]


def test_change_whose_notice_is_lost_is_seen_by_its_handshake() -> None:
    network = talking(1, 2, (1, 2))
    network.announce_keys(1)
    network.loses = lambda _source, _target: True
    network.change_key(1)
    network.loses = lambda _source, _target: False
    assert network.route(2, 1) == network.route(0, 1) == []
    network.run(3)
    assert network.route(2, 1) == ["n2"]
    # The relay is not used: the node asks it every 10 s.
    network.run(SLOW_INTERVAL)
    assert network.route(0, 1) == ["n2"]


def test_node_that_begins_anew_after_a_change_finds_the_key_by_trying_both() -> None:
    network = talking(1, 2, (1, 2))
    network.announce_keys(1)
    network.stop(2)
    network.change_key(0)
    network.run(200)
    network.restart_device(2)
    network.start(2)
    network.run(10)
    assert network.route(2, 0) == ["n1"]
    assert network.route(2, 1) == ["n2"]


@pytest.mark.parametrize("seed", range(6))
def test_ends_that_both_doubt_the_other_ones_key_find_the_keys_that_fit(seed: int) -> None:
    network = Network(2, 4, delay=0.02, loss=0.05, seed=seed)
    network.run(5)
    network.announce_keys(1)
    network.change_key(0)
    network.cut_pair(0, 2)
    network.run(2)
    network.restart_device(0)
    network.cut.clear()
    network.run(40)
    assert network.route(2, 0) == ["n1"]
    assert network.route(0, 2) == ["n3"]


@pytest.mark.parametrize("peer_index", [1, 3])
def test_handshakes_of_a_peer_without_an_agent_do_not_hasten_attempts(peer_index: int) -> None:
    network = talking(2, 2, (2, peer_index), delay=0.02)
    network.announce_keys(1)
    network.stop(peer_index)
    network.run(10)
    node, silent = network.peers[2].address, network.peers[peer_index]
    attempts = []
    carry = network._carry

    def carry_and_answer(source: str, actions: Actions) -> None:
        for attempt in actions.attempts:
            if (source, attempt.peer.address) == (node, silent.address):
                attempts.append(network.now)
                # The peer's WireGuard answers, and WireGuard forgets the handshake of the session before.
                network.handshakes[node] = {silent.public_key: int(network.now)}
        carry(source, actions)

    network._carry = carry_and_answer  # type: ignore[method-assign]
    sent = network.messages[node]
    network.run(300)
    assert 10 < len(attempts) < 30
    assert network.messages[node] - sent < 1500


def test_session_that_an_attempt_replaces_is_no_handshake() -> None:
    network = Network(1, 2, delay=0.02)
    network.run(5)
    network.announce_keys(1)
    node = network.nodes["10.10.0.2"]
    node.restarted(network.now)
    node.note_handshakes({key(1): 1000, key(1, 1): 1001})
    assert node._sessions["10.10.0.1"].key == key(1, 1)
    node.note_handshakes({key(1): 1000})
    assert node._sessions["10.10.0.1"].key == key(1, 1)


def test_notice_alone_moves_nothing_and_lets_the_handshake_be_looked_for_now_and_then() -> None:
    network = talking(1, 2, (1, 2))
    network.announce_keys(1)
    node, now = network.nodes["10.10.0.2"], network.now
    before = node.allowed_ips()
    node.receive(probe_address("10.10.0.3"), Rekey(), now)
    assert node.allowed_ips() == before
    assert node.expects_handshake(now)
    node.receive(probe_address("10.10.0.3"), Rekey(), now + 2)
    assert not node.expects_handshake(now + 4)
    node.receive(probe_address("10.10.0.3"), Rekey(), now + 40)
    assert node.expects_handshake(now + 41)
    node.note_handshakes({key(3): int(now), key(3, 1): int(now)})
    assert node.allowed_ips()[key(3)] == ()
    assert set(node.allowed_ips()[key(3, 1)]) == set(before[key(3)])


def test_notice_of_a_peer_without_a_next_key_changes_nothing() -> None:
    network = talking(1, 2, (1, 2))
    node = network.nodes["10.10.0.2"]
    before, revision = node.allowed_ips(), node.revision
    assert node.receive(probe_address("10.10.0.3"), Rekey(), network.now) == Actions()
    assert (node.allowed_ips(), node.revision) == (before, revision)


def test_peer_that_is_heard_with_its_next_key_is_not_taken_back_by_its_former_key() -> None:
    network = talking(1, 2, (1, 2))
    network.announce_keys(1)
    network.change_key(2)
    network.run(1)
    before = network.nodes["10.10.0.2"].allowed_ips()
    network.nodes["10.10.0.2"].note_handshakes({key(3): int(network.now) + 5, key(3, 1): int(network.now)})
    assert network.nodes["10.10.0.2"].allowed_ips() == before


@settings(deadline=None, max_examples=30)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                ["change", "change", "talk", "restart", "reboot", "cut", "heal", "again", "forget", "lose"]
            ),
            st.integers(0, 5),
            st.integers(0, 5),
        ),
        max_size=14,
    ),
    pauses=st.lists(st.floats(0.0, 8.0), min_size=14, max_size=14),
    seed=st.integers(0, 1000),
)
def test_rotation_that_is_cut_off_anywhere_loses_nobody_and_allowed_ips_stay_unambiguous(
    steps: list[tuple[str, int, int]], pauses: list[float], seed: int
) -> None:
    network = Network(2, 4, delay=0.02, loss=0.05, seed=seed)
    network.run(5)
    generation = 1
    network.announce_keys(generation)
    for (what, first, second), pause in zip(steps, pauses, strict=False):
        if what == "change" and network.peers[first].next_public_key is not None:
            network.change_key(first)
        elif what == "talk" and first != second:
            network.talk(first, second)
        elif what == "restart":
            network.start(first)
        elif what == "reboot":
            network.restart_device(first)
        elif what == "cut":
            network.cut_pair(first, second)
        elif what == "heal":
            network.cut.clear()
        elif what == "forget":
            network.forget_keys()
        elif what == "again" and network.peers[first].next_public_key is None:
            generation += 1
            network.announce_keys(generation)
        elif what == "lose" and network.peers[first].next_public_key is not None:
            network.loses = lambda _source, _target: True
            network.change_key(first)
            network.loses = lambda _source, _target: network.random.random() < network.loss
        network.run(pause)
        for node in network.nodes.values():
            prefixes = [prefix for peers in node.allowed_ips().values() for prefix in peers]
            assert len(prefixes) == len(set(prefixes))
    network.cut.clear()
    network.run(75)
    pairs = [(first, second) for first in range(6) for second in range(6) if first != second]
    assert [pair for pair in pairs if not network.route(*pair)] == []
    network.forget_keys()
    network.run(1)
    assert [pair for pair in pairs if not network.route(*pair)] == []


def test_simulated_peers_are_distinct() -> None:
    assert len({peer(index, index < 3).public_key for index in range(1, 1001)}) == 1000
