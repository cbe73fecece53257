"""What the measurement of vswitchd's restarts concludes from the times of replies and from forged frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
from restarts import Restart, as_line, longest_gap

GOOD = Restart("killed by SIGKILL", plain=0.8, same_node=1.1, other_node=1.2, forged=0, forged_on_plain=90)


def test_only_gaps_that_end_after_the_restart_count() -> None:
    assert longest_gap([1.0, 5.0, 5.1, 6.0, 6.1], since=5.05) == pytest.approx(0.9)
    assert longest_gap([1.0, 5.0], since=6.0) == float("inf")


def test_restart_is_good_only_if_nothing_forged_passes_and_pods_go_on_soon() -> None:
    assert GOOD.is_good
    assert GOOD.beyond == pytest.approx(0.4)
    for change in ({"forged": 1}, {"forged_on_plain": 0}, {"other_node": 1.9}):
        bad = replace(GOOD, **change)  # type: ignore[arg-type]
        assert not bad.is_good
        assert as_line(bad).endswith("NOT AS IT MUST BE")
