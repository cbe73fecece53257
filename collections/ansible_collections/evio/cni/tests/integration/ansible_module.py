# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module of the collection run as Ansible runs it: a process of its own, arguments in, one JSON object out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_COLLECTIONS = Path(__file__).resolve().parents[5]


def run_module(module: str, *, netns: str | None = None, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
    """What the module returned, run in a namespace's network where one is given."""
    result = subprocess.run(
        [
            *(["nsenter", f"--net=/run/netns/{netns}"] if netns else []),
            sys.executable,
            "-m",
            f"ansible_collections.evio.cni.plugins.modules.{module}",
        ],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check_mode}}),
        env={**os.environ, "PYTHONPATH": str(_COLLECTIONS), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout, result.stderr
    returned: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return returned


def check_do_again(module: str, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """In check mode, for real, again; asserts that the first foretold the second and that the third did nothing."""
    foretold = run_module(module, check_mode=True, **arguments)
    done = run_module(module, **arguments)
    again = run_module(module, **arguments)
    assert [result.get("changed") for result in (foretold, done, again)] == [True, True, False], (foretold, done, again)
    assert foretold["diff"] == done["diff"]
    return foretold, done, again
