# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Path selection: the state machines of several nodes on a simulated network, in steps of half a second."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import (
    OverlayConfig,
    OverlayPeer,
    PodRoutes,
    probe_address,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.messages import decode, encode
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.path_selection import (
    DETECTION,
    SETTLE,
    Actions,
    Outgoing,
    OverlayPaths,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def peer(index: int, is_public: bool = False) -> OverlayPeer:
    key = base64.b64encode(bytes([index]) * 32).decode()
    return OverlayPeer(f"n{index}", key, f"10.10.0.{index}", f"198.51.100.{index}:51820" if is_public else None)


class Network:
    """Simulates WireGuard and NATs: a pair communicates once both nodes, or the one behind a NAT, sent to the other."""

    def __init__(self, public: int, nated: int) -> None:
        self.peers = [peer(index + 1, index < public) for index in range(public + nated)]
        self.now = 1000.0
        routes = PodRoutes(("10.244.0.0/16",), {p.name: (f"10.244.{i}.0/24",) for i, p in enumerate(self.peers)})
        self.nodes = {
            p.address: OverlayPaths(
                OverlayConfig(
                    node=p.name,
                    address=p.address,
                    host_cidr="10.10.0.0/16",
                    public_key=p.public_key,
                    endpoint=p.endpoint,
                    peers=tuple(other for other in self.peers if other is not p),
                ),
                routes,
                self.now,
            )
            for p in self.peers
        }
        self.endpoints = {p.address: p.endpoint or f"203.0.113.{p.name[1:]}:51820" for p in self.peers}
        """The ``address:port`` at which the internet sees each node."""
        self.devices: dict[tuple[str, str], str] = {}
        """The endpoint to which the WireGuard of the first node sends packets for the second."""
        self.opened: set[tuple[str, str]] = set()
        """Pairs of which the first node has sent to the second's endpoint, so that its NAT lets answers in."""
        self.cut: set[tuple[str, str]] = set()
        """Pairs (from, to): no packet passes from the first node to the second."""

    def cut_pair(self, first: int, second: int) -> None:
        a, b = self.peers[first].address, self.peers[second].address
        self.cut |= {(a, b), (b, a)}

    def move(self, index: int, endpoint: str) -> None:
        """Let the internet see a node at another endpoint, with a NAT that has no mappings."""
        address = self.peers[index].address
        self.endpoints[address] = endpoint
        self.opened = {(source, target) for source, target in self.opened if source != address}

    def seconds_until(self, source: int, target: int, way: list[str], at_most: float) -> float:
        """Return the seconds until packets take this route in both directions."""
        start = self.now
        ways = {(source, target): way, (target, source): [*way[:-1][::-1], f"n{source + 1}"]}
        while any(self.route(*ends) != wanted for ends, wanted in ways.items()):
            self.run(0.5)
            assert self.now - start <= at_most
        return self.now - start

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            for address, node in self.nodes.items():
                node.observe({p.public_key: self._seen(address, p) for p in self.peers})
                self._carry(address, node.tick(self.now))
            self.now += 0.5

    def hop(self, source: int, target: int) -> str | None:
        allowed = self.nodes[self.peers[source].address].allowed_ips(self.now)
        holders = [key for key, prefixes in allowed.items() if f"{self.peers[target].address}/32" in prefixes]
        assert len(holders) == 1
        return next(p.name for p in self.peers if p.public_key == holders[0])

    def route(self, source: int, target: int) -> list[str]:
        """Return the nodes that a packet passes; nothing if WireGuard would drop it at a hop for its source address."""
        way, at = [], source
        while at != target:
            hop = int(self.hop(at, target)[1:]) - 1
            back = self.hop(hop, source) if hop != source else None
            if (self.peers[at].address, self.peers[hop].address) in self.cut or back != self.peers[at].name:
                return []
            way.append(self.peers[hop].name)
            at = hop
            if len(way) > len(self.peers):
                return []
        return way

    def _seen(self, observer: str, target: OverlayPeer) -> str | None:
        return self.devices.get((observer, target.address))

    def _carry(self, sender: str, actions: Actions) -> None:
        for attempt in actions.attempts:
            self.devices[sender, attempt.peer.address] = attempt.endpoint
        queue = [(sender, outgoing) for outgoing in actions.outgoing]
        while queue:
            source, outgoing = queue.pop(0)
            if self.devices.get((source, outgoing.peer.address)) == self.endpoints[outgoing.peer.address]:
                self.opened.add((source, outgoing.peer.address))
            if self._passes(source, outgoing):
                self.devices[outgoing.peer.address, source] = self.endpoints[source]
                node = self.nodes[outgoing.peer.address]
                answer = node.receive(probe_address(source), decode(encode(outgoing.message)), self.now)
                queue += [(outgoing.peer.address, further) for further in answer.outgoing]

    def _passes(self, source: str, outgoing: Outgoing) -> bool:
        target = outgoing.peer
        if (source, target.address) in self.cut:
            return False
        is_open, is_open_back = (source, target.address) in self.opened, (target.address, source) in self.opened
        source_is_public = any(p.endpoint for p in self.peers if p.address == source)
        return (is_open and is_open_back) or (is_open and target.is_relay) or (is_open_back and source_is_public)


def test_nated_pairs_go_direct_once_both_hear_each_other() -> None:
    network = Network(public=1, nated=2)
    assert network.hop(1, 2) == "n1"
    network.run(5)
    assert network.route(1, 2) == ["n3"]
    assert network.route(2, 1) == ["n2"]


def test_pair_that_cannot_be_punched_stays_on_the_relay() -> None:
    network = Network(public=1, nated=2)
    network.cut_pair(1, 2)
    network.run(120)
    assert network.route(1, 2) == ["n1", "n3"]


def test_dead_direct_path_is_left_within_seconds_and_used_again() -> None:
    network = Network(public=1, nated=2)
    network.run(60)
    network.cut_pair(1, 2)
    network.run(DETECTION + 1)
    assert network.route(1, 2) == ["n1", "n3"]
    assert network.route(2, 1) == ["n1", "n2"]
    network.cut.clear()
    network.run(6)
    assert network.route(1, 2) == ["n3"]


def test_path_that_fails_in_one_direction_is_left_by_both_ends() -> None:
    network = Network(public=1, nated=2)
    network.run(60)
    network.cut.add(("10.10.0.2", "10.10.0.3"))
    network.run(DETECTION + 1)
    assert network.route(1, 2) == ["n1", "n3"]
    assert network.route(2, 1) == ["n1", "n2"]


def test_path_that_keeps_failing_early_is_held_longer_each_time() -> None:
    network = Network(public=1, nated=2)
    network.run(10)
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


@pytest.mark.parametrize("seconds", [5, 8, 13, 20, 200])
def test_pair_goes_direct_as_soon_as_the_relay_sees_its_former_endpoints(seconds: float) -> None:
    network = Network(public=1, nated=2)
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
    network = Network(public=1, nated=2)
    network.cut_pair(1, 2)
    network.run(200)
    network.cut.clear()
    network.move(1, "203.0.113.77:51820")
    assert network.seconds_until(1, 2, ["n3"], at_most=4) <= 4


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("first", [1, 2])
def test_node_that_moved_gets_the_tables_it_missed(first: int, offset: float) -> None:
    network = Network(public=1, nated=2)
    network.cut_pair(1, 2)
    network.run(200)
    network.cut.clear()
    # The relay sends its report of the first node to the second's former endpoint, if the second has moved by then.
    network.move(first, "203.0.113.77:51820")
    network.run(offset)
    network.move(3 - first, "203.0.113.78:51820")
    assert network.seconds_until(1, 2, ["n3"], at_most=3) <= 3


def test_held_path_is_used_again_soon_after_one_end_moved() -> None:
    network = Network(public=1, nated=2)
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
    network = Network(public=1, nated=2)
    network.run(10)
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


def test_both_ends_use_the_second_relay_while_the_first_is_down() -> None:
    network = Network(public=2, nated=2)
    network.cut_pair(2, 3)
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


def test_nodes_that_reach_different_relays_use_both() -> None:
    network = Network(public=2, nated=2)
    network.cut_pair(2, 3)
    network.cut_pair(0, 3)
    network.cut_pair(1, 2)
    network.run(20)
    assert network.route(2, 3) == ["n1", "n2", "n4"]
    assert network.route(3, 2) == ["n2", "n1", "n3"]


def test_pod_subnets_follow_their_node() -> None:
    network = Network(public=1, nated=2)
    network.run(5)
    for prefixes in network.nodes["10.10.0.2"].allowed_ips(network.now).values():
        hosts = {prefix for prefix in prefixes if prefix.startswith("10.10.")}
        pods = {prefix for prefix in prefixes if prefix.startswith("10.244.")}
        assert {int(host.split(".")[3].split("/")[0]) - 1 for host in hosts} == {int(pod.split(".")[2]) for pod in pods}


def test_message_of_an_unknown_sender_is_ignored() -> None:
    network = Network(public=1, nated=1)
    message = network.nodes["10.10.0.2"].tick(network.now).outgoing[0].message
    assert network.nodes["10.10.0.1"].receive("247.10.9.9", message, network.now) == Actions()


def test_peers_that_stay_keep_their_sessions_over_a_new_configuration() -> None:
    network = Network(public=1, nated=2)
    network.run(10)
    node = network.nodes["10.10.0.2"]
    config = node._config
    remaining = tuple(p for p in config.peers if p.name != "n3")
    node.configure(OverlayConfig(**{**config.__dict__, "peers": remaining}), PodRoutes())
    assert [state.path for state in node.states(network.now)] == ["direct"]
    assert set(node.allowed_ips(network.now)) == {remaining[0].public_key}


@settings(max_examples=60, deadline=None)
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


@pytest.mark.parametrize("seconds", [1, 5, 60])
def test_every_prefix_has_exactly_one_peer_at_all_times(seconds: int) -> None:
    network = Network(public=2, nated=3)
    network.run(seconds)
    for node in network.nodes.values():
        prefixes = [prefix for allowed in node.allowed_ips(network.now).values() for prefix in allowed]
        assert len(prefixes) == len(set(prefixes)) == 3 * 4
