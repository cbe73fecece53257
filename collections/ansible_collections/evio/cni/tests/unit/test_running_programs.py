# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Services that go on with the code of a version that was replaced are found by the directory that they hold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils import systemd_units
from ansible_collections.evio.cni.plugins.module_utils.programs import running
from ansible_collections.evio.cni.plugins.module_utils.programs.running import held_version, outdated_services
from ansible_collections.evio.cni.plugins.module_utils.systemd_units import SystemdError

OLD, NEW = "evio-" + "1" * 16, "evio-" + "2" * 16
HOLD = "import os, sys; os.open(sys.argv[1], os.O_RDONLY); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    (tmp_path / OLD).mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / OLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.communicate(timeout=10)


def test_version_that_a_process_holds_is_found(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    assert held_version(holder.pid, str(tmp_path)) == OLD
    (tmp_path / "link").symlink_to(tmp_path)
    assert held_version(holder.pid, str(tmp_path / "link")) == OLD
    assert held_version(holder.pid, "/opt/cni/lib") is None


def test_process_that_has_ended_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert held_version(process.pid, str(tmp_path)) is None


def test_service_of_another_version_is_outdated(
    tmp_path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "main_processes", lambda _services: {"evio-overlay.service": holder.pid})
    assert outdated_services(NEW, lib_dir=str(tmp_path)) == ["evio-overlay.service"]
    assert outdated_services(OLD, lib_dir=str(tmp_path)) == []


def test_where_no_systemd_is_no_service_is_outdated(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_systemd(_services: object) -> dict[str, int]:
        raise SystemdError("systemctl show: no such file")

    monkeypatch.setattr(running, "main_processes", no_systemd)
    assert outdated_services(NEW, lib_dir="/opt/cni/lib") == []


def test_main_processes_are_those_of_services_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "MainPID=71\nId=a.service\n\nMainPID=0\nId=b.service\n"
    monkeypatch.setattr(systemd_units, "_systemctl", lambda *_arguments, **_options: told)
    assert systemd_units.main_processes(["a.service", "b.service"]) == {"a.service": 71}
