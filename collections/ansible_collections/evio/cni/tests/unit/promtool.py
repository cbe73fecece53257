# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prometheus' own promtool, by which tests check metrics, queries and rules."""

from __future__ import annotations

import subprocess
from pathlib import Path


def promtool(*arguments: str | Path, text: str = "") -> str:
    """Run it and return all that it prints. It must succeed."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def lint(metrics: str) -> str:
    """Return what promtool finds wrong with metrics in the text format; it also fails for text that it cannot read."""
    return promtool("check", "metrics", text=metrics)
