"""What .ci/run does about Kubernetes: it builds and tests it while there is time, and says what it left out.

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


def _run(tree: Path, *, seconds: int, is_cached: bool) -> list[str]:
    """Run the script as if it had begun so many seconds ago, and return the calls, the skipped steps, the last line."""
    shutil.copytree(SCRIPT.parent, tree / ".ci")
    for path, text in {"bin/make": SAYS, "lab/lab": SAYS, "vm/test_kernel": SAYS, "setup/kubernetes": BUILD}.items():
        (tree / path).parent.mkdir()
        (tree / path).write_text(text)
        (tree / path).chmod(0o755)
    if is_cached:
        (tree / "cache").touch()
    environment = {"PATH": f"{tree}/bin:{os.environ['PATH']}", "SECONDS": str(seconds)}
    done = subprocess.run(
        ["bash", str(tree / ".ci/run")], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    return [line for line in lines if "called: " in line or "SKIPPED" in line] + lines[-1:]


def test_cached_kubernetes_is_tested(tmp_path: Path) -> None:
    assert _run(tmp_path, seconds=0, is_cached=True) == [
        *(f"called: make {target}" for target in ("setup", "lint", "test")),
        "called: test_kernel --life",
        *(f"called: make {target}" for target in ("molecule", "test-kubernetes")),
        "called: lab down",
        "6 passed, 0 failed, 0 skipped",
    ]


def test_kubernetes_is_built_and_tested_while_there_is_time(tmp_path: Path) -> None:
    calls = _run(tmp_path, seconds=2390, is_cached=False)
    assert "called: setup/kubernetes" in calls
    assert calls[-3:] == ["called: make test-kubernetes", "called: lab down", "7 passed, 0 failed, 0 skipped"]


@pytest.mark.parametrize(("seconds", "is_cached", "skipped"), [(2400, False, 2), (3300, True, 1)])
def test_too_late_kubernetes_is_skipped_in_words(tmp_path: Path, seconds: int, is_cached: bool, skipped: int) -> None:
    calls = _run(tmp_path, seconds=seconds, is_cached=is_cached)
    assert "called: make test-kubernetes" not in calls
    assert sum("SKIPPED after" in call for call in calls) == skipped
    assert calls[-1] == f"5 passed, 0 failed, {skipped} skipped"
