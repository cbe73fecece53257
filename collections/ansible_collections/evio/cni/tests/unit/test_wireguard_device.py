# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes of WireGuard's peers by wg: one peer's failure, and answers that are none. A script stands for wg."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard import device
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import (
    PeerChange,
    WireGuardError,
    WireGuardTimeoutError,
    change_peers,
    port_holder_fault,
    read_device,
)

KEYS = [base64.b64encode(number.to_bytes(32, "big")).decode() for number in range(500)]


@pytest.fixture
def wg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that sets the script which runs in place of wg; its file of calls is returned."""
    calls = tmp_path / "calls"

    def set_script(script: str) -> Path:
        program = tmp_path / "wg"
        program.write_text(f'#!/bin/sh\n{script}\necho "$*" >> {calls}\n')
        program.chmod(0o755)
        return calls

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return set_script


def test_refused_change_of_one_peer_does_not_keep_the_others_from_being_made(wg: Callable[[str], Path]) -> None:
    calls = wg(f'case "$*" in *{KEYS[1]}*) echo "no such thing" >&2; exit 1;; esac')
    failed = change_peers("evio0", [PeerChange(key, ("10.10.0.1/32",)) for key in KEYS[:3]])
    assert list(failed) == [KEYS[1]]
    assert "no such thing" in failed[KEYS[1]]
    assert calls.read_text() == "".join(f"set evio0 peer {KEYS[i]} allowed-ips 10.10.0.1/32\n" for i in (0, 2))


def test_removal_and_new_session_of_a_peer_stay_together(wg: Callable[[str], Path]) -> None:
    calls = wg("")
    assert change_peers("evio0", [PeerChange(KEYS[0], is_removed=True), PeerChange(KEYS[0], ("10.10.0.1/32",))]) == {}
    assert calls.read_text() == f"set evio0 peer {KEYS[0]} remove peer {KEYS[0]} allowed-ips 10.10.0.1/32\n"


def test_many_peers_are_changed_in_several_calls(wg: Callable[[str], Path]) -> None:
    calls = wg("")
    assert change_peers("evio0", [PeerChange(key, ("10.10.0.1/32",)) for key in KEYS]) == {}
    assert [line.count(" peer ") for line in calls.read_text().splitlines()] == [200, 200, 100]


def test_wg_that_does_not_answer_is_not_run_again_for_each_peer(
    wg: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wg("exec sleep 60")
    monkeypatch.setattr(device, "_TIMEOUT", 0.3)
    with pytest.raises(WireGuardTimeoutError):
        change_peers("evio0", [PeerChange(key, ("10.10.0.1/32",)) for key in KEYS[:3]])


@pytest.mark.parametrize(
    "script", ["echo nonsense", "printf 'a\\tb\\tc\\td\\n'", "printf '\\377\\376'", "kill -9 $$", "true"]
)
def test_answer_that_is_no_device_is_an_error_of_ours(wg: Callable[[str], Path], script: str) -> None:
    wg(script)
    with pytest.raises(WireGuardError):
        read_device("evio0")


def test_device_that_does_not_exist_is_none(wg: Callable[[str], Path]) -> None:
    wg("exit 1")
    assert read_device("evio0") is None


@pytest.mark.parametrize(("version", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_used_port_is_named_and_a_free_port_is_not(version: int, address: str) -> None:
    with socket.socket(version, socket.SOCK_DGRAM) as holder:
        holder.bind((address, 0))
        port = holder.getsockname()[1]
        assert f"UDP port {port} is used" in (port_holder_fault(port) or "")
    assert port_holder_fault(port) is None
