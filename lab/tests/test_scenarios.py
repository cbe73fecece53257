"""What the scenarios conclude from the times of replies, and from the paths that were seen."""

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
    ("replies", "seconds"),
    [
        (EVERY_100_MS, 0.0),
        ([FAULT - 5.0, *EVERY_100_MS[9:]], 1.0),
        (EVERY_100_MS[:5] + EVERY_100_MS[15:], 1.6),
        # Not yet steady since the last gap; no recent reply; no reply at all.
        (EVERY_100_MS[:5] + EVERY_100_MS[25:], None),
        (EVERY_100_MS[:40], None),
        ([], None),
    ],
)
def test_pods_talk_again_from_the_end_of_the_last_gap(replies: list[float], seconds: float | None) -> None:
    assert seconds_until_steady(replies, FAULT, FAULT + 5.05) == (
        pytest.approx(seconds) if seconds is not None else None
    )


@pytest.mark.parametrize(
    ("paths", "before", "result"),
    [
        (["direct", "direct"], "direct", ("direct", 0.0)),
        (["direct", "by node1", "direct", "direct"], "direct", ("direct", 3.0)),
        (["direct", "by node1", "by node1"], "direct", ("by node1", 2.0)),
        (["by node2", "by node2"], "by node1", ("by node2", 1.0)),
    ],
)
def test_path_is_settled_once_no_other_follows(paths: list[str], before: str, result: tuple[str, float]) -> None:
    assert settled([(FAULT + at, path) for at, path in enumerate(paths, start=1)], before, FAULT) == result


def test_outcome_is_good_only_if_pods_talk_by_the_right_path_at_the_full_mtu() -> None:
    assert GOOD.is_good
    assert as_text([GOOD]).splitlines()[1].endswith("0.7  direct        0.0  1420")
    for change, words in (
        ({"seconds": None}, "never"),
        ({"is_expected": False}, "NOT THE PATH IT MUST BE"),
        ({"mtu": replace(GOOD.mtu, passes=False)}, "1420 BYTES DO NOT PASS"),
        ({"mtu": replace(GOOD.mtu, one_more_passes=True)}, "1421 BYTES PASS"),
    ):
        outcome = replace(GOOD, **change)  # type: ignore[arg-type]
        assert not outcome.is_good
        assert words in as_text([outcome])
