# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sums behind the counters of ``evio metrics``. They are kept on the disk, so counters go on after a reboot.

``update`` adds to them what the event log (state/event_log) has gained, each record once: the file of the sums says how
far each log was read, and is replaced in one step. A log of some length gives way to a new one; a process that had
opened the old one may still append to it, so it is read once more before it is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..atomic_file import make_directories, read_file, write_atomic
from ..errors import EvioError
from ..state.event_log import LONGEST_LOG, RECORD_BYTES, log_file, metrics_directory

BOUNDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets in seconds. A call takes about 0.02 s, and is given up after 90 s at most."""

VERBS = ("ADD", "DEL")
"""The calls that are counted."""

_ROTATE_BYTES = LONGEST_LOG // 4
_LINGER_SECONDS = 10.0
"""How long a log that was replaced is kept. A process has a log open for microseconds, unless it is not scheduled."""

_LOCK_SECONDS = 30.0
_LONGEST_SUMS = 4 << 20
"""Bytes. A file of sums with the bytes of 5000 peers has 700 kB."""

_RECORD = re.compile(rb"([A-Za-z_]{1,12}) +(\d{1,6}) +(\d{1,11})")


class CountersError(EvioError):
    """The sums cannot be read or written."""


@dataclass
class Calls:
    """The calls of one verb."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """How many calls took as long as each of BOUNDS at most, but longer than the bound before it; then the others."""
    microseconds: int = 0
    """All calls together."""
    failures: dict[str, int] = field(default_factory=dict)
    """How many calls failed, by CNI error code."""


@dataclass
class PeerBytes:
    """The bytes of one peer: the sum, and what WireGuard had counted when it was last asked."""

    received: int = 0
    sent: int = 0
    last_received: int = 0
    last_sent: int = 0


@dataclass
class Counters:
    """All sums. Events are counted by their kind."""

    calls: dict[str, Calls] = field(default_factory=lambda: {verb: Calls() for verb in VERBS})
    """By verb; empty where there is no log, so nothing but the peers' bytes is known."""
    events: dict[str, int] = field(default_factory=dict)
    peers: dict[str, PeerBytes] = field(default_factory=dict)
    damaged: int = 0
    """Records that could not be read."""


@dataclass
class _Sums:
    counters: Counters = field(default_factory=Counters)
    offsets: dict[str, int] = field(default_factory=dict)
    """How many bytes of each log are in the sums, by the log's inode number."""


def update(state_dir: str, peer_counts: Mapping[str, tuple[int, int] | None] | None, *, create: bool) -> Counters:
    """Add what the log and WireGuard have gained, and return all sums.

    ``peer_counts`` has the bytes that WireGuard has received from and sent to each node of the overlay; None for a node
    that it does not have as a peer now, such as one that is idle. Nodes that are not in it have left the overlay and
    are forgotten. Without it, the overlay is not known, and all sums stay. ``create`` makes the log where there is
    none; without it, nothing is written there. Raises CountersError.
    """
    directory = metrics_directory(state_dir)
    try:
        if create:
            make_directories(state_dir, 0o700)
            make_directories(directory, 0o700)
        elif not os.path.exists(log_file(state_dir)):
            counters = Counters(calls={})
            _add_bytes(counters, peer_counts)
            return counters
        with _locked(directory):
            return _update(state_dir, peer_counts)
    except OSError as error:
        raise CountersError(f"cannot keep the sums of the counters in {directory}: {error.strerror}") from error


