"""A lab for the tests beside any other lab: with its own names in the kernel and its own files, removed afterwards."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import life_cycle
import pytest
from state import PREFIX, Lab


@pytest.fixture
def prefix() -> str:
    """The prefix of the names that the lab of this test has in the kernel."""
    # Tests run in several processes at the same time.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    return f"{PREFIX}t{worker}"


@pytest.fixture
def lab(tmp_path: Path, prefix: str) -> Iterator[Lab]:
    """A lab that is not up yet. What a test builds of it is removed; the cached root file system is the common one."""
    own = Lab(prefix=prefix, state=tmp_path / "state")
    own.state.mkdir()
    Lab().cache.mkdir(parents=True, exist_ok=True)
    own.cache.symlink_to(Lab().cache)
    with has_prefix_alone(own):
        remove_what_killed_tests_left(own)
        yield own
        life_cycle.down(own)


@contextmanager
def has_prefix_alone(lab: Lab) -> Iterator[None]:
    """Wait until no test of another process has a lab with the same names, and let none have one during the block."""
    with Path(f"/run/lock/{lab.prefix}-lab").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_what_killed_tests_left(lab: Lab) -> None:
    """Remove the lab with the same names, in whatever state it was left. No test that is running has it."""
    state = lab.other_owner()
    life_cycle.down(Lab(prefix=lab.prefix, state=state) if state is not None else lab)
