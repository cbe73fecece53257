"""Root file systems of both Debian releases come from the mirrors that this machine's apt uses, and are built once."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rootfs
from commands import LabError
from state import Lab

LISTED = """\
bookworm http://mirror.example/debian main
bookworm-security http://mirror.example/debian-security main
bookworm-updates http://mirror.example/debian main
"""


def _apt_knows(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    done = subprocess.CompletedProcess([], 0, stdout=listed)
    monkeypatch.setattr(rootfs, "attempt", lambda *_argv: done)
    monkeypatch.setattr(rootfs, "run_reported", lambda *_args, **_kwargs: None)


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_a_release_has_the_suites_that_apt_knows_of_this_machine_s(
    release: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _apt_knows(monkeypatch, LISTED)
    assert rootfs._mirrors(release, tmp_path / "log").splitlines() == [
        f"deb http://mirror.example/debian {release} main",
        f"deb http://mirror.example/debian-security {release}-security main",
        f"deb http://mirror.example/debian {release}-updates main",
    ]


def test_mirrors_that_apt_has_for_a_release_come_before_those_of_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _apt_knows(monkeypatch, LISTED + "trixie http://other.example/debian main\n")
    assert rootfs._mirrors("trixie", tmp_path / "log") == "deb http://other.example/debian trixie main\n"


def test_machine_without_a_mirror_is_told_to_add_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _apt_knows(monkeypatch, "noble http://mirror.example/ubuntu main\n")
    with pytest.raises(LabError, match="apt knows no mirror of Debian bookworm"):
        rootfs._mirrors("trixie", tmp_path / "log")


def test_root_file_system_is_built_once_and_that_of_the_other_release_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = []

    def build(release: str, directory: Path, _packages: list[str], _log: Path) -> None:
        built.append(release)
        directory.mkdir()

    monkeypatch.setattr(rootfs, "_build", build)
    lab = Lab(state=tmp_path)
    outdated = lab.cache / "rootfs-0123456789ab"
    outdated.mkdir(parents=True)
    with ThreadPoolExecutor() as workers:
        paths = set(workers.map(lambda release: rootfs.prepare(lab, release), ["bookworm", "trixie"] * 4))
    assert sorted(built) == ["bookworm", "trixie"]
    assert len(paths) == 2
    assert all(path.is_dir() for path in paths)
    assert not outdated.exists()
