"""A lab for the tests beside any other lab: with its own names in the kernel and its own files, removed afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import life_cycle
import pytest
from state import PREFIX, Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab that is not up yet. What a test builds of it is removed; the cached root file system is the common one."""
    # Tests run in several processes at the same time.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    own = Lab(prefix=f"{PREFIX}t{worker}", state=tmp_path / "state")
    own.state.mkdir()
    Lab().cache.mkdir(parents=True, exist_ok=True)
    own.cache.symlink_to(Lab().cache)
    yield own
    life_cycle.down(own)
