"""The versions of ansible-core that the collection is run under are pinned, and those that were not run are told."""

from __future__ import annotations

import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SETUP = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    loader = SourceFileLoader("ansible_versions", str(SETUP / "ansible_versions"))
    module = module_from_spec(spec_from_loader("ansible_versions", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


def test_each_version_is_pinned_with_hashes(program: ModuleType) -> None:
    for version in program.VERSIONS:
        pins = (SETUP / f"ansible_core/{version}.txt").read_text()
        assert re.search(rf"(?m)^ansible-core=={re.escape(version)}\.\d+ \\$", pins)
        packages = len(re.findall(r"(?m)^\S+==", pins))
        assert packages == len(re.findall(r"(?m)^\S+==.*\\\n +--hash=sha256:", pins)) > 1


def test_readme_of_the_collection_installs_a_version_that_is_run(program: ModuleType) -> None:
    readme = (SETUP.parent / "collections/ansible_collections/evio/cni/README.md").read_text()
    found = re.search(r"pip install 'ansible-core>=(\d+)\.(\d+),<(\d+)\.(\d+)'", readme)
    assert found
    oldest, *_between, newest = program.VERSIONS
    assert oldest == f"{found[1]}.{found[2]}"
    assert newest == f"{found[3]}.{int(found[4]) - 1}"


@pytest.mark.parametrize(
    ("passed", "failed", "runnable", "line"),
    [
        (
            ["2.17", "2.18"],
            [],
            ["2.17", "2.18"],
            "passed: 2.17, 2.18; NOT RUN, because this machine has no Python 3.11",
        ),
        (["2.17"], ["2.21"], ["2.17", "2.20", "2.21"], "FAILED: 2.21; not run, because of --quick: 2.20; NOT RUN"),
        ([], [], [], "passed: none; NOT RUN, because this machine has no Python 3.10 to 3.12: 2.17"),
    ],
)
def test_last_line_says_what_was_not_run(
    program: ModuleType, passed: list[str], failed: list[str], runnable: list[str], line: str
) -> None:
    assert line in program.summary(passed, failed, runnable)


def test_last_line_says_nothing_of_what_was_run(program: ModuleType) -> None:
    assert program.summary(list(program.VERSIONS), [], list(program.VERSIONS)) == (
        "ansible-core passed: 2.17, 2.18, 2.19, 2.20, 2.21"
    )
