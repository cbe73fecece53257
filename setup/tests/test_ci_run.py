"""What .ci/run does: long steps begin while there is time, and the end says what failed and why.

The script runs in a copy of its directories with programs that only say how they were called.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci/run"
BUILD = """\
#!/bin/sh
# Stands for setup/kubernetes: the file "cache" is its cache.
[ -e cache ] && exit
[ "$1" = --cached ] && exit 1
echo "called: setup/kubernetes"
touch cache
"""
SAYS = '#!/bin/sh\necho "called: ${0##*/} $*"\n'
FAILS = """\
#!/bin/sh
# Stands for make: its target "test" fails early in a long output.
echo "called: make $1"
[ "$1" = test ] || exit 0
# A daemon that keeps the step's output open.
sleep 5 &
for number in $(seq 60); do echo "FAILED test_$number.py"; done
echo "E   assert 1 == 2"
echo "fatal: [node1]: UNREACHABLE!"
for number in $(seq 100); do echo "line $number"; done
exit 2
"""


TIMEOUT = """\
#!/bin/sh
# Stands for timeout: says its seconds, and never ends the command.
echo "called: timeout $1"
shift
exec "$@"
"""


def _run(tree: Path, *, seconds: int, is_cached: bool) -> list[str]:
    """Run the script as if it had begun so many seconds ago, and return the calls, the skipped steps, the last line."""
    lines = _output(tree, seconds=seconds, is_cached=is_cached)
    return [line for line in lines if "called: " in line or "SKIPPED" in line] + lines[-1:]


def _output(
    tree: Path, *, seconds: int = 0, is_cached: bool = True, make: str = SAYS, timeout: str = "", status: int = 0
) -> list[str]:
    """Run the script as if it had begun so many seconds ago, and return the lines of its output."""
    shutil.copytree(SCRIPT.parent, tree / ".ci")
    for path, text in {"bin/make": make, "lab/lab": SAYS, "vm/test_kernel": SAYS, "setup/kubernetes": BUILD}.items():
        (tree / path).parent.mkdir()
        (tree / path).write_text(text)
        (tree / path).chmod(0o755)
    if timeout:
        (tree / "bin/timeout").write_text(timeout)
        (tree / "bin/timeout").chmod(0o755)
    if is_cached:
        (tree / "cache").touch()
    environment = {"PATH": f"{tree}/bin:{os.environ['PATH']}", "SECONDS": str(seconds)}
    done = subprocess.run(
        ["bash", str(tree / ".ci/run")], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_cached_kubernetes_is_tested(tmp_path: Path) -> None:
    assert _run(tmp_path, seconds=0, is_cached=True) == [
        *(f"called: make {target}" for target in ("setup", "lint", "test", "test-galaxy")),
        "called: test_kernel --life",
        *(f"called: make {target}" for target in ("molecule WITHOUT=kubernetes", "test-kubernetes")),
        "called: lab down",
        "called: make test-operations",
        "called: lab down",
        "8 passed, 0 failed, 0 skipped",
    ]


def test_kubernetes_is_built_and_tested_while_there_is_time(tmp_path: Path) -> None:
    calls = _run(tmp_path, seconds=2390, is_cached=False)
    assert "called: setup/kubernetes" in calls
    assert "called: make test-kubernetes" in calls
    assert calls[-1] == "9 passed, 0 failed, 0 skipped"


@pytest.mark.parametrize(
    ("seconds", "is_cached", "begun", "last"),
    [
        (2400, False, {"test-operations"}, "7 passed, 0 failed, 2 skipped"),
        (3000, True, {"test-kubernetes"}, "7 passed, 0 failed, 1 skipped"),
        (3300, True, set(), "6 passed, 0 failed, 2 skipped"),
    ],
)
def test_steps_that_would_begin_too_late_are_skipped_in_words(
    tmp_path: Path, seconds: int, is_cached: bool, begun: set[str], last: str
) -> None:
    calls = _run(tmp_path, seconds=seconds, is_cached=is_cached)
    assert {name for name in ("test-kubernetes", "test-operations") if f"called: make {name}" in calls} == begun
    assert sum("SKIPPED after" in call for call in calls) == int(last.split()[-2])
    assert calls[-1] == last


def test_operators_year_is_ended_before_the_run_takes_too_long(tmp_path: Path) -> None:
    lines = _output(tmp_path, seconds=2900, timeout=TIMEOUT)
    [seconds] = [int(line.split()[-1]) for line in lines if line.startswith("called: timeout")][-1:]
    # Of the steps before, each takes a moment.
    assert 2140 <= seconds <= 2200


def test_end_of_the_output_tells_which_steps_failed_and_why(tmp_path: Path) -> None:
    lines = _output(tmp_path, make=FAILS, status=1)
    assert lines[-1] == "7 passed, 1 failed, 0 skipped"
    summary = lines[lines.index("=== FAILED: tests (all of its output is in build/ci/3.log)") :]
    errors, last = summary[2 : summary.index("--- its last lines")], summary[summary.index("--- its last lines") + 1 :]
    assert errors == [f"FAILED test_{number}.py" for number in range(1, 41)]
    assert last[:25] == [f"line {number}" for number in range(76, 101)]
    assert last[25:] == ["", "7 passed, 1 failed, 0 skipped"]
    assert "E   assert 1 == 2" in (tmp_path / "build/ci/3.log").read_text().splitlines()


def test_end_of_the_output_of_a_good_run_repeats_nothing(tmp_path: Path) -> None:
    assert not any("=== FAILED" in line for line in _output(tmp_path))
