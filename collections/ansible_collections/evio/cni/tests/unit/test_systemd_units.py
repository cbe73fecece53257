# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Units and their files kept in one step: what is changed, in which order, and what a dry run predicts.

A machine without systemd runs these tests: a program named systemctl, with the state of its units in a file, stands for
it. molecule's scenarios run the same code with systemd.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils import systemd_units
from ansible_collections.evio.cni.plugins.module_utils.systemd_units import (
    SystemdError,
    SystemdUnits,
    Unit,
    UnitFile,
)

SYSTEMCTL = """\
#!/usr/bin/python3
import json, sys
units = json.load(open({state!r}))
verb, *names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
if verb == "show":
    for name in names:
        unit = units.get(name, dict(LoadState="not-found", ActiveState="inactive", UnitFileState=""))
        told = dict(Id=name, NeedDaemonReload="no", **unit)
        print("\\n".join(f"{{key}}={{value}}" for key, value in told.items()) + "\\n")
    sys.exit()
with open({calls!r}, "a") as calls:
    print(verb, *names, file=calls)
if "broken.service" in names:
    sys.exit("Job for broken.service failed")
if verb == "reset-failed" and any(units.get(name, dict()).get("ActiveState") != "failed" for name in names):
    sys.exit("Failed to reset failed state of unit: Unit not loaded.")
if verb == "disable":
    for name in names:
        units[name].update(ActiveState="failed" if name == "killed.service" else "inactive", UnitFileState="disabled")
    json.dump(units, open({state!r}, "w"))
"""


class FakeSystemd:
    """Units as systemctl tells them, and what systemctl was asked to do."""

    def __init__(self, directory: Path) -> None:
        self.state, self.log = directory / "units.json", directory / "calls"
        program = directory / "systemctl"
        program.write_text(SYSTEMCTL.format(state=str(self.state), calls=str(self.log)))
        program.chmod(0o755)
        self.set()

    def set(self, **states: str) -> None:
        """Give the units of these names, without their suffix, an active state; all are enabled."""
        units = {
            f"{name}.service": {"LoadState": "loaded", "ActiveState": state, "UnitFileState": "enabled"}
            for name, state in states.items()
        }
        self.state.write_text(json.dumps(units))

    def calls(self) -> list[str]:
        """Return what was asked since the last call of this function."""
        found = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return found


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(systemd_units, "UNIT_DIRECTORY", f"{tmp_path}/units/")
    return FakeSystemd(tmp_path)


def keep(files: list[UnitFile], units: list[Unit], *, dry_run: bool = False) -> dict[str, Any]:
    wanted = SystemdUnits(files, units, dry_run=dry_run)
    wanted.write_files()
    wanted.start()
    return wanted.result()


def test_new_unit_is_written_read_enabled_and_started_and_then_left_alone(systemd: FakeSystemd, tmp_path: Path) -> None:
    file = UnitFile(f"{tmp_path}/units/agent.service", "[Service]\n")
    unit = Unit("agent.service", restart_after=(file.path,))
    predicted = keep([file], [unit], dry_run=True)
    assert (systemd.calls(), Path(file.path).exists()) == ([], False)
    result = keep([file], [unit])
    assert systemd.calls() == ["daemon-reload", "enable agent.service", "start agent.service"]
    assert Path(file.path).read_text() == "[Service]\n"
    assert (result["changed"], result["files"], result["units"]) == (True, [file.path], ["agent.service"])
    assert predicted == result
    systemd.set(agent="active")
    again = keep([file], [unit])
    assert (again["changed"], again["diff"], systemd.calls()) == (False, [], [])


def test_unit_is_restarted_after_a_change_of_its_own_files_only(systemd: FakeSystemd, tmp_path: Path) -> None:
    systemd.set(first="active", second="active", third="inactive")
    files = [UnitFile(f"{tmp_path}/first.conf", "new"), UnitFile(f"{tmp_path}/second.conf", "same")]
    Path(files[1].path).write_text("same")
    units = [
        Unit("first.service", restart_after=(files[0].path,)),
        Unit("second.service", restart_after=(files[1].path,)),
        Unit("third.service", restart_after=(files[0].path,)),
    ]
    result = keep(files, units)
    # No daemon-reload, since no unit's own file has changed. A unit that does not run is started, not restarted.
    assert systemd.calls() == ["restart first.service", "start third.service"]
    assert result["units"] == ["first.service", "third.service"]
    after = [part["after"]["state"] for part in result["diff"] if "unit" in part["after"]]
    assert after == ["restarted", "running"]


