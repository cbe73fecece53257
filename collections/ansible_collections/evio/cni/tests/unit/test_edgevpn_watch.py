# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the agent beside EdgeVPN.io says of the overlay, and when it restarts EdgeVPN.io. No process is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.members import (
    RESTART_SLOTS,
    EdgeVpnMembers,
    EdgeVpnMembersError,
    Member,
    parse_members,
    render_members,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.watch import (
    LOST_SECONDS,
    RESTART_SECONDS,
    SLOT_SECONDS,
    START_SECONDS,
    Observation,
    RestartDecision,
    fault_of,
    summary_of,
)

GOOD = Observation(
    is_running=True,
    running_for=1000.0,
    sessions=2,
    wanted_sessions=2,
    tunnels={"node2": True, "node3": True},
    pod_tunnels=2,
    had_tunnels=True,
)
SIGNED_OUT = replace(GOOD, sessions=0)


def members(node: str, *others: str) -> EdgeVpnMembers:
    return EdgeVpnMembers(node, "appHOSTOVL", {name: Member("0" * 32, "10.10.0.9") for name in others})


def test_members_are_read_as_they_were_written() -> None:
    written = members("node1", "node2", "node3")
    assert parse_members(render_members(written), "x") == written


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"node": "a", "interface": "b", "peers": {"c": {}}}', "7", "null"])
def test_damaged_members_are_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(EdgeVpnMembersError, match=r"/etc/evio/edgevpn\.json is damaged .* run the playbook again"):
        parse_members(text, "/etc/evio/edgevpn.json")


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (GOOD, None),
        (SIGNED_OUT, None),
        (replace(GOOD, is_running=False), "controller does not run"),
        (replace(GOOD, is_running=False, running_for=1.0), "controller does not run"),
        (replace(GOOD, tunnels={"node2": False, "node3": True}, pod_tunnels=1), None),
        (replace(GOOD, tunnels={"node2": False, "node3": False}), "no tunnel of the host overlay to any of 2 nodes"),
        (replace(GOOD, pod_tunnels=0), "no tunnel of the pod overlay to any of 2 nodes"),
        (replace(GOOD, pod_tunnels=None), None),
        # The first node of a cluster is signed in and alone. A node that is not even signed in is cut off itself.
        (replace(GOOD, tunnels={"node2": False}, pod_tunnels=0, had_tunnels=False), None),
        (replace(SIGNED_OUT, tunnels={"node2": False}, pod_tunnels=0, had_tunnels=False), "0 of 2 sessions"),
        (replace(GOOD, tunnels={"node2": False}, pod_tunnels=0, running_for=START_SECONDS - 1), None),
        (replace(GOOD, tunnels={}, pod_tunnels=0), None),
    ],
)
def test_overlay_is_down_without_controller_or_tunnels_but_not_without_session(
    seen: Observation, words: str | None
) -> None:
    fault = fault_of(seen)
    assert (fault is None) if words is None else (fault is not None and words in fault)


def test_summary_counts_sessions_and_tunnels_and_says_what_a_missing_session_means() -> None:
    assert summary_of(GOOD) == "EdgeVPN.io: 2 of 2 sessions on the signalling server, tunnels to 2 of 2 nodes"
    assert "no node can join or come back" in summary_of(SIGNED_OUT)
    assert "no node can join" not in summary_of(replace(SIGNED_OUT, running_for=1.0))


def restart_time(decision: RestartDecision, node: EdgeVpnMembers, start: float, until: float) -> float | None:
    """Return when a restart is due, looking every second with no session; None if it is not due until then."""
    for now in range(int(start), int(until)):
        if decision.is_due(SIGNED_OUT, node, float(now)):
            return now
    return None


def test_nodes_that_have_lost_the_server_restart_one_after_another() -> None:
    names = [f"node{number}" for number in range(1, 6)]
    times = [
        restart_time(RestartDecision(), members(name, *(other for other in names if other != name)), 0, 1000)
        for name in names
    ]
    assert times == [LOST_SECONDS + number * SLOT_SECONDS for number in range(5)]


def test_no_node_waits_longer_than_all_turns() -> None:
    names = sorted(f"node{number:03}" for number in range(200))
    slots = [members(name, *(other for other in names if other != name)).restart_slot for name in names]
    assert max(slots) == RESTART_SLOTS - 1


def test_second_restart_waits_until_peers_have_taken_the_node_back() -> None:
    decision, node = RestartDecision(), members("node1", "node2")
    first = restart_time(decision, node, 0, 1000)
    assert first == LOST_SECONDS
    decision.note_restart(first)
    assert restart_time(decision, node, int(first) + 1, 2000) == first + RESTART_SECONDS


@pytest.mark.parametrize(
    "seen", [GOOD, replace(SIGNED_OUT, is_running=False), replace(SIGNED_OUT, running_for=START_SECONDS - 1)]
)
def test_service_that_is_signed_in_dead_or_starting_is_not_restarted(seen: Observation) -> None:
    decision, node = RestartDecision(), members("node1", "node2")
    assert not any(decision.is_due(seen, node, float(now)) for now in range(5000))


def test_session_that_comes_back_begins_the_wait_again() -> None:
    decision, node = RestartDecision(), members("node1", "node2")
    assert not decision.is_due(SIGNED_OUT, node, 0.0)
    assert not decision.is_due(GOOD, node, LOST_SECONDS - 1)
    assert not decision.is_due(SIGNED_OUT, node, LOST_SECONDS)
    assert decision.is_due(SIGNED_OUT, node, 2 * LOST_SECONDS)


def test_turns_begin_when_the_server_answers_again() -> None:
    decision, node = RestartDecision(), members("node2", "node1")
    due = LOST_SECONDS + SLOT_SECONDS
    assert restart_time(decision, node, 0, 200) == due
    decision.note_unreachable_server(due)
    assert restart_time(decision, node, int(due), 500) == 2 * due
