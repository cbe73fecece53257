# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes of WireGuard's peers by wg: one peer's failure, and answers that are none. A script stands for wg."""

from __future__ import annotations

import base64
import socket
import threading
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


def test_handshakes_are_asked_of_wireguard_go_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_CONTROL_DIR", str(tmp_path))
    told = "".join(
        f"public_key={number:02x}{'00' * 31}\nlast_handshake_time_sec={seconds}\nlast_handshake_time_nsec=5\n"
        for number, seconds in ((1, 1_700_000_000), (2, 0))
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "evio0.sock"))
        server.listen()

        def answer() -> None:
            connection, _address = server.accept()
            with connection:
                assert connection.recv(100) == b"get=1\n\n"
                connection.sendall(f"private_key={'11' * 32}\nlisten_port=51820\n{told}errno=0\n".encode())
                connection.sendall(b"\n")

        thread = threading.Thread(target=answer)
        thread.start()
        found = device.read_handshakes("evio0")
        thread.join()
    keys = [base64.b64encode(bytes([number, *bytes(31)])).decode() for number in (1, 2)]
    assert found == {keys[0]: 1_700_000_000, keys[1]: 0}
    with pytest.raises(WireGuardError, match="wireguard-go of evio0 does not answer"):
        device.read_handshakes("evio0")
