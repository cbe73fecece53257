# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each record of the event log is counted once, whatever is torn, killed, started again, or done at the same time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.node import counters as counters_module
from ansible_collections.evio.cni.plugins.module_utils.node.counters import Counters, CountersError, update
from ansible_collections.evio.cni.plugins.module_utils.state.event_log import (
    LONGEST_LOG,
    RECORD_BYTES,
    log_file,
    note_event,
)
from ansible_collections.evio.cni.plugins.module_utils.state.fence import put_up_fence, take_down_fence

COLLECTIONS = Path(__file__).resolve().parents[5]


@pytest.fixture
def state_dir(tmp_path: Path) -> str:
    """A state directory with a log."""
    directory = str(tmp_path / "state")
    update(directory, {}, create=True)
    return directory


def read(state_dir: str) -> Counters:
    return update(state_dir, {}, create=True)


def count(state_dir: str, verb: str = "ADD") -> int:
    return sum(read(state_dir).calls[verb].buckets)


def test_calls_are_counted_by_duration_and_code(state_dir: str) -> None:
    for microseconds, code in ((20_000, 0), (20_001, 0), (90_000_000, 11), (0, 100)):
        note_event(state_dir, "ADD", microseconds, code)
    calls = read(state_dir).calls["ADD"]
    assert calls.buckets == [1, 0, 1, 1, *[0] * 10, 1]
    assert calls.microseconds == 90_040_001
    assert calls.failures == {"11": 1, "100": 1}
    assert read(state_dir).calls["ADD"] == calls


def test_nothing_is_written_where_nobody_counts(tmp_path: Path) -> None:
    note_event(str(tmp_path), "ADD", 1)
    assert update(str(tmp_path), {"node2": (5, 6)}, create=False).peers["node2"].received == 5
    assert list(tmp_path.iterdir()) == []


def test_records_have_one_size_and_the_log_has_a_limit(state_dir: str) -> None:
    note_event(state_dir, "DEL", 10**15, -1)
    note_event(state_dir, "averyveryverylongkind", 1, 10**9)
    assert os.path.getsize(log_file(state_dir)) == 2 * RECORD_BYTES
    assert read(state_dir).damaged == 0
    os.truncate(log_file(state_dir), LONGEST_LOG)
    note_event(state_dir, "DEL", 1)
    assert os.path.getsize(log_file(state_dir)) == LONGEST_LOG


def test_torn_record_costs_itself_and_the_next_one_at_most(state_dir: str) -> None:
    note_event(state_dir, "ADD", 1)
    with open(log_file(state_dir), "ab") as log:
        log.write(b"ADD          ")
    assert count(state_dir) == 1
    note_event(state_dir, "ADD", 1)
    note_event(state_dir, "ADD", 1)
    found = read(state_dir)
    assert (sum(found.calls["ADD"].buckets), found.damaged) == (2, 1)


def test_noise_in_the_log_is_counted_as_damage(state_dir: str) -> None:
    with open(log_file(state_dir), "ab") as log:
        log.write(os.urandom(3000) + b"\n" + b"\n" * 50)
    note_event(state_dir, "ADD", 1)
    found = read(state_dir)
    assert sum(found.calls["ADD"].buckets) == 1
    assert found.damaged > 0


