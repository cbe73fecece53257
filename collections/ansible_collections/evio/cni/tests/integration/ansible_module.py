# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a module of the collection as Ansible does: in a process, with its arguments on stdin and JSON on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .overlay_lab import Namespace

_COLLECTIONS = Path(__file__).resolve().parents[5]


def run_module(
    module: str,
    *,
    netns: str | None = None,
    namespace: Namespace | None = None,
    check_mode: bool = False,
    **arguments: Any,
) -> dict[str, Any]:
    """Return the module's result. It runs in a named network namespace or in a lab's namespace, if one is given."""
    command = [sys.executable, "-m", f"ansible_collections.evio.cni.plugins.modules.{module}"]
    if netns is not None:
        command = ["nsenter", f"--net=/run/netns/{netns}", *command]
    if namespace is not None:
        command = namespace.command(*command)
    result = subprocess.run(
        command,
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
    """Run the module in check mode, for real, and again, and return the three results.

    Asserts that check mode predicts the second run and that the third run changes nothing.
    """
    predicted = run_module(module, check_mode=True, **arguments)
    done = run_module(module, **arguments)
    again = run_module(module, **arguments)
    results = (predicted, done, again)
    assert [result.get("changed") for result in results] == [True, True, False], results
    assert predicted["diff"] == done["diff"]
    return results
