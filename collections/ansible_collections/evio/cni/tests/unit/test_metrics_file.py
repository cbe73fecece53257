# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The metrics that nobody writes any more are found by the unit that wrote them, and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils import paths
from ansible_collections.evio.cni.plugins.module_utils.node.metrics_file import (
    MetricsFileError,
    metrics_file,
    remove_metrics,
    stop_counting,
)
from ansible_collections.evio.cni.plugins.module_utils.state.event_log import log_file, note_event

TEMPLATE = Path(__file__).resolve().parents[2] / "roles/cni/templates/evio-metrics.service.j2"


def test_file_is_where_the_unit_of_the_role_writes_it() -> None:
    text = TEMPLATE.read_text().replace("{{ __evio_metrics_directory }}", "/var/lib/prometheus/node-exporter")
    assert metrics_file(text) == "/var/lib/prometheus/node-exporter/evio.prom"


@pytest.mark.parametrize(
    "text",
    [None, "", "[Service]\nExecStart=/opt/cni/bin/evio metrics\n", "# ExecStart=x --textfile-directory /etc\n"],
)
def test_unit_that_writes_no_file_has_none(text: str | None) -> None:
    assert metrics_file(text) is None


def test_file_is_removed_and_its_directory_stays(tmp_path: Path) -> None:
    (tmp_path / "evio.prom").write_text("evio_fenced 0\n")
    for _again in range(2):
        remove_metrics(str(tmp_path / "evio.prom"))
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "evio.prom").mkdir()
    with pytest.raises(MetricsFileError, match=r"cannot remove .*/evio\.prom: Is a directory"):
        remove_metrics(str(tmp_path / "evio.prom"))


def test_nothing_is_counted_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "run"
    own.mkdir()
    monkeypatch.setattr(paths, "METRICS_RUN_DIR", str(own))
    state = str(tmp_path)
    log = Path(log_file(state))
    log.parent.mkdir()
    log.touch()
    note_event(state, "ADD", 12000)
    assert log.stat().st_size
    stop_counting(state)
    stop_counting(state)
    note_event(state, "ADD", 12000)
    assert list(log.parent.iterdir()) == []
    assert not own.exists()
