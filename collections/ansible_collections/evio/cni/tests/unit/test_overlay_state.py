# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state file of the overlay's agent: what its readers make of a fresh, an old and a damaged file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.state import (
    STATE_LIFETIME,
    OverlayState,
    PeerPath,
    overlay_fault,
    read_state,
    render_state,
)

NOW = 1_800_000_000.0
COLLECTIONS = Path(__file__).resolve().parents[5]
STATE = OverlayState(
    node="n1",
    interface="evio0",
    device="kernel",
    updated=NOW,
    peers=(
        PeerPath("n2", "10.10.0.2", "direct", 1.5, "198.51.100.2:51820"),
        PeerPath("n3", "10.10.0.3", None, None, None),
    ),
)


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "overlay.json"
    path.write_text(text)
    return str(path)


def test_written_state_is_read_back(tmp_path: Path) -> None:
    state = read_state(write(tmp_path, render_state(STATE)))
    assert state is not None
    assert state.to_json() == STATE.to_json()
    assert list(json.loads(render_state(STATE))) == [
        "node",
        "interface",
        "device",
        "updated",
        "peers",
        "fault",
        "blocked",
        "summary",
        "keys",
    ]


def test_firewall_that_cuts_pods_off_is_a_fault(tmp_path: Path) -> None:
    chain = "inet site ward drops forwarded packets; remedy: nft insert rule inet site ward accept"
    blocked = OverlayState("n1", "evio0", "kernel", NOW, (), blocked=[chain])
    fault = overlay_fault(write(tmp_path, render_state(blocked)), now=NOW)
    assert fault == f"a firewall of this node cuts pods off: {chain}"
    assert overlay_fault(write(tmp_path, render_state(STATE)), now=NOW) is None


def test_state_of_an_older_agent_is_read(tmp_path: Path) -> None:
    older = {key: value for key, value in STATE.to_json().items() if key != "blocked"}
    state = read_state(write(tmp_path, json.dumps(older)))
    assert state is not None
    assert state.blocked == ()


@pytest.mark.parametrize(
    ("age", "fault"), [(0, None), (STATE_LIFETIME - 1, None), (60, "the overlay's agent has said nothing for 60 s")]
)
def test_old_state_is_a_fault_and_not_fresh(tmp_path: Path, age: float, fault: str | None) -> None:
    found = overlay_fault(write(tmp_path, render_state(STATE)), NOW + age)
    assert (found is None) if fault is None else (found is not None and found.startswith(fault))
    assert STATE.is_fresh(NOW + age) is (fault is None)


def test_fault_of_the_agent_is_told_whatever_its_age(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"fault": "evio0 is gone", "updated": NOW - 60}))
    assert overlay_fault(path, NOW) == "the overlay is down: evio0 is gone"


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", '{"updated": "soon"}', '{"fault": "x"}', "\0", '{"peers": [1]}'])
def test_file_that_is_not_the_agents_has_neither_state_nor_fault(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert (read_state(path), overlay_fault(path)) == (None, None)


def test_missing_file_has_neither_state_nor_fault(tmp_path: Path) -> None:
    assert (read_state(str(tmp_path / "none")), overlay_fault(str(tmp_path / "none"))) == (None, None)


def test_import_is_cheap_enough_for_a_call_of_the_runtime() -> None:
    code = (
        "import sys; before = set(sys.modules); "
        "import ansible_collections.evio.cni.plugins.module_utils.overlay.state; "
        "print(*(name for name in set(sys.modules) - before if 'ansible' not in name))"
    )
    listing = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(COLLECTIONS)}, capture_output=True, text=True, check=True
    )
    assert set(listing.stdout.split()) <= {"__future__", "posix", "time"}