def test_diff_names_each_file_and_unit_that_differs(systemd: FakeSystemd, tmp_path: Path) -> None:
    systemd.set(agent="inactive")
    path = tmp_path / "agent.conf"
    path.write_text("old\n")
    result = keep([UnitFile(str(path), "new\n")], [Unit("agent.service")], dry_run=True)
    assert result["diff"][0] == {
        "before_header": str(path),
        "after_header": str(path),
        "before": "old\n",
        "after": "new\n",
    }
    assert result["diff"][1] == {
        "before": {"unit": "agent.service", "enabled": True, "state": "stopped"},
        "after": {"unit": "agent.service", "enabled": True, "state": "running"},
    }
    assert path.read_text() == "old\n"


def test_unit_that_shall_only_be_enabled_is_not_started(systemd: FakeSystemd) -> None:
    systemd.set(repair="inactive")
    assert not keep([], [Unit("repair.service", is_started=False)])["changed"]
    assert systemd.calls() == []


def test_unit_of_a_missing_package_is_refused_before_a_file_is_written(systemd: FakeSystemd, tmp_path: Path) -> None:
    file, unit = UnitFile(f"{tmp_path}/daemon.conf", "new"), Unit("daemon.service")
    with pytest.raises(SystemdError, match=r"daemon\.service: systemd has no such unit; is its package installed\?"):
        keep([file], [unit])
    assert not Path(file.path).exists()
    # In check mode the package may be one that the real run installs.
    assert keep([file], [unit], dry_run=True)["units"] == ["daemon.service"]


def test_start_that_fails_is_told_in_systemds_words_and_tried_again(systemd: FakeSystemd) -> None:
    systemd.set(broken="failed")
    for attempt in range(2):
        with pytest.raises(SystemdError, match=r"systemctl start broken\.service: Job for broken\.service failed"):
            keep([], [Unit("broken.service")])
        assert systemd.calls() == ["start broken.service"], attempt


def test_absent_unit_is_stopped_before_its_file_is_removed_and_is_then_in_order(
    systemd: FakeSystemd, tmp_path: Path
) -> None:
    file = UnitFile(f"{tmp_path}/units/metrics.service", None)
    Path(file.path).parent.mkdir()
    Path(file.path).write_text("[Service]\n")
    systemd.set(metrics="active", other="active")
    units = [Unit("metrics.service", is_absent=True), Unit("other.service"), Unit("never.service", is_absent=True)]
    predicted = keep([file], units, dry_run=True)
    assert (systemd.calls(), Path(file.path).exists()) == ([], True)
    result = keep([file], units)
    assert systemd.calls() == ["disable metrics.service", "daemon-reload"]
    assert not Path(file.path).exists()
    assert (result["files"], result["units"]) == ([file.path], ["metrics.service"])
    assert predicted == result
    systemd.set(other="active")
    again = keep([file], units)
    assert (again["changed"], again["diff"], systemd.calls()) == (False, [], [])


def test_units_that_are_absent_together_are_all_stopped_if_one_is_left(systemd: FakeSystemd) -> None:
    # A timer may start its service between the look and the stop.
    systemd.set(timer="active", service="inactive")
    keep([], [Unit("timer.service", is_absent=True), Unit("service.service", is_absent=True)])
    assert systemd.calls() == ["disable timer.service service.service"]


def test_service_that_was_stopped_while_it_ran_is_not_left_as_failed(systemd: FakeSystemd) -> None:
    systemd.set(killed="active", timer="active")
    keep([], [Unit("timer.service", is_absent=True), Unit("killed.service", is_absent=True)])
    assert systemd.calls() == ["disable timer.service killed.service", "reset-failed killed.service"]


def test_absent_unit_that_systemd_remembers_as_failed_is_forgotten(systemd: FakeSystemd) -> None:
    unit = {"LoadState": "not-found", "ActiveState": "failed", "UnitFileState": ""}
    systemd.state.write_text(json.dumps({"metrics.service": unit}))
    assert keep([], [Unit("metrics.service", is_absent=True)])["units"] == ["metrics.service"]
    assert systemd.calls() == ["reset-failed metrics.service"]


def test_file_that_shall_be_absent_needs_no_content() -> None:
    options = {"path": "/x", "content": None, "state": "absent", "mode": "0644", "owner": None, "group": None}
    wanted = systemd_units.from_options([{**options, "if_directory": False}], [], dry_run=True)
    assert [change.text for change in wanted.changes] == [None]
