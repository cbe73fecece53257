# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks that cost nothing: the clock is compared with the time in which the host was asked, however long that took."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.node.quick_checks import clock_row

ASKED, ANSWERED = 1000.0, 1200.0
"""A busy control machine: 200 s."""


@pytest.mark.parametrize(
    ("host", "state"),
    [
        (ASKED, "ok"),
        (1100.0, "ok"),
        (ANSWERED, "ok"),
        (ANSWERED + 9, "ok"),
        (ANSWERED + 11, "warning"),
        (ASKED - 11, "warning"),
        (ANSWERED + 301, "error"),
        (ASKED - 301, "error"),
    ],
)
def test_only_what_lies_outside_of_the_time_of_the_call_is_a_difference(host: float, state: str) -> None:
    row = clock_row(host, ASKED, ANSWERED)
    assert row.state == state
    assert bool(row.remedy) == (state != "ok")


def test_difference_is_told_in_seconds() -> None:
    assert clock_row(ANSWERED + 400, ASKED, ANSWERED).what == "it differs from the control machine's by 400 s"
