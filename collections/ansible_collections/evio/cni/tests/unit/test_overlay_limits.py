# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The limits of the overlay's agent: messages of one peer, and lines of one kind."""

from __future__ import annotations

from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.limits import (
    LOG_SECONDS,
    MESSAGES_AT_ONCE,
    MESSAGES_PER_SECOND,
    LogLimit,
    MessageLimit,
)


def test_messages_of_a_flooding_peer_are_admitted_at_a_bounded_rate() -> None:
    limit = MessageLimit()
    admitted = sum(limit.admits("loud", 100 + number / 5000) for number in range(50_000))
    assert admitted <= MESSAGES_AT_ONCE + 10 * MESSAGES_PER_SECOND + 1


def test_flood_of_one_peer_takes_nothing_from_another() -> None:
    limit = MessageLimit()
    for second in range(60):
        for number in range(1000):
            limit.admits("loud", second + number / 1000)
        assert all(limit.admits("quiet", second + 0.5) for _message in range(3))


def test_relay_may_pass_on_the_calls_of_all_nodes_at_once() -> None:
    limit = MessageLimit()
    assert all(limit.admits("relay", 1.0, calls=500) for _call in range(1000))


def test_one_line_of_a_kind_is_logged_in_a_minute_and_says_how_many_were_not() -> None:
    limit = LogLimit()
    logged = [limit.suppressed_before("noise", number / 100) for number in range(int(LOG_SECONDS * 100))]
    assert [count for count in logged if count is not None] == [0]
    assert limit.suppressed_before("noise", LOG_SECONDS + 1) == len(logged) - 1
    assert limit.suppressed_before("other", LOG_SECONDS + 1) == 0


def test_memory_of_kinds_is_bounded() -> None:
    limit = LogLimit()
    for number in range(5000):
        limit.suppressed_before(number, 1.0)
    assert len(limit._kinds) == 1024
