# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The watch of a container: a fault that lasts is told once, and nothing ends it but a signal or a mistake of ours."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.errors import EvioError
from ansible_collections.evio.cni.plugins.module_utils.node import watch
from ansible_collections.evio.cni.plugins.module_utils.node.watch import Faults, Watch, keep_pod_routes


def test_fault_is_told_once_as_long_as_it_lasts() -> None:
    told: list[str] = []
    faults = Faults(told.append)
    for present in (["etcd is down"], ["etcd is down", "disk full"], ["disk full"], [], ["etcd is down"]):
        faults.tell(present)
    assert told == ["etcd is down", "disk full", "etcd is down"]


def test_node_without_a_configuration_is_told_once_and_watched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.01)
    told: list[str] = []
    looks: list[int] = []
    stop = threading.Event()

    def report(repairs: list[watch.Repair]) -> None:
        looks.append(len(repairs))
        if len(looks) == 3:
            stop.set()

    Watch(str(tmp_path), report=report, warn=told.append, interval=60).run(stop)
    assert looks == [0, 0, 0]
    assert len(told) == 1
    assert "this node is not set up for pods yet" in told[0]


class Keeper:
    """Stands for PodRoutesKeeper: fails as it is told to."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)

    def update(self) -> list[str]:
        failure = self.failures.pop(0)
        if failure is not None:
            raise failure
        return ["node2"]


def test_etcd_that_does_not_answer_is_told_once_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_CLAIMS_SECONDS", 0.01)
    told: list[str] = []
    changed: list[str] = []
    stop = threading.Event()

    def report(nodes: list[str]) -> None:
        changed.extend(nodes)
        stop.set()

    keeper = Keeper(EvioError("etcd is down"), EvioError("etcd is down"), None)
    keep_pod_routes(keeper, stop, report=report, warn=told.append)  # type: ignore[arg-type]
    assert (told, changed) == (["etcd is down"], ["node2"])


def test_mistake_in_the_thread_of_the_routes_ends_the_whole_watch() -> None:
    stop = threading.Event()
    with pytest.raises(KeyError):
        keep_pod_routes(Keeper(KeyError()), stop, report=print, warn=print)  # type: ignore[arg-type]
    assert stop.is_set()
