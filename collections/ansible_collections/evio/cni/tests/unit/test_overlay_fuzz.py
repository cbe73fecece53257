# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hostile messages against decoder and path selection: random datagrams, in random order, from any address."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
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
    UP,
    MessageError,
    Probe,
    Sighting,
    Table,
    decode,
    encode,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.path_selection import (
    LAN_SECONDS,
    LONGEST_RTT,
    Actions,
    OverlayPaths,
)
from ansible_collections.evio.cni.tests.unit.test_path_selection import peer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

HOST_CIDR, POD_CIDR = "10.10.0.0/16", "10.244.0.0/16"
PEERS = tuple(peer(index, is_public=index <= 3) for index in range(2, 7))
ROUTES = PodRoutes((POD_CIDR,), {p.name: (f"10.244.{index}.0/24",) for index, p in enumerate(PEERS)})
PREFIXES = sorted(
    [f"{p.address}/32" for p in PEERS]
    + [f"{probe_address(p.address)}/32" for p in PEERS]
    + [cidr for cidrs in ROUTES.subnets.values() for cidr in cidrs]
)


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
ROWS = st.tuples(ADDRESSES | ANYTHING, ENDPOINTS | st.none() | ANYTHING, st.booleans() | ANYTHING, LANS)
MESSAGES = st.one_of(
    st.tuples(STATES, TIMES, TIMES | st.none(), TIMES, LANS).map(lambda probe: {"probe": probe}),
    st.lists(ROWS, max_size=12).map(lambda rows: {"table": rows}),
    st.dictionaries(st.sampled_from(["probe", "table", "x"]), ANYTHING, max_size=3),
    ANYTHING,
)
VALID_LANS = st.lists(st.sampled_from(["192.168.1.10:1", "[2001:db8::1]:1", "10.10.0.5:51820"]), max_size=2).map(tuple)
VALID = st.one_of(
    st.builds(
        Probe,
        st.sampled_from(["down", "init", "up"]),
        st.integers(0, 2**53 - 1),
        st.none() | st.integers(0, 2**53 - 1),
        st.integers(0, 2**53 - 1),
        VALID_LANS,
    ),
    st.lists(
        st.builds(
            Sighting,
            st.sampled_from([p.address for p in PEERS] + ["10.10.0.1", "10.10.9.9"]),
            st.none() | st.sampled_from(["198.51.100.2:51820", "[2001:db8::1]:1", "10.10.0.5:51820"]),
            st.booleans(),
            VALID_LANS,
        ),
        max_size=6,
    ).map(lambda rows: Table(tuple(rows))),
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
    allowed = paths.allowed_ips(now)
    assert set(allowed) == {p.public_key for p in PEERS}
    assert sorted(prefix for prefixes in allowed.values() for prefix in prefixes) == PREFIXES
    for attempt in actions.attempts:
        assert parse_endpoint(attempt.endpoint) == attempt.endpoint
        host = ip_address(endpoint_host(attempt.endpoint))
        assert host not in ip_network(HOST_CIDR)
        assert host not in ip_network(POD_CIDR)
    assert len(actions.attempts) <= len(PEERS)
    for outgoing in actions.outgoing:
        datagram = encode(outgoing.message)
        assert len(datagram) <= mtu - UDP_HEADERS
        assert decode(datagram) == outgoing.message
    # One probe, and one or two tables, for each peer.
    assert len(actions.outgoing) <= 5 * len(PEERS)
    for state in paths.states(now):
        assert state.rtt_ms is None or 0 <= state.rtt_ms <= LONGEST_RTT


def play(steps: list[tuple[str, bytes, float]], seen: dict[str, str | None], is_relay: bool, mtu: int) -> None:
    paths, now = node(is_relay, mtu), 1000.0
    for number, (source, datagram, seconds) in enumerate(steps):
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
        paths.receive(probe_address(other.address), Probe(UP, 0), now)


def flapping(seconds: float, per_second: int = 200) -> Iterator[tuple[float, Probe]]:
    """Yield times and probes of a peer that changes its state and its endpoints with each of them."""
    for number in range(int(seconds * per_second)):
        lan = (f"192.168.1.{number % 250 + 1}:1",)
        yield 1000 + number / per_second, Probe(UP if number % 2 else DOWN, number, lan=lan)


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


def test_relay_reports_a_flapping_peer_to_others_at_a_bounded_rate() -> None:
    paths, loud = node(is_relay=True), PEERS[-1]
    reports: Counter[str] = Counter()

    def count(actions: Actions) -> None:
        for outgoing in actions.outgoing:
            if isinstance(outgoing.message, Table) and outgoing.peer is not loud:
                reports[outgoing.peer.name] += 1

    next_tick = 1000.0
    for now, probe in flapping(60):
        if now >= next_tick:
            next_tick += 0.5
            keep_up(paths, PEERS[:-1], now)
            count(paths.tick(now))
        count(paths.receive(probe_address(loud.address), probe, now))
    # Six complete tables, a row for each change of its endpoints, and the few changes of its state.
    assert max(reports.values()) <= 6 + 60 / LAN_SECONDS + 25


def test_flapping_peer_leaves_other_paths_alone() -> None:
    paths, loud, quiet = node(is_relay=True), PEERS[-1], PEERS[-2]
    keep_up(paths, (quiet,), 1000.0)
    for now, probe in flapping(30):
        keep_up(paths, (quiet,), now)
        paths.receive(probe_address(loud.address), probe, now)
        state: Any = next(state for state in paths.states(now) if state.peer is quiet)
        assert state.path == "direct"