def _update(state_dir: str, peer_counts: Mapping[str, tuple[int, int] | None] | None) -> Counters:
    log = log_file(state_dir)
    path, old = f"{metrics_directory(state_dir)}/sums.json", f"{log}.old"
    sums = _read_sums(path)
    has_old = os.path.exists(old)
    if not os.path.exists(log):
        os.close(os.open(log, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    # A crash may have left both names with the same file: the second reading of it finds nothing new.
    read = [_add_log(name, sums) for name in ((old, log) if has_old else (log,))]
    _add_bytes(sums.counters, peer_counts)
    sums.offsets = {inode: sums.offsets[inode] for inode in read}
    _write_sums(path, sums)
    if has_old:
        # The time of its last change is that at which it was replaced, or at which somebody still wrote to it.
        if abs(time.time() - os.stat(old).st_ctime) >= _LINGER_SECONDS:
            os.unlink(old)
    elif sums.offsets[read[-1]] >= _ROTATE_BYTES:
        _rotate(log, old)
    return sums.counters


def _rotate(log: str, old: str) -> None:
    """Put an empty log in the place of a log that has been read. At no moment is there no log."""
    new = f"{log}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    os.link(log, old)
    os.rename(new, log)


def _add_log(path: str, sums: _Sums) -> str:
    """Add the log's complete records that are not in the sums; return its inode number."""
    with open(path, "rb") as log:
        status = os.fstat(log.fileno())
        inode = str(status.st_ino)
        offset = sums.offsets.get(inode, 0)
        if offset > status.st_size:
            # A file with the number of one that was removed.
            offset = 0
        log.seek(offset)
        text = log.read(LONGEST_LOG + 100 * RECORD_BYTES)
    complete = text[: text.rfind(b"\n") + 1]
    for line in complete.splitlines():
        _add_record(sums.counters, line)
    sums.offsets[inode] = offset + len(complete)
    return inode


def _add_record(counters: Counters, line: bytes) -> None:
    match = _RECORD.fullmatch(line) if len(line) == RECORD_BYTES - 1 else None
    if match is None:
        counters.damaged += 1
        return
    kind, code, value = match[1].decode(), int(match[2]), int(match[3])
    calls = counters.calls.get(kind)
    if calls is None:
        counters.events[kind] = counters.events.get(kind, 0) + value
        return
    calls.buckets[bisect_left(BOUNDS, value / 1e6)] += 1
    calls.microseconds += value
    if code:
        calls.failures[str(code)] = calls.failures.get(str(code), 0) + 1


def _add_bytes(counters: Counters, peer_counts: Mapping[str, tuple[int, int] | None] | None) -> None:
    if peer_counts is None:
        return
    peers = {}
    for name, counted in peer_counts.items():
        known = counters.peers.get(name)
        if counted is None and known is None:
            continue
        known, (received, sent) = known or PeerBytes(), counted or (0, 0)
        peers[name] = PeerBytes(
            known.received + _gain(received, known.last_received),
            known.sent + _gain(sent, known.last_sent),
            received,
            sent,
        )
    counters.peers = peers


def _gain(now: int, before: int) -> int:
    """Return what a counter has gained. WireGuard counts from 0 again when its interface or the peer is made anew."""
    return now - before if now >= before else now


def _read_sums(path: str) -> _Sums:
    """Return the sums; none if there are none yet. Raises CountersError for a file that is damaged."""
    found = read_file(path)
    if found is None:
        return _Sums()
    try:
        if len(found[0]) > _LONGEST_SUMS:
            raise ValueError("it is too long")
        return _sums_of(json.loads(found[0]))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise CountersError(f"{path} is damaged ({error}); remove it, and the counters begin at 0 again") from error


def _sums_of(data: dict[str, Any]) -> _Sums:
    calls = {verb: Calls(**values) for verb, values in data["calls"].items()}
    peers = {name: PeerBytes(**values) for name, values in data["peers"].items()}
    counters = Counters(calls, data["events"], peers, data["damaged"])
    numbers = [
        counters.damaged,
        *data["offsets"].values(),
        *counters.events.values(),
        *(number for peer in peers.values() for number in asdict(peer).values()),
        *(number for call in calls.values() for number in (*call.buckets, call.microseconds, *call.failures.values())),
    ]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError("a number is missing")
    if set(calls) != set(VERBS) or any(len(call.buckets) != len(BOUNDS) + 1 for call in calls.values()):
        raise ValueError("it has other calls or buckets than this version")
    return _Sums(counters, data["offsets"])


def _write_sums(path: str, sums: _Sums) -> None:
    write_atomic(path, json.dumps({**asdict(sums.counters), "offsets": sums.offsets}), mode=0o600)


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Hold the lock of the sums: a timer and a person may run ``evio metrics`` at once. Raises CountersError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(f"{directory}/lock", flags, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CountersError(
                        f"another evio metrics has held {directory}/lock for {_LOCK_SECONDS:g} s"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(lock)