@pytest.mark.parametrize("step", ["link", "rename", "unlink", "write_atomic"])
def test_killed_at_any_step_counts_each_record_once(state_dir: str, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setattr(counters_module, "_ROTATE_BYTES", RECORD_BYTES)
    monkeypatch.setattr(counters_module, "_LINGER_SECONDS", 0.0)
    module = counters_module if step == "write_atomic" else os

    def killed(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    total = 0
    for _round in range(4):
        note_event(state_dir, "ADD", 1)
        total += 1
        with monkeypatch.context() as patch:
            patch.setattr(module, step, killed)
            with contextlib.suppress(KeyboardInterrupt):
                read(state_dir)
        note_event(state_dir, "ADD", 1)
        total += 1
        assert count(state_dir) == total


def test_log_is_replaced_and_a_late_record_in_the_old_one_still_counts(
    state_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters_module, "_ROTATE_BYTES", RECORD_BYTES)
    monkeypatch.setattr(counters_module, "_LINGER_SECONDS", 0.0)
    with open(log_file(state_dir), "ab") as late:
        note_event(state_dir, "ADD", 1)
        assert count(state_dir) == 1
        assert os.path.getsize(log_file(state_dir)) == 0
        late.write(b"ADD               0           1\n")
    assert count(state_dir) == 2
    assert count(state_dir) == 2
    assert sorted(os.listdir(os.path.dirname(log_file(state_dir)))) == ["events", "lock", "sums.json"]


def test_there_is_a_log_at_every_moment_of_its_replacement(state_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters_module, "_ROTATE_BYTES", RECORD_BYTES)
    rename, found = os.rename, []

    def watched(source: str, target: str, **options: int) -> None:
        found.append(os.path.exists(log_file(state_dir)))
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", watched)
    note_event(state_dir, "ADD", 1)
    read(state_dir)
    # The sums' file and the log are renamed.
    assert found == [True, True]


def test_no_record_is_lost_while_the_log_is_read_and_replaced(state_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters_module, "_ROTATE_BYTES", 10 * RECORD_BYTES)
    monkeypatch.setattr(counters_module, "_LINGER_SECONDS", 0.5)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.evio.cni.plugins.module_utils.state.event_log import note_event\n"
        "for _ in range(2000): note_event(sys.argv[2], 'DEL', 1)\n"
    )
    command = [sys.executable, "-c", code, str(COLLECTIONS), state_dir]
    writers = [subprocess.Popen(command) for _number in range(3)]
    while any(writer.poll() is None for writer in writers):
        read(state_dir)
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert count(state_dir, "DEL") == 6000
    assert read(state_dir).damaged == 0


def test_bytes_of_peers_never_fall(state_dir: str) -> None:
    def received(now: int) -> int:
        return update(state_dir, {"node2": (now, 0)}, create=True).peers["node2"].received

    # From 40 on, the interface is a new one.
    assert [received(now) for now in (100, 150, 40, 40, 60)] == [100, 150, 190, 190, 210]
    assert update(state_dir, {}, create=True).peers == {}


def test_bytes_of_an_idle_peer_stay_and_go_on_when_it_is_a_peer_again(state_dir: str) -> None:
    def sent(counts: dict[str, tuple[int, int] | None] | None) -> dict[str, int]:
        return {name: peer.sent for name, peer in update(state_dir, counts, create=True).peers.items()}

    assert sent({"node2": (0, 100), "node3": None}) == {"node2": 100}
    # WireGuard has no such peer for a while, and then counts from 0 again.
    assert sent({"node2": None, "node3": None}) == {"node2": 100}
    assert sent({"node2": (0, 120), "node3": None}) == {"node2": 220}
    # After a boot, the overlay is not known yet.
    assert sent(None) == {"node2": 220}
    assert sent({"node2": (0, 7), "node3": (0, 1)}) == {"node2": 227, "node3": 1}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[" * 100_000, '{"calls": {}, "events": {}, "peers": {}, "damaged": 0, "offsets": {}}']
)
def test_damaged_sums_are_named_and_left_alone(state_dir: str, text: str) -> None:
    path = Path(state_dir) / ".metrics/sums.json"
    path.write_text(text)
    with pytest.raises(CountersError, match=r"sums\.json is damaged .*remove it"):
        read(state_dir)
    assert path.read_text() == text


def test_fence_is_counted_when_it_is_put_up(state_dir: str) -> None:
    for reason in ("lost", "lost", "lost to node2"):
        put_up_fence(state_dir, reason)
    take_down_fence(state_dir)
    put_up_fence(state_dir, "lost again")
    assert read(state_dir).events == {"fence": 2}


def test_a_link_in_place_of_the_log_is_not_followed(state_dir: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    os.unlink(log_file(state_dir))
    os.symlink(target, log_file(state_dir))
    note_event(state_dir, "ADD", 1)
    assert target.read_text() == ""
