"""What the scenarios make of the times at which pods answered, and of the ways that were seen meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from probes import MtuCheck
from scenarios import Outcome, as_text, seconds_until_steady, settled

FAULT = 1000.0
EVERY_100_MS = [FAULT + tick / 10 for tick in range(1, 51)]
GOOD = Outcome(
    lab="three",
    scenario="both NATs forget",
    pair="node2 node3",
    before="direct",
    seconds=0.7,
    after="direct",
    since=0.0,
    is_expected=True,
    mtu=MtuCheck("node2-a", "node3-a", 1420, passes=True, one_more_passes=False),
)


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        (EVERY_100_MS, 0.0),
        ([FAULT - 5.0, *EVERY_100_MS[9:]], 1.0),
        (EVERY_100_MS[:5] + EVERY_100_MS[15:], 1.6),
        # Too short a time since the last gap; no answer of late; none at all.
        (EVERY_100_MS[:5] + EVERY_100_MS[25:], None),
        (EVERY_100_MS[:40], None),
        ([], None),
    ],
)
def test_pods_talk_again_when_nothing_is_missing_any_more(answers: list[float], seconds: float | None) -> None:
    assert seconds_until_steady(answers, FAULT, FAULT + 5.05) == (
        pytest.approx(seconds) if seconds is not None else None
    )


@pytest.mark.parametrize(
    ("ways", "before", "result"),
    [
        (["direct", "direct"], "direct", ("direct", 0.0)),
        (["direct", "by node1", "direct", "direct"], "direct", ("direct", 3.0)),
        (["direct", "by node1", "by node1"], "direct", ("by node1", 2.0)),
        (["by node2", "by node2"], "by node1", ("by node2", 1.0)),
    ],
)
def test_way_is_settled_once_no_other_follows(ways: list[str], before: str, result: tuple[str, float]) -> None:
    assert settled([(FAULT + at, way) for at, way in enumerate(ways, start=1)], before, FAULT) == result


def test_all_is_well_only_if_pods_talk_the_way_they_shall_at_the_full_mtu() -> None:
    assert GOOD.is_good
    assert as_text([GOOD]).splitlines()[1].endswith("0.7  direct        0.0  1420")
    for change, words in (
        ({"seconds": None}, "never"),
        ({"is_expected": False}, "NOT THE WAY IT SHALL BE"),
        ({"mtu": replace(GOOD.mtu, passes=False)}, "1420 BYTES DO NOT PASS"),
        ({"mtu": replace(GOOD.mtu, one_more_passes=True)}, "1421 BYTES PASS"),
    ):
        outcome = replace(GOOD, **change)  # type: ignore[arg-type]
        assert not outcome.is_good
        assert words in as_text([outcome])
