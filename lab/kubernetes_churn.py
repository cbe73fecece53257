"""Pods that come and go while the programs on the nodes are exchanged for another version."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from commands import LabError
from kubernetes_cluster import Cluster, set_crowd
from state import REPOSITORY, Lab

PROGRAMS = REPOSITORY / "build/evio-programs.zip"
"""The archive of the programs, which `make plugin` builds."""
_CHURN = 6
"""Pods that come and go in one round of the churn."""


@dataclass
class Churn:
    """Pods that come and go: how many came, and why it ended early, if it did."""

    pods: int = 0
    failure: str = ""


@contextmanager
def churning(cluster: Cluster) -> Iterator[Churn]:
    """Let pods come and go for as long as the context lasts."""
    churn, ends = Churn(), threading.Event()

    def come_and_go() -> None:
        try:
            while not ends.is_set():
                set_crowd(cluster, _CHURN)
                churn.pods += _CHURN
                set_crowd(cluster, 0)
        except LabError as error:
            churn.failure = str(error)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield churn
    finally:
        ends.set()
        thread.join()


def other_version(lab: Lab) -> Path:
    """Return an archive of the programs with another version: the same programs and one file more."""
    path = lab.cache / "other-version.zip"
    path.write_bytes(PROGRAMS.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo("evio_program/other_version.py"), "")
    return path
