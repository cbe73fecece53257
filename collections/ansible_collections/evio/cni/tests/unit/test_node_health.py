# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node is as well as before a change if nothing new is wrong with it; what was wrong before is no reason to stop."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.errors import EvioError
from ansible_collections.evio.cni.plugins.module_utils.node import health
from ansible_collections.evio.cni.plugins.module_utils.node.health import (
    GOOD,
    health_from_json,
    health_of,
    new_faults,
    program_faults,
)
from ansible_collections.evio.cni.plugins.module_utils.node.model import NodeStatus

from .test_node_problems import GOOD as STATUS
from .test_node_problems import NETWORK, OVERLAY, PEER, POD

LOST = replace(PEER, name="node3", path=None, kind="none")
SILENT = replace(POD, container_id="b" * 64, addresses=("10.244.0.9/24",))


@pytest.fixture(autouse=True)
def pods_that_answer(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The addresses that answer pings: the tests change it."""
    answering = {"10.244.0.2"}

    def ping_all(addresses: list[str], _size: int, _timeout: float) -> dict[str, float | None]:
        return {address: 1.0 if address in answering else None for address in addresses}

    monkeypatch.setattr(health, "ping_all", ping_all)
    return answering


def faults(status: NodeStatus, before: NodeStatus = STATUS, **options: Any) -> list[str]:
    known = health_from_json(health_of(before).to_json())
    return new_faults(known, status, since=options.get("since"))


def with_peers(*peers: Any) -> NodeStatus:
    return replace(STATUS, overlay=replace(OVERLAY, peers=peers))


def with_verdict(verdict: str) -> NodeStatus:
    return replace(STATUS, networks=(replace(NETWORK, verdict=verdict),))


def test_node_in_order_has_no_new_fault() -> None:
    assert faults(STATUS) == []
    assert new_faults(GOOD, STATUS, since=None) == []


def test_what_is_wrong_only_now_is_named() -> None:
    assert "is ovs-vswitchd running?" in faults(with_verdict("is ovs-vswitchd running?"))[0]


def test_what_was_wrong_before_is_no_new_fault_also_if_its_number_has_grown() -> None:
    assert faults(with_verdict("no room for 12 s"), with_verdict("no room for 3 s")) == []
    assert faults(with_verdict("the fence is up"), with_verdict("no room for 3 s")) != []


def test_node_that_was_lost_before_may_stay_lost_and_another_may_not() -> None:
    other = replace(LOST, name="node4")
    before = with_peers(PEER, LOST, other)
    assert faults(with_peers(PEER, LOST, other), before) == []
    assert faults(with_peers(PEER, LOST, replace(PEER, name="node4")), before) == []
    assert faults(with_peers(PEER, LOST, other), with_peers(PEER, LOST, replace(PEER, name="node4"))) == [
        "there is no way to node4"
    ]


def test_pod_that_answered_before_has_to_answer_unless_it_has_ended(pods_that_answer: set[str]) -> None:
    both = replace(STATUS, networks=(replace(NETWORK, pods=(POD, SILENT)),))
    assert faults(both, both) == []
    known = health_of(both)
    assert (known.pods, known.silent_pods) == ({"10.244.0.2"}, {"10.244.0.9"})
    pods_that_answer.clear()
    assert new_faults(known, both, since=None) == ["pods do not answer that did before: 10.244.0.2"]
    assert new_faults(known, replace(STATUS, networks=(replace(NETWORK, pods=()),)), since=None) == []


def test_agent_has_to_speak_after_the_change() -> None:
    assert faults(STATUS, since=STATUS.time - 2) == []
    assert faults(STATUS, since=STATUS.time - 0.5) == ["the overlay's agent has not written its state since the change"]


def test_what_is_no_earlier_state_is_refused() -> None:
    for value in ({}, {"version": None, "problems": 7}, {"problems": []}):
        with pytest.raises(EvioError, match="no earlier state"):
            health_from_json(value)


def program(directory: Path, script: str) -> list[str]:
    path = directory / "evio"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    (directory / "net.d").mkdir(exist_ok=True)
    (directory / "net.d/10-evio.conflist").write_text(
        '{"cniVersion": "1.1.0", "name": "evio", "plugins": [{"type": "evio"}, {"type": "portmap"}]}'
    )
    return program_faults(str(directory), str(directory / "net.d"))


def test_programs_are_asked_for_status_as_the_runtime_asks(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    assert program(tmp_path, f'[ "$1" = version ] || {{ echo "$CNI_COMMAND" >{asked}; cat >>{asked}; }}') == []
    command, _newline, configuration = asked.read_text().partition("\n")
    assert command == "STATUS"
    assert configuration == '{"type": "evio", "name": "evio", "cniVersion": "1.1.0"}'


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo broken >&2; exit 1", "evio version failed: broken"),
        ('[ "$1" = version ] || { echo \'{"code": 50, "msg": "not ready"}\'; exit 1; }', "STATUS failed: not ready"),
        ('[ "$1" = version ] || exit 3', "STATUS failed: exit status 3"),
    ],
)
def test_program_that_fails_is_named_with_what_it_says(tmp_path: Path, script: str, told: str) -> None:
    [fault] = program(tmp_path, script)
    assert fault.endswith(told)


def test_of_a_traceback_only_the_last_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "told").write_text(json.dumps({"msg": "a bug", "details": "Traceback:\n  File x\n  Oops: 7\n"}))
    [fault] = program(tmp_path, f'[ "$1" = version ] || {{ cat {tmp_path}/told; exit 1; }}')
    assert fault.endswith("STATUS failed: a bug: Oops: 7")


def test_program_that_is_missing_is_a_fault(tmp_path: Path) -> None:
    [fault] = program_faults(str(tmp_path), os.fspath(tmp_path))
    assert "cannot be run: No such file" in fault
