# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tests that vm/test_kernel names, and its exit status. The machines themselves are not started."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "test_kernel"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program as a module."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = spec_from_loader("test_kernel_program", SourceFileLoader("test_kernel_program", str(PROGRAM)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_tests_that_are_named_exist(program: ModuleType) -> None:
    parts = [test for part in program.PARTS.values() for test in part]
    unconcerned = [test for tests in program.UNCONCERNED.values() for test in tests]
    named = [*program.LIFE, *program.LOSS, *program.ROTATION, *parts, *unconcerned]
    assert named
    for test in named:
        file, _colons, function = test.partition("::")
        text = (program.REPOSITORY / program.TESTS / file).read_text()
        assert not function or f"def {function}(" in text, test


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((0, 0, 0), 0),
        ((0, 1, 0), 1),
        ((125, 0, 0), 125),
        ((125, 0, 1), 1),
        ((124, 125, 0), 124),
        ((125, 125, 125), 125),
    ],
)
def test_failed_tests_count_more_than_a_missing_machine(
    program: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    statuses: tuple[int, int, int],
    expected: int,
) -> None:
    stand_in = tmp_path / "program"
    cases = "".join(f"{part}) exit {status} ;; " for part, status in zip(program.PARTS, statuses, strict=True))
    stand_in.write_text(f'#!/bin/sh\necho "runs $2"\ncase $2 in {cases} esac\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(program, "__file__", str(stand_in))
    assert program.run_parts(tuple(program.PARTS)) == expected
    assert sorted(capfd.readouterr().out.splitlines()) == sorted(f"{part}: runs {part}" for part in program.PARTS)


@pytest.mark.parametrize(("option", "parts"), [([], "PARTS"), (["--loss"], "LOSS_PARTS")])
def test_parts_are_those_of_the_option(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, option: list[str], parts: str
) -> None:
    run: list[tuple[str, ...]] = []
    monkeypatch.setattr(program, "run_parts", lambda names: run.append(names) or 0)
    monkeypatch.setattr(program.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["test_kernel", *option])
    assert program.main() == 0
    assert run == [tuple(getattr(program, parts))]


def test_machines_share_the_scenarios_with_lossy_paths(program: ModuleType) -> None:
    shares = [tuple(int(part) for part in share.split("/")) for share in program.LOSS_PARTS.values()]
    assert shares == [(number, len(shares)) for number in range(1, len(shares) + 1)]


def test_unknown_option_is_refused_before_a_machine_is_started() -> None:
    done = subprocess.run([PROGRAM, "--lost"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
