"""A lab of the tests' own beside any that is up: other names in the kernel, other files, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import life_cycle
import pytest
from state import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab that is not there yet; whatever a test makes of it is taken away, and the root file system is shared."""
    own = Lab(prefix="evlt", state=tmp_path / "state")
    own.state.mkdir()
    Lab().cache.mkdir(parents=True, exist_ok=True)
    own.cache.symlink_to(Lab().cache)
    yield own
    life_cycle.down(own)
