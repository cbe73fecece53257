# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hostile messages against decoder and path selection: random datagrams, in random order, from any address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.endpoint import endpoint_host, parse_endpoint
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import (
    UDP_HEADERS,
    OverlayConfig,
    OverlayPeer,
    PodRoutes,
    probe_address,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.messages import (
    DOWN,
    MOST_RELAYS,
    UP,
    Call,
    FormerProbe,
    FormerTable,
    MessageError,
    Probe,
    Rekey,
    decode,
    encode,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.path_selection import (
    CALLS_AT_ONCE,
    CALLS_PER_SECOND,
    MOST_SESSIONS,
    Actions,
    OverlayPaths,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.session import ANSWER_GAP, LONGEST_RTT
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .overlay_network import key, peer

HOST_CIDR, POD_CIDR = "10.10.0.0/16", "10.244.0.0/16"
PEERS = tuple(
    # Half of them are changing their keys.
    replace(peer(index, is_public=index <= 3), next_public_key=key(index, 1) if index % 2 else None)
    for index in range(2, 7)
)
ROUTES = PodRoutes((POD_CIDR,), {p.name: (f"10.244.{index}.0/24",) for index, p in enumerate(PEERS)})
OVERLAY_ADDRESSES = [ip_address(p.address) for p in PEERS] + [ip_address(f"10.244.{i}.9") for i in range(len(PEERS))]


def node(is_relay: bool, mtu: int = 1420) -> OverlayPaths:
    own = peer(1, is_relay)
    config = OverlayConfig(own.name, own.address, HOST_CIDR, own.public_key, own.endpoint, mtu=mtu, peers=PEERS)
    return OverlayPaths(config, ROUTES, 1000.0)


ENDPOINTS = st.sampled_from(
    [
        *("198.51.100.2:51820", "[2001:db8::1]:1", "192.168.1.10:65535", "10.10.0.5:51820", "10.244.1.7:1"),
        *("[fe80::1%x]:1", "127.0.0.1:1", "224.0.0.1:5", "relay.example.org:1", "", "x" * 3000),
    ]
)
NUMBERS = st.sampled_from([0, 1, 2**53 - 1, 2**53, -1, 10**400, 1e999, -1e999, float("nan"), 0.5, True, None, "1"])
ANYTHING = st.recursive(
    NUMBERS | ENDPOINTS | st.text(max_size=20), lambda inner: st.lists(inner, max_size=6), max_leaves=10
)
STATES = st.sampled_from(["down", "init", "up", "DOWN", "", None, ["up"], {"up": 1}])
LANS = st.lists(ENDPOINTS, max_size=4) | ANYTHING
TIMES = st.integers(0, 2**53) | NUMBERS
ADDRESSES = st.sampled_from([p.address for p in PEERS] + ["10.10.0.1", "10.10.9.9", "fe80::1%x", "nowhere"])
CALLS = st.tuples(
    ADDRESSES | ANYTHING,
    st.lists(ADDRESSES, max_size=4) | ANYTHING,
    st.lists(ADDRESSES, max_size=3) | ANYTHING,
    ENDPOINTS | st.none() | ANYTHING,
    LANS,
    st.booleans() | ANYTHING,
)
PROBES = st.tuples(STATES, TIMES, TIMES | st.none(), TIMES, st.booleans() | ANYTHING)
MESSAGES = st.one_of(
    st.tuples(st.sampled_from(["poll", "answer"]), PROBES).map(lambda pair: {pair[0]: pair[1]}),
    st.tuples(PROBES, ENDPOINTS | ANYTHING).map(lambda pair: {"answer": [*pair[0], pair[1]]}),
    CALLS.map(lambda call: {"call": call}),
    st.tuples(STATES, TIMES, TIMES | st.none(), TIMES, LANS).map(lambda probe: {"probe": probe}),
    st.lists(ANYTHING, max_size=12).map(lambda rows: {"table": rows}),
    st.dictionaries(st.sampled_from(["poll", "answer", "call", "rekey", "probe", "table", "x"]), ANYTHING, max_size=3),
    ANYTHING,
)
VALID_ENDPOINTS = st.sampled_from(["198.51.100.2:51820", "[2001:db8::1]:1", "10.10.0.5:51820"])
VALID_LANS = st.lists(st.sampled_from(["192.168.1.10:1", "[2001:db8::1]:1", "10.10.0.5:51820"]), max_size=2).map(tuple)
VALID_ADDRESSES = st.sampled_from([p.address for p in PEERS] + ["10.10.0.1", "10.10.9.9"])
CLOCKS = st.integers(0, 2**53 - 1)
VALID_STATES = st.sampled_from(["down", "init", "up"])
VALID = st.one_of(
    st.builds(
        Probe,
        VALID_STATES,
        CLOCKS,
        st.none() | CLOCKS,
        CLOCKS,
        st.booleans(),
        st.booleans(),
        st.none() | VALID_ENDPOINTS,
    ),
    st.builds(FormerProbe, VALID_STATES, CLOCKS, st.none() | CLOCKS, CLOCKS, VALID_LANS),
    st.just(Rekey()),
    st.builds(
        Call,
        VALID_ADDRESSES,
        st.lists(VALID_ADDRESSES, min_size=1, max_size=6).map(tuple),
        st.lists(VALID_ADDRESSES, max_size=MOST_RELAYS).map(tuple),
        st.none() | VALID_ENDPOINTS,
        VALID_LANS,
        st.booleans(),
    ),
).map(encode)
DATAGRAMS = VALID | MESSAGES.map(lambda data: json.dumps(data).encode()) | st.binary(max_size=60)
SOURCES = st.sampled_from([probe_address(p.address) for p in PEERS] + ["10.10.0.2", "203.0.113.9", ""])
STEPS = st.tuples(SOURCES, DATAGRAMS, st.sampled_from([0.0, 0.005, 0.5, 4.0, 40.0]))

SEEN = st.dictionaries(
    st.sampled_from([p.public_key for p in PEERS]),
    st.none() | st.sampled_from(["198.51.100.9:7", "[fe80::1%eth0]:51820", "[2001:db8::7]:1", "10.244.1.7:1"]),
)


def check(paths: OverlayPaths, actions: Actions, now: float, mtu: int) -> None:
    """Check what must hold whatever a peer sends."""
    allowed = paths.allowed_ips()
    assert set(allowed) <= {public_key for p in PEERS for public_key in p.public_keys}
    prefixes = [ip_network(prefix) for prefixes in allowed.values() for prefix in prefixes]
    assert len(prefixes) == len(set(prefixes))
    for address in OVERLAY_ADDRESSES:
        assert any(address in prefix for prefix in prefixes), address
    for p in PEERS:
        assert f"{probe_address(p.address)}/32" not in {
            prefix for other, prefixes in allowed.items() if other not in p.public_keys for prefix in prefixes
        }
        assert sum(bool(allowed.get(public_key)) for public_key in p.public_keys) <= 1
    for attempt in actions.attempts:
        assert allowed[attempt.key]
        assert parse_endpoint(attempt.endpoint) == attempt.endpoint
        host = ip_address(endpoint_host(attempt.endpoint))
        assert host not in ip_network(HOST_CIDR)
        assert host not in ip_network(POD_CIDR)
    assert len(actions.attempts) <= len(PEERS)
    for outgoing in actions.outgoing:
        datagram = encode(outgoing.message)
        assert len(datagram) <= mtu - UDP_HEADERS
        assert decode(datagram) == outgoing.message or isinstance(outgoing.message, FormerTable)
    # Two probes and a call for each peer; a relay makes at most three messages of each target of a call.
    assert len(actions.outgoing) <= 3 * len(PEERS) + 3 * 12
    assert all(state.rtt_ms is None or 0 <= state.rtt_ms <= LONGEST_RTT for state in paths.states(now))


def play(steps: list[tuple[str, bytes, float]], seen: dict[str, str | None], is_relay: bool, mtu: int) -> None:
    paths, now = node(is_relay, mtu), 1000.0
    for number, (source, datagram, seconds) in enumerate(steps):
        if number % 5 == 0:
            check(paths, paths.used([PEERS[number % len(PEERS)].address, "10.244.3.9", "192.0.2.1"], now), now, mtu)
        if number % 7 == 0:
            paths.observe(seen)
            check(paths, paths.tick(now), now, mtu)
        try:
            message = decode(datagram)
        except MessageError:
            continue
        check(paths, paths.receive(source, message, now), now, mtu)
        now += seconds


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=20, max_size=60), SEEN, st.booleans(), st.sampled_from([576, 1420]))
def test_no_message_breaks_decoder_or_paths(
    steps: list[tuple[str, bytes, float]], seen: dict[str, str | None], is_relay: bool, mtu: int
) -> None:
    play(steps, seen, is_relay, mtu)


def many(steps: list[tuple[str, bytes, float]], seed: int, count: int) -> Iterator[tuple[str, bytes, float]]:
    """Yield these messages again and again in random order, some with bytes that were changed on the way."""
    random = Random(seed)
    for source, datagram, seconds in random.choices(steps, k=count):
        changed = bytearray(datagram)
        for _change in range(random.choice([0, 0, 0, 1, 3]) if changed else 0):
            changed[random.randrange(len(changed))] = random.choice(b'"[]{},:019eE-+.nutf\x00\xff ')
        yield source, bytes(changed), seconds


@pytest.mark.long
def test_200_000_messages_break_neither_decoder_nor_paths() -> None:
    played = 0

    # Without shrinking, which takes longer than finding a failure.
    @settings(
        max_examples=400,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    @given(
        st.lists(STEPS, min_size=30, max_size=40),
        st.integers(0, 2**32),
        SEEN,
        st.booleans(),
        st.sampled_from([576, 1420]),
    )
    def fuzz(
        steps: list[tuple[str, bytes, float]], seed: int, seen: dict[str, str | None], is_relay: bool, mtu: int
    ) -> None:
        nonlocal played
        play([*steps, *many(steps, seed, 520)], seen, is_relay, mtu)
        played += len(steps) + 520

    fuzz()
    assert played >= 200_000


def keep_up(paths: OverlayPaths, peers: tuple[OverlayPeer, ...], now: float) -> None:
    for other in peers:
        paths.receive(probe_address(other.address), Probe(UP, 0, is_wanted=True), now)


def flapping(seconds: float, per_second: int = 200) -> Iterator[tuple[float, Probe]]:
    """Yield times and probes of a peer that changes its state and what it sees with each of them."""
    for number in range(int(seconds * per_second)):
        seen = f"192.0.2.{number % 250 + 1}:1"
        yield (
            1000 + number / per_second,
            Probe(UP if number % 2 else DOWN, number, is_poll=True, is_wanted=True, seen=seen),
        )


def test_flapping_peer_moves_allowed_ips_a_few_times_only_and_its_path_is_used_again_later() -> None:
    paths, loud = node(is_relay=False), PEERS[-1]
    revision = paths.revision
    for now, probe in flapping(60):
        paths.receive(probe_address(loud.address), probe, now)
    assert paths.revision - revision <= 20
    for second in range(1060, 1160):
        keep_up(paths, (loud,), second)
        paths.tick(second)
    assert {state.peer.name: state.path for state in paths.states(1159.0)}[loud.name] == "direct"


def test_flapping_peer_leaves_other_paths_alone() -> None:
    paths, loud, quiet = node(is_relay=True), PEERS[-1], PEERS[-2]
    keep_up(paths, (quiet,), 1000.0)
    for now, probe in flapping(30):
        keep_up(paths, (quiet,), now)
        paths.receive(probe_address(loud.address), probe, now)
        state: Any = next(state for state in paths.states(now) if state.peer is quiet)
        assert state.path == "direct"


def test_polls_of_a_flooding_peer_are_answered_at_a_bounded_rate() -> None:
    paths, loud = node(is_relay=True), PEERS[-1]
    answers = sum(
        len(paths.receive(probe_address(loud.address), replace(probe, state=UP), now).outgoing)
        for now, probe in flapping(60)
    )
    assert answers <= 60 / ANSWER_GAP + 3


def test_relay_that_changes_where_it_sees_a_node_lets_it_try_again_at_a_bounded_rate() -> None:
    paths, relay, other = node(is_relay=False), PEERS[0], PEERS[-1]
    attempts = calls = 0
    for now, probe in flapping(60, per_second=50):
        paths.receive(probe_address(relay.address), replace(probe, state=UP), now)
        sighting = Call(other.address, ("10.10.0.1",), (relay.address,), "198.51.100.77:1", is_answer=True)
        actions = paths.receive(probe_address(relay.address), sighting, now)
        attempts += len(actions.attempts)
        if int(now * 50) % 25 == 0:
            actions = paths.used([other.address], now)
            attempts += len(actions.attempts)
            calls += sum(isinstance(outgoing.message, Call) for outgoing in actions.outgoing)
    assert attempts <= 80
    assert calls <= 2 * 60 + 1


def test_relay_passes_on_the_calls_of_one_node_at_a_bounded_rate() -> None:
    paths, loud = node(is_relay=True), PEERS[-1]
    keep_up(paths, PEERS, 1000.0)
    call = Call(loud.address, tuple(p.address for p in PEERS[:-1]), ("10.10.0.1",))
    passed = sum(
        len(paths.receive(probe_address(loud.address), call, 1000 + number / 500).outgoing) for number in range(5000)
    )
    assert passed <= CALLS_AT_ONCE + 10 * CALLS_PER_SECOND + 1


def test_call_in_the_name_of_another_node_is_ignored_unless_a_relay_passes_it_on() -> None:
    paths, loud, victim = node(is_relay=False), PEERS[-1], PEERS[-2]
    forged = Call(victim.address, ("10.10.0.1",), (PEERS[0].address,), "203.0.113.66:1")
    assert paths.receive(probe_address(loud.address), forged, 1000.0) == Actions()
    assert paths.receive(probe_address(PEERS[0].address), forged, 1000.0).attempts
    relay = node(is_relay=True)
    keep_up(relay, PEERS, 1000.0)
    forged = Call(victim.address, (PEERS[0].address,), ("10.10.0.1",))
    assert relay.receive(probe_address(loud.address), forged, 1000.0) == Actions()


def test_called_sessions_of_a_hostile_relay_are_bounded_and_forgotten() -> None:
    others = tuple(peer(index) for index in range(10, 10 + 2 * MOST_SESSIONS))
    own, relay = peer(1), peer(2, is_public=True)
    config = OverlayConfig(own.name, own.address, HOST_CIDR, own.public_key, peers=(relay, *others))
    paths = OverlayPaths(config, PodRoutes(), 1000.0)
    for number, other in enumerate(others):
        call = Call(other.address, (own.address,), (relay.address,), "203.0.113.66:1")
        paths.receive(probe_address(relay.address), call, 1000 + number / 100)
    assert len(paths.kept_states(1006.0)) <= MOST_SESSIONS + 1
    for second in range(1006, 1100):
        paths.tick(second)
    assert len(paths.kept_states(1100.0)) == 1
