# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Looking up names in endpoints: what is used of an answer, when a name is asked again, and that nothing waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay import name_lookup
from ansible_collections.evio.cni.plugins.module_utils.overlay.name_lookup import (
    DEADLINE,
    LIFETIME,
    MOST_ADDRESSES,
    URGENT_INTERVAL,
    NameLookups,
    resolve_endpoint,
)

RELAY = "relay.example.org:51820"


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that sets the script which runs in place of getent."""
    program = tmp_path / "getent"

    def set_answer(script: str) -> None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    set_answer("echo 198.51.100.1 STREAM; echo 198.51.100.1 DGRAM; echo 2001:db8::1 STREAM")
    return set_answer


def ended(lookups: NameLookups, now: float, urgent: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    lookups.poll(now, urgent)
    for _attempt in range(500):
        if found := lookups.poll(now, urgent):
            return found
        time.sleep(0.01)
    raise AssertionError("no lookup ended")


def test_addresses_of_a_name_are_found(answer: Callable[[str], None]) -> None:
    assert resolve_endpoint(RELAY) == ("198.51.100.1:51820", "[2001:db8::1]:51820")
    assert resolve_endpoint("198.51.100.9:1") == ("198.51.100.9:1",)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("exit 2", ()),
        ("echo; echo '   '; echo nonsense; echo 1.2.3", ()),
        (
            "echo 127.0.0.1 S; echo ::1 S; echo fe80::1%eth0 S; echo 224.0.0.1 S; echo 198.51.100.2 S",
            ("198.51.100.2:51820",),
        ),
        ("printf '\\377\\376\\n198.51.100.2 S\\n'", ("198.51.100.2:51820",)),
    ],
)
def test_only_usable_addresses_are_taken(answer: Callable[[str], None], script: str, found: tuple[str, ...]) -> None:
    answer(script)
    assert resolve_endpoint(RELAY) == found


def test_number_of_addresses_is_bounded(answer: Callable[[str], None]) -> None:
    answer("for i in $(seq 1 200); do echo 198.51.100.$i S; done")
    assert len(resolve_endpoint(RELAY)) == MOST_ADDRESSES


def test_lookup_without_an_answer_ends_at_its_deadline_and_never_waits(answer: Callable[[str], None]) -> None:
    answer("exec sleep 600")
    lookups = NameLookups()
    lookups.watch([RELAY])
    start = time.monotonic()
    assert lookups.poll(100.0) == {}
    assert lookups.poll(100.0 + DEADLINE - 1) == {}
    assert lookups.poll(100.0 + DEADLINE) == {RELAY: ()}
    assert time.monotonic() - start < 2


def test_lookup_that_prints_without_end_ends_at_its_deadline(
    answer: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer("exec yes 198.51.100.1")
    monkeypatch.setattr(name_lookup, "DEADLINE", 0.3)
    assert resolve_endpoint(RELAY) == ()


def test_name_is_asked_again_after_its_lifetime_and_sooner_if_its_node_is_not_reached(
    answer: Callable[[str], None],
) -> None:
    lookups = NameLookups()
    lookups.watch([RELAY, "198.51.100.9:1"])
    assert ended(lookups, 100.0) == {RELAY: ("198.51.100.1:51820", "[2001:db8::1]:51820")}
    answer("echo 198.51.100.7 S")
    lookups.poll(100.0 + LIFETIME - 1)
    assert not lookups._running
    assert ended(lookups, 100.0 + LIFETIME) == {RELAY: ("198.51.100.7:51820",)}
    answer("echo 198.51.100.8 S")
    now = 100.0 + LIFETIME + URGENT_INTERVAL
    assert ended(lookups, now, (RELAY,)) == {RELAY: ("198.51.100.8:51820",)}


def test_lookup_of_a_name_that_is_not_watched_any_more_is_ended(answer: Callable[[str], None]) -> None:
    answer("exec sleep 600")
    lookups = NameLookups()
    lookups.watch([RELAY])
    lookups.poll(100.0)
    lookup = next(iter(lookups._running.values()))
    lookups.watch([])
    assert lookup._process is not None
    assert lookup._process.returncode is not None
    assert lookups.poll(1000.0) == {}
